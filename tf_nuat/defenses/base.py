"""`Defense`: a Keras model that trains a network against an adversary.

A defense overrides `perturb` (where the adversary is) and `objective` (what is minimized), neither of which changes
anything. The training step, which does, lives here, once, with weight averaging and distribution.
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
from tf_nuat.models import batch_norm, random_layers
from tf_nuat.models.inference import inference

# What a step hands on to `observe`, by name.
Facts = dict[str, typing.Any]
# Loss, logits and, where there are any, facts.
ObjectiveValue = tuple[tf.Tensor, tf.Tensor] | tuple[tf.Tensor, tf.Tensor, Facts]


class Gradients(typing.NamedTuple):
    """What a training step has computed before it changes anything.

    Attributes:
        loss, logits: those of the objective; the loss with the penalties of the network's layers.
        gradients: of the (scaled) loss, one per trainable variable.
        facts: what the objective hands on to `observe`.
    """

    loss: tf.Tensor
    logits: tf.Tensor
    gradients: Sequence[tf.Tensor | None]
    facts: Facts


class Defense(NetworkModel):
    """Trains `network` by `fit`; `evaluate` and `predict` are those of the network on the images as they are.

    Compile it with an optimizer and metrics, without a loss: the loss is the defense's. Penalties that layers of the
    network add belong to it, and to that of an evaluation. Of an activity regularizer that is the penalty of the last
    forward of an objective that has several.

    Where the network begins with augmentation (`keras.layers.RandomFlip`, for instance), a step draws it once, before
    the attack: clean and adversarial images have the same, and epsilon is around the augmented image.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K). It is trained in place.
        epsilon: radius of the threat model, above 0, the unit being the range of a pixel; at most
            the largest distance between two images in the norm (1 in L-infinity).
        norm: the norm of the threat model, one of the `NORMS` of the class.
        ema_decay: where given, in (0, 1), `network` becomes the exponential moving average, with this decay per step,
            of all weights of `trained_network`, a copy that the optimizer works on (the "-WA" defenses).
        label_smoothing: share of each label, in [0, 1), that is spread over all classes in the objective. The attack
            and the metrics have the labels as they are (as in Pang et al., Bag of tricks for adversarial training,
            2021).
        seed: whole number, at least 0 and below 2**31, from which all random starts of training follow.
        name: name of the Keras model.

    Attributes:
        network: what is evaluated and saved: `model.network.save("network.keras")`.
        trained_network: what the optimizer trains; `network` itself where nothing is averaged.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    What a trainer, a recipe and a card must know of a defense, beside what `keras.Model` has:

    ==================== ===================== ========================================================================
    hook                 default               meaning
    ==================== ===================== ========================================================================
    `NORMS`              `("linf",)`           the norms of the threat model that it is for
    `NEEDS`              `()`                  arguments that the trainer supplies beside network, epsilon, norm, seed:
                                               "sources" (networks trained before it), "batch_size" (images of
                                               the largest batch, all devices together)
    `CHOSEN_BY`          "val_robust_accuracy" the entry of the history by which the best epoch is chosen
    `COMPARES`           `False`               whether the objective compares outputs of several images or forwards
    `MASKING_ALARM`      `True`                whether FGSM that fails where PGD succeeds is a sign of masked gradients
    `replays`            1                     how often a batch is trained on in a row
    `replayed(dataset)`  the dataset           the data, each batch `replays` times in a row
    `fit_options()`      `{}`                  further arguments of `fit`, for data that `replayed` has returned
    `passes(batch_size)` has none              the `Passes` of a training step
    `card_facts()`       `{}`                  what the card says of the training, name to number
    ==================== ===================== ========================================================================

    Example:
        >>> import tf_nuat
        >>> class WithNoise(tf_nuat.Defense):
        ...     def perturb(self, x, y, start=None):
        ...         return tf_nuat.norms.LINF.random_point(x, self.epsilon, self.draw_seed())
        ...
    """

    NORMS: tuple[str, ...] = ("linf",)
    NEEDS: tuple[str, ...] = ()
    CHOSEN_BY: str = "val_robust_accuracy"
    COMPARES: bool = False
    MASKING_ALARM: bool = True
    replays: int = 1
    __signature__ = ConstructorSignature()  # in full, for `help`, recipes and the reference

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

    # What a defense overrides. Of these only `observe` changes anything; BatchNorm's moving statistics aside, which a
    # forward in training mode moves.

    def prepare(self, x: tf.Tensor, y: tf.Tensor) -> dict[str, typing.Any]:
        """Returns keyword arguments of both `perturb` and `objective`: what they share, computed once a step.

        Called without them, both compute it themselves.
        """
        return {}

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the adversarial images (B, H, W, C) that this training step uses.

        Args:
            x: clean images (B, H, W, C) in [0, 1].
            y: labels, integers (B,) or one-hot (B, K).
            start: images at which the attack begins, instead of its random draw.
        """
        raise NotImplementedError

    @random_layers.of_augmented_images
    def objective(self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor) -> ObjectiveValue:
        """Returns the loss and the logits, in training mode: the cross-entropy of x_adv, unless overridden.

        An objective that draws random numbers takes them as a keyword `noise`, too, instead of its own draw.

        Args:
            x, x_adv: clean and adversarial images (B, H, W, C).
            y: labels, integers (B,) or one-hot (B, K).

        Returns:
            The loss, a scalar, under `tf.distribute` this replica's share of it (see `tf_nuat.parallel`); logits
            (B, K), what the accuracy of the progress bar is taken of, those of the clean images where the objective has
            them, else those of the adversarial ones; and, where `observe` is to have them, facts of the step, a dict.
        """
        logits = self.trained_network(x_adv, training=True)
        return parallel.share_of_mean(losses.cross_entropy(logits, y)), logits

    def observe(self, facts: Facts) -> None:
        """Keeps what later steps need of the facts that `objective` has returned; called before the weights change."""

    @property
    def draw_seed(self) -> tf.Tensor:
        """A pair of integers, another one for each batch, for the random start of an attack."""
        return tf.stack([tf.constant(self.seed, tf.int32), tf.cast(self.batches, tf.int32)])

    @property
    def attacked(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """The function that attacks see: the trained network's logits in inference mode."""
        return inference(self.trained_network)

    def scalar_state(self, name: str) -> keras.Variable:
        """Returns a new number, 0, that is kept with the weights and that every replica moves alike (in `observe`)."""
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
            # The attack comes before the tape: its forwards are no part of the training gradient.
            x_adv = tf.stop_gradient(self.perturb(x, y, **shared))
            with parallel.weighing(sample_weight) as weights:
                found = self.gradients(x, x_adv, y, **shared)
        if sample_weight is not None and not weights.used:
            raise BatchError(
                f"sample_weight is given; allowed: None, as the objective of {type(self).__name__} weighs no example "
                "(tf_nuat.parallel.share_of_mean does)"
            )
        self.observe(found.facts)
        self.optimizer.apply(found.gradients, self.trained_network.trainable_variables)
        parallel.average_statistics(self.trained_network)
        self.update_averages()
        return self.measure(found.loss, batch, found.logits)

    def augmented(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the images of a batch behind the augmentation that the network begins with, drawn for this step."""
        return random_layers.augmented(self.trained_network, x)

    def gradients(self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor, **shared: typing.Any) -> Gradients:
        """Returns the `Gradients` of the objective; `shared` is what `prepare` has returned."""
        with tf.GradientTape() as tape:
            loss, logits, facts = self.penalized_objective(x, x_adv, y, **shared)
            scaled_loss = self.optimizer.scale_loss(loss)
        return Gradients(loss, logits, tape.gradient(scaled_loss, self.trained_network.trainable_variables), facts)

    def penalized_objective(
        self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor, **shared: typing.Any
    ) -> tuple[tf.Tensor, tf.Tensor, Facts]:
        """Returns the objective with the penalties that layers of the network add to it, its logits and its facts."""
        if self.label_smoothing:
            y = losses.smoothed(y, self.network.output_shape[-1], self.label_smoothing)
        loss, logits, *facts = self.objective(x, x_adv, y, **shared)
        return with_penalties(loss, self.trained_network), logits, facts[0] if facts else {}

    # What the trainer asks, see the table above.

    def passes(self, batch_size: int) -> Passes:
        """Returns the `Passes` of a training step on `batch_size` images."""
        raise NotImplementedError

    def replayed(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the batches of `dataset`, each `replays` times in a row."""
        return dataset

    def fit_options(self) -> dict[str, typing.Any]:
        """Returns further keyword arguments of `fit`, for data that have gone through `replayed`."""
        return {}

    def card_facts(self) -> dict[str, float]:
        """Returns what the card of a run says of the training, name to number; called when training has ended."""
        return {}

    def take_over(self, before: "Defense") -> None:
        """Goes on where the compiled defense `before` is: with its networks, its average and its optimizer.

        Raises:
            ValueError: one of the two averages weights, the other does not, or another way.
        """
        if self.ema_decay != before.ema_decay:
            raise ValueError(f"ema_decay is {self.ema_decay!r} after {before.ema_decay!r}; allowed: the same one")
        self.network, self.trained_network = before.network, before.trained_network
        self._digests_before = before._digests_before
        self.epoch.assign(before.epoch)
        self._has_ended_epoch = before._has_ended_epoch
        self.compile(optimizer=before.optimizer, metrics=["accuracy"], jit_compile=before.jit_compile)
