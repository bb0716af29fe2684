"""`NetworkModel`: the `keras.Model` around a network that is trained, and its average; what Keras asks of it."""

import typing

import keras
import tensorflow as tf

from tf_nuat import losses, parallel
from tf_nuat.core import keras_compat, validation
from tf_nuat.defenses import training_data
from tf_nuat.models import averaging, weights


class NetworkModel(keras_compat.Model):
    """Trains `network` by `fit`; `evaluate` and `predict` are those of the network on the images as they are.

    How a step trains it, a subclass says in `train_step`.

    Args:
        network, ema_decay, name: see `Defense`.

    Raises:
        ValueError: `ema_decay` is out of its range, or the network is no classifier, or ends in softmax.
    """

    def __init__(self, network: keras.Model, *, ema_decay: float | None = None, name: str | None = None) -> None:
        validation.classifier("network", network)
        super().__init__(name=name)
        self.network = network
        self.ema_decay = ema_decay
        if ema_decay is None:
            self.trained_network = network
        else:
            validation.number("ema_decay", ema_decay, above=0.0, below=1.0)
            self.trained_network = averaging.copy_of(network)
        self.epoch = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="epoch")
        self.built = True

    @property
    def step(self) -> tf.Tensor:
        """Number of optimizer steps taken, an integer scalar: the clock of schedules and random draws."""
        optimizer = getattr(self, "optimizer", None)  # there is none before `compile`
        return tf.constant(0) if optimizer is None else optimizer.iterations.value

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        # The average has trainable variables of its own, which are not the optimizer's.
        return self.trained_network.trainable_variables

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        return self.trained_network.trainable_weights

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.network(x, training=training)

    def compile(
        self,
        optimizer: typing.Any = "sgd",
        *,
        loss: None = None,
        jit_compile: bool | str = False,
        **options: typing.Any,
    ) -> None:
        """Configures training as `keras.Model.compile` does, without XLA unless asked for.

        XLA runs these steps about 1.7 times slower than TensorFlow's graph on a CPU.
        """
        if loss is not None:
            validation.refuse("loss", loss, f"None, because {type(self).__name__} brings its own")
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **options)

    def fit(
        self,
        x: typing.Any = None,
        y: typing.Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: typing.Any = None,
        **options: typing.Any,
    ) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does; images and labels are checked before any work starts."""
        training_data.check(self.network, x, y, **options)
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

    def on_epoch_begin(self, epoch: int) -> None:
        """Is called by `fit` as an epoch begins, with its number, from 0."""
        self.epoch.assign(epoch)

    def update_averages(self) -> None:
        """Moves the averaged network, where there is one, after each optimizer step."""
        if self.ema_decay is not None:
            averaging.update(self.network, self.trained_network, averaging.decay_at(self.step, self.ema_decay))

    def build_state(self) -> None:
        """Makes every variable that training needs, those of the optimizer and of the metrics too."""
        shapes = (self.network.input_shape, "float32"), (self.network.input_shape[:1], "int64")
        with self.distribute_strategy.scope():
            keras_compat.build(self, tuple(keras.KerasTensor(*each) for each in shapes))
            if not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)

    def test_step(self, data: typing.Any) -> dict[str, tf.Tensor]:
        x, y = images_and_labels(data)
        logits = self.network(x, training=False)
        return self.measure(parallel.share_of_mean(losses.cross_entropy(logits, y)), y, logits)

    def measure(self, loss: tf.Tensor, y: tf.Tensor, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """Updates the metrics with a batch, and returns the logs of the step; `loss` is this replica's share."""
        for metric in self.metrics:
            if metric.name == "loss":
                # The mean over the replicas of share * replicas is the whole.
                metric.update_state(loss * parallel.replicas(), sample_weight=tf.shape(logits)[0])
            else:
                metric.update_state(y, logits)
        return self.logs_of_step()


def images_and_labels(data: typing.Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the images, in float32, and the labels of a batch as Keras hands it to a step."""
    x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    return tf.cast(x, tf.float32), y  # a dataset may hold float64, as NumPy does
