"""`Defense`: a Keras model that trains a network against an adversary.

A defense overrides `perturb` (the attack) and `objective` (the loss), which change no state. The training step, which
does, is here, once for all defenses, with weight averaging and distribution.
"""

import math
import typing
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from absl import logging

from tf_nuat import draws, losses, norms, parallel
from tf_nuat.core import validation
from tf_nuat.defenses.batch import BatchError, read_batch
from tf_nuat.defenses.network_model import NetworkModel, with_penalties
from tf_nuat.defenses.passes import Passes
from tf_nuat.defenses.signature import ConstructorSignature
from tf_nuat.models import batch_norm, pixel_scale, random_layers
from tf_nuat.models.inference import inference

# Values that a step passes to `observe`, by name.
Facts = dict[str, typing.Any]
# Loss, logits and, optionally, facts.
ObjectiveValue = tuple[tf.Tensor, tf.Tensor] | tuple[tf.Tensor, tf.Tensor, Facts]


class Gradients(typing.NamedTuple):
    """What a training step computes before it changes anything.

    Attributes:
        loss, logits: those of the objective; the loss includes the penalties of the network's layers.
        gradients: of the (scaled) loss, one per trainable variable.
        facts: what the objective passes to `observe`.
    """

    loss: tf.Tensor
    logits: tf.Tensor
    gradients: Sequence[tf.Tensor | None]
    facts: Facts


class Defense(NetworkModel):
    """Trains `network` by `fit`; `evaluate` and `predict` apply the network to the images as they are.

    Compile it with an optimizer and metrics, without a loss: the defense has its own. Penalties of the network's layers
    are added to the loss, in training and in evaluation. If an objective has several forward passes, the penalty of an
    activity regularizer is that of the last one.

    If the network begins with augmentation (`keras.layers.RandomFlip`, for instance), a step draws it once, before the
    attack: clean and adversarial images share it, and the ball of radius epsilon surrounds the augmented image.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K). It is trained in place.
        epsilon: radius of the threat model, above 0, in units of a pixel's range; at most the largest distance between
            two images in the norm (1 in L-infinity).
        norm: the norm of the threat model, one of the `NORMS` of the class.
        ema_decay: decay per step, in (0, 1), of weight averaging (the "-WA" defenses). If given, the optimizer trains
            a copy, `trained_network`, and `network` holds the exponential moving average of all its weights.
        label_smoothing: share of each label, in [0, 1), that is spread over all classes in the objective. The attack
            and the metrics use the labels as they are (as in Pang et al., Bag of tricks for adversarial training,
            2021).
        seed: whole number, at least 0 and below 2**31, that determines all random starts of training.
        name: name of the Keras model.

    Attributes:
        network: the network to evaluate and save: `model.network.save("network.keras")`.
        trained_network: the network that the optimizer trains; `network` itself without averaging.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    What trainer, recipe and card use of a defense, besides the methods of `keras.Model`:

    ==================== ===================== ========================================================================
    hook                 default               meaning
    ==================== ===================== ========================================================================
    `NORMS`              `("linf",)`           the norms of the threat model that it supports
    `NEEDS`              `()`                  arguments that the trainer passes besides network, epsilon, norm, seed:
                                               "sources" (networks trained before it), "batch_size" (images of
                                               the largest batch, all devices together)
    `CHOSEN_BY`          "val_robust_accuracy" the entry of the history by which the best epoch is chosen
    `COMPARES`           `False`               whether the objective compares outputs of several images or forwards
    `MASKING_ALARM`      `True`                whether gradients count as masked if FGSM fails and PGD succeeds
    `replays`            1                     number of times in a row that a batch is trained on
    `replayed(dataset)`  the dataset           the data, each batch `replays` times in a row
    `fit_options()`      `{}`                  further arguments of `fit`, for data that `replayed` returned
    `passes(batch_size)` has none              the `Passes` of a training step
    `card_facts()`       `{}`                  numbers about the training for the card, by name
    ==================== ===================== ========================================================================

    Example:
        >>> import keras
        >>> import tf_nuat
        >>> class WithNoise(tf_nuat.Defense):
        ...     def perturb(self, x, y, start=None):
        ...         return tf_nuat.norms.LINF.random_point(x, self.epsilon, self.draw_seed)
        ...
        >>> model = WithNoise(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1)
        >>> model.perturb(keras.ops.ones((2, 8, 8, 1)), None).shape
        TensorShape([2, 8, 8, 1])
    """

    NORMS: tuple[str, ...] = ("linf",)
    NEEDS: tuple[str, ...] = ()
    CHOSEN_BY: str = "val_robust_accuracy"
    COMPARES: bool = False
    MASKING_ALARM: bool = True
    replays: int = 1
    __signature__ = ConstructorSignature()  # all arguments, for `help`, recipes and the reference

    def __init__(
        self,
        network: keras.Model,
        *,
        epsilon: float,
        norm: str = "linf",
        ema_decay: float | None = None,
        label_smoothing: float = 0.0,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(network, ema_decay=ema_decay, name=name)
        self.norm = validation.one_of("norm", norm, self.NORMS)
        shape: list[typing.Any] = [size or math.inf for size in network.input_shape[1:]]  # None stands for any size
        self.epsilon = validation.number("epsilon", epsilon, above=0.0, at_most=norms.of(norm).largest(shape))
        self.label_smoothing = validation.number("label_smoothing", label_smoothing, at_least=0.0, below=1.0)
        self.seed = validation.whole_number("seed", seed, at_least=0, at_most=draws.LARGEST_SEED)
        for each in (self.network, self.trained_network)[: 1 if self.trained_network is self.network else 2]:
            random_layers.prepare(each)
            batch_norm.fuse(each)
        if (scale := pixel_scale.of_first_layers(network)) < pixel_scale.LEAST:
            logging.warning(
                "network %s begins by scaling its pixels by %.2g, as for pixels in 0..255; its pixels are in [0, 1]: "
                "leave that layer out, or train tf_nuat.networks.adapt(network, pixels='0..255').network",
                *(network.name, scale),
            )
        drawing = random_layers.within(self.network)
        if self.COMPARES and drawing:
            logging.warning(
                "%s compares several forwards in training, and %s of the network draws anew in each: what is compared "
                "differs by that, too",
                type(self).__name__,
                ", ".join(layer.name for layer in drawing),
            )

    def __init_subclass__(cls, **options: typing.Any) -> None:
        super().__init_subclass__(**options)
        if "objective" in vars(cls):
            cls.objective = random_layers.of_augmented_images(cls.objective)  # type: ignore[method-assign]

    # What a defense overrides. Only `observe` changes state, apart from BatchNorm's moving statistics, which every
    # forward pass in training mode updates.

    def prepare(self, x: tf.Tensor, y: tf.Tensor) -> dict[str, typing.Any]:
        """Returns keyword arguments for both `perturb` and `objective`: shared values, computed once a step.

        Without these arguments, both compute the values themselves.
        """
        return {}

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the adversarial images (B, H, W, C) that this training step uses.

        Args:
            x: clean images (B, H, W, C) in [0, 1].
            y: labels, integers (B,) or one-hot (B, K).
            start: images at which the attack begins, instead of a random draw.
        """
        raise NotImplementedError

    @random_layers.of_augmented_images
    def objective(self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor) -> ObjectiveValue:
        """Returns the loss and the logits, in training mode: the cross-entropy of x_adv, unless overridden.

        An objective that draws random numbers also takes them as a keyword `noise`, instead of its own draw.

        Args:
            x, x_adv: clean and adversarial images (B, H, W, C).
            y: labels, integers (B,) or one-hot (B, K).

        Returns:
            The loss, a scalar, under `tf.distribute` this replica's share of it (see `tf_nuat.parallel`); the logits
            (B, K) for the accuracy in the progress bar, of the clean images if the objective has them, else of the
            adversarial ones; and, optionally, a dict of facts for `observe`.
        """
        logits = self.trained_network(x_adv, training=True)
        return parallel.share_of_mean(losses.cross_entropy(logits, y)), logits

    def observe(self, facts: Facts) -> None:
        """Keeps the facts from `objective` that later steps need; called before the weights change."""

    @property
    def draw_seed(self) -> tf.Tensor:
        """A pair of integers, different for each batch, that seeds the random start of an attack."""
        return tf.stack([tf.constant(self.seed, tf.int32), tf.cast(self.batches, tf.int32)])

    @property
    def attacked(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """The function that attacks see: the trained network's logits in inference mode."""
        return inference(self.trained_network)

    def scalar_state(self, name: str) -> keras.Variable:
        """Returns a new scalar variable, 0, saved with the weights; all replicas update it alike (in `observe`)."""
        return self.add_weight(
            shape=(), initializer="zeros", trainable=False, name=name, aggregation="only_first_replica"
        )

    # The training step.

    def train_step(self, data: typing.Any) -> dict[str, tf.Tensor]:
        batch = read_batch(self.network, data, self.batches + 1)
        batch = batch._replace(x=self.augmented(batch.x))
        x, y, sample_weight = batch
        with random_layers.past_augmentation():
            shared = self.prepare(x, y)
            # The attack runs before the tape begins: its forward passes are not part of the training gradient.
            x_adv = tf.stop_gradient(self.perturb(x, y, **shared))
            with parallel.weighing(sample_weight) as weights:
                found = self.gradients(x, x_adv, y, **shared)
        if sample_weight is not None and not weights.used:
            raise BatchError(
                f"sample_weight is given; allowed: None, as the objective of {type(self).__name__} weighs no example "
                "(tf_nuat.parallel.share_of_mean does)"
            )
        self.observe(found.facts)
        gradients = parallel.own_gradients(found.gradients, x)
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = parallel.finite_on_all(gradients)
        self.optimizer.apply(gradients, self.trained_network.trainable_variables)
        parallel.average_statistics(self.trained_network, x)
        self.update_averages()
        return self.measure(found.loss, batch, found.logits)

    def augmented(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the images of a batch after the augmentation that the network begins with, drawn for this step."""
        return random_layers.augmented(self.trained_network, x)

    def gradients(self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor, **shared: typing.Any) -> Gradients:
        """Returns the `Gradients` of the objective; `shared` is what `prepare` returned."""
        with tf.GradientTape() as tape:
            loss, logits, facts = self.penalized_objective(x, x_adv, y, **shared)
            scaled_loss = self.optimizer.scale_loss(loss)
        return Gradients(loss, logits, tape.gradient(scaled_loss, self.trained_network.trainable_variables), facts)

    def penalized_objective(
        self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor, **shared: typing.Any
    ) -> tuple[tf.Tensor, tf.Tensor, Facts]:
        """Returns the objective plus the penalties of the network's layers, the logits and the facts."""
        if self.label_smoothing:
            y = losses.smoothed(y, self.network.output_shape[-1], self.label_smoothing)
        loss, logits, *facts = self.objective(x, x_adv, y, **shared)
        return with_penalties(loss, self.trained_network), logits, facts[0] if facts else {}

    # What the trainer calls, see the table above.

    def passes(self, batch_size: int) -> Passes:
        """Returns the `Passes` of a training step on `batch_size` images."""
        raise NotImplementedError

    def replayed(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the batches of `dataset`, each `replays` times in a row."""
        return dataset

    def fit_options(self) -> dict[str, typing.Any]:
        """Returns further keyword arguments of `fit`, for data that `replayed` returned."""
        return {}

    def card_facts(self) -> dict[str, float]:
        """Returns numbers about the training for the card of a run, by name; called after training."""
        return {}

    def take_over(self, before: "Defense") -> None:
        """Continues from the compiled defense `before`, with its networks, its average and its optimizer.

        Raises:
            ValueError: the two do not average weights in the same way.
        """
        if self.ema_decay != before.ema_decay:
            raise ValueError(f"ema_decay is {self.ema_decay!r} after {before.ema_decay!r}; allowed: the same one")
        self.network, self.trained_network = before.network, before.trained_network
        self._digests_before = before._digests_before
        self.epoch.assign(before.epoch)
        self._has_ended_epoch = before._has_ended_epoch
        self.compile(optimizer=before.optimizer, metrics=["accuracy"], jit_compile=before.jit_compile)
