"""`Defense`: a Keras model that trains a network against an adversary.

A defense overrides `perturb` (where the adversary is) and `objective` (what is minimized). Everything else, the
training step, weight averaging, distribution and the checks of what a user passes in, lives here, once.
"""

import typing

import keras
import numpy as np
import tensorflow as tf

from tf_nuat import losses, parallel
from tf_nuat.core import validation
from tf_nuat.models import averaging, weights
from tf_nuat.models.inference import inference
from tf_nuat.parallel import workers


class Passes(typing.NamedTuple):
    """What a training step does to an image of its batch, in passes through the network, averaged over a long run.

    Attributes:
        input_gradient: forwards and backwards to the image, in the attack: the FBP of table 8 of Vivek and Babu (2020).
        training: forwards and backwards to the weights.
        forward: forwards without a backward.
    """

    input_gradient: float = 0.0
    training: float = 1.0
    forward: float = 0.0

    @property
    def forward_backward(self):
        """Forward-backward passes, of attack and training together."""
        return self.input_gradient + self.training


class Defense(keras.Model):
    """Trains `network` by `fit`; `evaluate` and `predict` are those of the network on the images as they are.

    Compile it with an optimizer and metrics, without a loss: the loss is the defense's.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K). It is trained in place.
        epsilon: radius of the threat model, above 0, the unit being the range of a pixel; in L-infinity at most 1.
        norm: the norm of the threat model, one of the `NORMS` of the class.
        ema_decay: where given, in (0, 1), `network` becomes the exponential moving average, with this decay per step,
            of all weights of `trained_network`, a copy that the optimizer works on (the "-WA" defenses).
        seed: whole number, at least 0, from which all random starts of training follow.
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
    `MASKING_ALARM`      `True`                whether FGSM that fails where PGD succeeds is a sign of masked gradients
    `replays`            1                     how often a batch is trained on in a row
    `replayed(dataset)`  the dataset           the data, each batch `replays` times in a row
    `fit_options()`      `{}`                  further arguments of `fit`, for data that `replayed` has returned
    `passes(batch_size)` has none              the `Passes` of a training step
    `card_facts()`       `{}`                  what the card says of the training, name to number
    ==================== ===================== ========================================================================
    """

    NORMS: tuple[str, ...] = ("linf",)
    NEEDS: tuple[str, ...] = ()
    CHOSEN_BY: str = "val_robust_accuracy"
    MASKING_ALARM: bool = True
    replays: int = 1

    def __init__(self, network, *, epsilon, norm="linf", ema_decay=None, seed=0, name=None):
        validation.classifier("network", network)
        validation.one_of("norm", norm, self.NORMS)
        super().__init__(name=name)
        self.network = network
        self.norm = norm
        self.epsilon = validation.number("epsilon", epsilon, above=0.0, at_most=1.0 if norm == "linf" else None)
        self.seed = validation.whole_number("seed", seed, at_least=0)
        self.ema_decay = ema_decay
        if ema_decay is None:
            self.trained_network = network
        else:
            validation.number("ema_decay", ema_decay, above=0.0, below=1.0)
            self.trained_network = averaging.copy_of(network)
        self.epoch = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="epoch")
        self.built = True

    def perturb(self, x, y, start=None):
        """Returns the adversarial images (B, H, W, C) that this training step uses.

        Args:
            x: clean images (B, H, W, C) in [0, 1].
            y: labels, integers (B,) or one-hot (B, K).
            start: images at which the attack begins, instead of its random draw.
        """
        raise NotImplementedError

    def objective(self, x, x_adv, y):
        """Returns the loss and the logits (B, K), in training mode: the cross-entropy of x_adv, unless overridden.

        Args:
            x, x_adv: clean and adversarial images (B, H, W, C).
            y: labels, integers (B,) or one-hot (B, K).

        Returns:
            The loss, a scalar, under `tf.distribute` this replica's share of it (see `tf_nuat.parallel`); and logits
            (B, K), what the accuracy of the progress bar is taken of, those of the clean images where the objective has
            them, else those of the adversarial ones.
        """
        logits = self.trained_network(x_adv, training=True)
        return parallel.share_of_mean(losses.cross_entropy(logits, y)), logits

    def passes(self, batch_size):
        """Returns the `Passes` of a training step on `batch_size` images."""
        raise NotImplementedError

    @property
    def step(self):
        """Number of optimizer steps taken, an integer scalar: the clock of schedules and random draws."""
        optimizer = getattr(self, "optimizer", None)  # there is none before `compile`
        return tf.constant(0) if optimizer is None else optimizer.iterations.value

    @property
    def draw_seed(self):
        """A pair of integers, another one at each step, for the random start of an attack."""
        return tf.stack([tf.constant(self.seed, tf.int32), tf.cast(self.step, tf.int32)])

    @property
    def attacked(self):
        """The function that attacks see: the trained network's logits in inference mode."""
        return inference(self.trained_network)

    @property
    def trainable_variables(self):
        # The average has trainable variables of its own, which are not the optimizer's.
        return self.trained_network.trainable_variables

    @property
    def trainable_weights(self):
        return self.trained_network.trainable_weights

    def call(self, x, training=False):
        return self.network(x, training=training)

    def compile(self, optimizer="sgd", *, loss=None, jit_compile=False, **options):
        """Configures training as `keras.Model.compile` does, without XLA unless asked for.

        XLA runs these steps about 1.7 times slower than TensorFlow's graph on a CPU.
        """
        if loss is not None:
            raise ValueError(f"loss is {loss!r}; allowed: None, because {type(self).__name__} brings its own")
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **options)

    def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **options):
        """Trains as `keras.Model.fit` does; images and labels are checked before any work starts."""
        for argument in ("sample_weight", "class_weight"):
            if options.get(argument) is not None:
                raise ValueError(f"{argument} is given; allowed: None (a defense weighs all images alike)")
        self._check_data("x", x, "y", y)
        validation_data = options.get("validation_data")
        if isinstance(validation_data, (tuple, list)):
            self._check_data("validation_data[0]", validation_data[0], "validation_data[1]", validation_data[1])
        elif validation_data is not None:
            self._check_data("validation_data", validation_data, "validation_data", None)
        if self.optimizer is not None and parallel.scalar(self.optimizer.iterations) == 0:
            weights.copy(self.network, to=self.trained_network)
        if isinstance(x, (tf.data.Dataset, tf.distribute.DistributedDataset)):
            options.setdefault("shuffle", False)  # a dataset comes in its own order; Keras warns of anything else
        clock = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: self.on_epoch_begin(epoch))
        if isinstance(callbacks, keras.callbacks.CallbackList):
            clock.set_model(self)
            callbacks.callbacks.append(clock)
        else:
            callbacks = [clock, *keras.tree.flatten(callbacks or [])]
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, **options)

    def replayed(self, dataset):
        """Returns the batches of `dataset`, each `replays` times in a row."""
        return dataset

    def fit_options(self) -> dict[str, typing.Any]:
        """Returns further keyword arguments of `fit`, for data that have gone through `replayed`."""
        return {}

    def card_facts(self) -> dict[str, float]:
        """Returns what the card of a run says of the training, name to number; called when training has ended."""
        return {}

    def build_state(self):
        """Makes every variable that training needs, those of the optimizer and of the metrics too."""
        shapes = (self.network.input_shape, "float32"), (self.network.input_shape[:1], "int64")
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=tuple(keras.KerasTensor(*each) for each in shapes))
            if not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)

    def take_over(self, before):
        """Goes on where the compiled defense `before` is: with its networks, its average and its optimizer.

        Raises:
            ValueError: one of the two averages weights, the other does not, or another way.
        """
        if self.ema_decay != before.ema_decay:
            raise ValueError(f"ema_decay is {self.ema_decay!r} after {before.ema_decay!r}; allowed: the same one")
        self.network, self.trained_network = before.network, before.trained_network
        self.epoch.assign(before.epoch)
        self.compile(optimizer=before.optimizer, metrics=["accuracy"])

    def on_epoch_begin(self, epoch):
        """Is called by `fit` as an epoch begins, with its number, from 0."""
        self.epoch.assign(epoch)

    def _check_data(self, x_argument, x, y_argument, y):
        if isinstance(x, tf.data.Dataset):
            batch = next(iter(x.take(1)), None)
            if not (isinstance(batch, tuple) and len(batch) == 2):
                raise ValueError(f"{x_argument} is {x.element_spec!r}; allowed: a dataset of batches (images, labels)")
            x, y = batch
            y_argument = f"labels of {x_argument}"
        if not isinstance(x, (np.ndarray, tf.Tensor)):
            return  # a generator gives its batches once: Keras looks at them as they come
        validation.images(x_argument, x, input_shape=self.network.input_shape[1:])
        validation.labels(y_argument, y, num_classes=self.network.output_shape[-1], num_images=len(x))

    def train_step(self, data):
        x, y = _images_and_labels(data)
        # The attack comes before the tape: its forwards are no part of the training gradient.
        x_adv = tf.stop_gradient(self.perturb(x, y))
        loss, logits, gradients = self.gradients(x, x_adv, y)
        self.optimizer.apply(gradients, self.trained_network.trainable_variables)
        parallel.average_statistics(self.trained_network)
        self.update_averages()
        return self._measure(loss, y, logits)

    def gradients(self, x, x_adv, y):
        """Returns the loss, the logits, and the gradients of the (scaled) loss, one per trainable variable."""
        with tf.GradientTape() as tape:
            loss, logits = self.loss_and_logits(x, x_adv, y)
            scaled_loss = self.optimizer.scale_loss(loss)
        return loss, logits, tape.gradient(scaled_loss, self.trained_network.trainable_variables)

    def loss_and_logits(self, x, x_adv, y):
        """Returns the objective with the penalties that layers of the network add to it, and its logits."""
        loss, logits = self.objective(x, x_adv, y)
        for penalty in self.trained_network.losses:
            loss += parallel.share_of_batch_statistic(penalty)
        return loss, logits

    def test_step(self, data):
        x, y = _images_and_labels(data)
        logits = self.network(x, training=False)
        return self._measure(parallel.share_of_mean(losses.cross_entropy(logits, y)), y, logits)

    def update_averages(self):
        """Moves the averaged network, where there is one, after each optimizer step."""
        if self.trained_network is not self.network:
            averaging.update(self.network, self.trained_network, averaging.decay_at(self.step, self.ema_decay))

    def _measure(self, loss, y, logits):
        for metric in self.metrics:
            if metric.name == "loss":
                # A replica's loss is its share; the mean over the replicas of share * replicas is the whole.
                metric.update_state(loss * parallel.replicas(), sample_weight=tf.shape(logits)[0])
            else:
                metric.update_state(y, logits)
        results = self.get_metrics_result()
        if workers.count(self.distribute_strategy) > 1:  # where Keras averages along an axis, which scalars have not
            results = {name: tf.reshape(value, (1,)) for name, value in results.items()}
        return results

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Builds from a batch as Keras does; with several workers from the local one: Keras fails to join theirs."""
        if workers.count(self.distribute_strategy) > 1 and iterator is not None:
            local = self.distribute_strategy.experimental_local_results
            _, _, batches = next(iter(iterator))
            iterator, data_batch = None, keras.tree.map_structure(lambda each: local(each)[0], next(batches))
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)


def _images_and_labels(data):
    x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    return tf.cast(x, tf.float32), y  # a dataset may hold float64, as NumPy does


def averaged(name, defense, **defaults):
    """Returns a subclass of `defense` that averages weights (decay 0.9998 per step unless told), and other defaults."""
    defaults = {"ema_decay": 0.9998, **defaults}

    def initialize(self, network, **options):
        defense.__init__(self, network, **{**defaults, **options})

    described = ", ".join(f"`{option}={value}`" for option, value in defaults.items())
    documentation = f"`{defense.__name__}` with weight averaging: {described} unless told otherwise."
    return type(name, (defense,), {"__init__": initialize, "__doc__": documentation, "__module__": defense.__module__})
