"""`NetworkModel`: the `keras.Model` around a trained network and its average, with the methods that Keras calls."""

import contextlib
import typing
from collections.abc import Sequence

import keras
import tensorflow as tf

from tf_nuat import losses, parallel
from tf_nuat.core import files, keras_compat, validation
from tf_nuat.defenses import saving, sources, training_data
from tf_nuat.defenses.batch import Batch, read_batch
from tf_nuat.defenses.batch_numbers import BatchNumbers, in_evaluation
from tf_nuat.defenses.epoch_clock import with_clock
from tf_nuat.models import averaging, weights


class NetworkModel(keras_compat.Model):
    """Trains `network` by `fit`; `evaluate` and `predict` apply the network to the images as they are.

    A subclass defines the training step, `train_step`.

    Args:
        network, ema_decay, name: see `Defense`.

    Raises:
        ValueError: `ema_decay` is out of its range, or the network is no classifier, or ends in softmax.
    """

    def __init__(self, network: keras.Model, *, ema_decay: float | None = None, name: str | None = None) -> None:
        validation.classifier("network", network)
        super().__init__(name=name, autocast=False)  # a mixed policy would round the images of `predict`
        self.network = network
        self.ema_decay = ema_decay
        if ema_decay is None:
            self.trained_network = network
        else:
            validation.number("ema_decay", ema_decay, above=0.0, below=1.0)
            self.trained_network = averaging.copy_of(network)
        self._trainable = weights.trainable(network)
        self._has_ended_epoch = False
        self._digests_before = self._digests()
        self._metrics_take_rows: bool | None = None  # whether the first labels were rows; None before them
        self._batch_numbers = BatchNumbers()
        self.epoch = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="epoch")
        self.built = True

    @property
    def step(self) -> tf.Tensor:
        """Number of updates of the weights, an integer scalar: the clock of averages, and of attacks that alternate."""
        optimizer = getattr(self, "optimizer", None)  # there is none before `compile`
        iterations = tf.constant(0) if optimizer is None else optimizer.iterations
        return getattr(iterations, "value", iterations)  # a tensor where the optimizer accumulates gradients

    @property
    def batches(self) -> tf.Tensor:
        """Number of batches trained on, an integer scalar: the clock of schedules and random draws.

        It is more than `step` if gradients are accumulated. Keras also evaluates learning rates at it.
        """
        optimizer = getattr(self, "optimizer", None)
        return tf.constant(0) if optimizer is None else keras_compat.batches_of(optimizer).value

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        # The average has trainable variables of its own, which the optimizer does not train.
        return self.trained_network.trainable_variables

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        return self.trained_network.trainable_weights

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        return _without(self.trainable_variables, self.variables)

    @property
    def non_trainable_weights(self) -> list[keras.Variable]:
        return _without(self.trainable_weights, self.weights)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.network(x, training=training)

    def compile(
        self,
        optimizer: typing.Any = "sgd",
        loss: None = None,
        loss_weights: None = None,
        metrics: typing.Any = None,
        weighted_metrics: typing.Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = False,
        auto_scale_loss: bool = True,
    ) -> None:
        """Configures training as `keras.Model.compile` does, without XLA unless asked for.

        On a CPU, XLA runs these steps about 1.7 times slower than TensorFlow's graph. It also leaves out the checks of
        pixels, labels and weights in each batch: `fit` then checks arrays, and the first batch of a dataset, alone. If
        layers of `network` were frozen or unfrozen since the last `compile`, those of `trained_network` become so as
        well.

        Raises:
            ValueError: a loss is given, or on several devices an optimizer that clips or accumulates gradients, which
                Keras would do on each device by itself.
        """
        if loss is not None:
            validation.refuse("loss", loss, f"None, because {type(self).__name__} brings its own")
        if loss_weights is not None:
            validation.refuse("loss_weights", loss_weights, "None, as the loss is one; metrics are the next argument")
        if (trainable := weights.trainable(self.network)) != self._trainable:
            weights.set_trainable(self.trained_network, trainable)
            self._trainable = trainable
        self._metrics_take_rows = None
        super().compile(
            optimizer=optimizer,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )
        if self.distribute_strategy.num_replicas_in_sync > 1:
            _check_for_several_devices(keras_compat.without_loss_scale(self.optimizer))

    # Saving and loading: `get_config` and `from_config` rebuild the model, `compile_from_config` its optimizer; Keras
    # restores all weights after that.

    def get_config(self) -> dict[str, typing.Any]:
        return saving.config_of(self)

    @classmethod
    def from_config(cls, config: dict[str, typing.Any], custom_objects: typing.Any = None) -> typing.Self:
        with keras.saving.custom_object_scope(custom_objects or {}):
            return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})

    def compile_from_config(self, config: dict[str, typing.Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)

    def save_own_variables(self, store: typing.Any) -> None:
        super().save_own_variables(store)
        for number, state in enumerate(self._states_of_draws()):  # Keras's own layers do not save them
            store[f"draws_{number}"] = state
        store["has_ended_epoch"] = int(self._has_ended_epoch)

    def load_own_variables(self, store: typing.Any) -> None:
        stored = {name: store[name] for name in list(store.keys())}
        # Files of earlier versions have neither `has_ended_epoch` nor the draws.
        self._has_ended_epoch = bool(stored.pop("has_ended_epoch", False))
        for number, state in enumerate(self._states_of_draws()):
            if f"draws_{number}" in stored:
                state.assign(stored.pop(f"draws_{number}"))
        super().load_own_variables(stored)

    def _states_of_draws(self) -> list[keras.Variable]:
        return _without(self.weights, self.variables)

    def export(self, *arguments: typing.Any, **options: typing.Any) -> typing.Any:
        """Exports `network` for inference, as `keras.Model.export` does."""
        return self.network.export(*arguments, **options)

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
        """Trains as `keras.Model.fit` does; images and labels are checked before any work starts, and in every batch.

        Raises:
            ValueError: the model is not compiled, or images or labels are wrong, also in a batch of a generator.
        """
        if not self.compiled:
            raise ValueError("fit is called before compile; allowed: model.compile(optimizer) first")
        training_data.check(self.network, x, y, **options)
        saving.check_callbacks(self, callbacks)
        if (class_weight := options.get("class_weight")) is not None:
            options["class_weight"] = training_data.every_class_weight(class_weight, self.network.output_shape[-1])
        before = self.count_batches()  # of this optimizer
        if before == 0:
            self.train_what_was_set()
        if isinstance(x, (tf.data.Dataset, tf.distribute.DistributedDataset)):
            options.setdefault("shuffle", False)  # a dataset comes in its own order; Keras warns of anything else
        with with_clock(callbacks, self) as callbacks, self._naming("training", before) as place:
            x = sources.checked(x, self.network, place)
            if "validation_data" in options:
                options["validation_data"] = sources.checked(options["validation_data"], self.network, in_evaluation)
            with keras_compat.datasets_of_keras_untuned():
                history = super().fit(x, y, batch_size, epochs, verbose, callbacks, **options)
        self._digests_before = self._digests()
        return history

    def train_what_was_set(self) -> None:
        """Copies the weights of `network` to the trained network if they were set after both were made or trained.

        Called before the first batch of an optimizer. A trained network that was loaded together with its average, or
        compiled again, keeps its own weights.
        """
        if self.ema_decay is not None:
            (average, trained), (average_before, trained_before) = self._digests(), self._digests_before
            if average == average_before or trained != trained_before:
                return
        weights.copy(self.network, to=self.trained_network)
        self._digests_before = self._digests()

    def _digests(self) -> tuple[str, ...]:
        """Returns digests of the weights of `network` and of `trained_network`; () without an average."""
        networks = () if self.ema_decay is None else (self.network, self.trained_network)
        return tuple(files.digest(*each.get_weights()) for each in networks)

    def evaluate(
        self, x: typing.Any = None, y: typing.Any = None, *arguments: typing.Any, **options: typing.Any
    ) -> typing.Any:
        """Evaluates the network as `keras.Model.evaluate` does; images and labels are checked in every batch."""
        training_data.check_forms(self.network, x, y, options.get("sample_weight"))
        with self._naming("evaluation") as place:
            x = sources.checked(x, self.network, place)
            with keras_compat.datasets_of_keras_untuned():
                return super().evaluate(x, y, *arguments, **options)

    def train_on_batch(
        self,
        x: typing.Any,
        y: typing.Any = None,
        sample_weight: typing.Any = None,
        class_weight: typing.Any = None,
        return_dict: bool = False,
    ) -> typing.Any:
        """Trains on one batch as `keras.Model.train_on_batch` does; images and labels are checked.

        Only `fit` knows when an epoch begins. In a loop of your own, call `on_epoch_begin(epoch)` before the batches of
        each, with its number, from 0. Without it, all is the first epoch: NuAT-H never takes two steps, and NuAT2-WA
        does not average for its attack.
        """
        training_data.check_forms(self.network, x, y, sample_weight)
        training_data.check_class_weight(class_weight, self.network.output_shape[-1])
        before = self.count_batches()  # of this optimizer
        if before == 0:
            self.train_what_was_set()
        with self._naming("training", before):
            return super().train_on_batch(x, y, sample_weight, class_weight, return_dict)

    def test_on_batch(
        self, x: typing.Any, y: typing.Any = None, *arguments: typing.Any, **options: typing.Any
    ) -> typing.Any:
        """Evaluates one batch as `keras.Model.test_on_batch` does; images and labels are checked."""
        training_data.check_forms(self.network, x, y, options.get("sample_weight"))
        with self._naming("evaluation"):
            return super().test_on_batch(x, y, *arguments, **options)

    def make_train_function(self, force: bool = False) -> typing.Any:
        """Makes the function that Keras calls for one or several training batches, with its calls counted."""
        before = getattr(self, "train_function", None)
        super().make_train_function(force)
        if vars(self)["train_function"] is not before:
            self.train_function = self._batch_numbers.counted(vars(self)["train_function"])
        return self.train_function

    def make_test_function(self, force: bool = False) -> typing.Any:
        """Makes the function that Keras calls for one or several evaluation batches, with its calls counted."""
        before = getattr(self, "test_function", None)
        super().make_test_function(force)
        if vars(self)["test_function"] is not before:
            self.test_function = self._batch_numbers.counted(vars(self)["test_function"])
        return self.test_function

    def _naming(self, kind: str, before: int = 0) -> contextlib.AbstractContextManager[sources.Place]:
        return self._batch_numbers.naming(kind, each_call=self.steps_per_execution, before=before)

    def count_batches(self) -> int:
        """Returns `batches` as a Python number; not for use in a step."""
        return int(parallel.scalar(tf.convert_to_tensor(self.batches)))

    def on_epoch_begin(self, epoch: int) -> None:
        """Called at the beginning of an epoch, with its number, from 0: by `fit`, or in a loop over `train_on_batch`.

        A second `fit` without `initial_epoch` counts from 0 again, but `self.epoch` goes on. An interrupted epoch
        begins again.
        """
        goes_on = self.count_batches() > 0  # of this optimizer
        self.epoch.assign(max(epoch, parallel.scalar(self.epoch) + self._has_ended_epoch if goes_on else 0))
        self._has_ended_epoch = False

    def on_epoch_end(self) -> None:
        """Called by `fit` at the end of an epoch."""
        self._has_ended_epoch = True

    def update_averages(self) -> None:
        """Updates the averaged network, if there is one, after each optimizer step."""
        if self.ema_decay is not None:
            decay = averaging.decay_at(self.step, self.ema_decay)
            averaging.update(self.network, self.trained_network, self.where_weights_changed(decay))

    def where_weights_changed(self, decay: tf.Tensor) -> tf.Tensor:
        """Returns the decay of an average in this batch: 1 if the optimizer only accumulates gradients."""
        accumulated = keras_compat.without_loss_scale(self.optimizer).gradient_accumulation_steps
        if not accumulated:
            return decay
        changes = tf.equal(self.batches % accumulated, 0)
        return tf.where(changes, decay, 1.0)

    def build_state(self) -> None:
        """Makes every variable that training needs, those of the optimizer and of the metrics too."""
        shapes = (self.network.input_shape, "float32"), (self.network.input_shape[:1], "int64")
        with self.distribute_strategy.scope():
            keras_compat.build(self, tuple(keras.KerasTensor(*each) for each in shapes))
            if not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)

    def test_step(self, data: typing.Any) -> dict[str, tf.Tensor]:
        batch = read_batch(self.network, data)
        logits = self.network(batch.x, training=False)
        with parallel.weighing(batch.sample_weight):
            loss = parallel.share_of_mean(losses.cross_entropy(logits, batch.y))
        return self.measure(with_penalties(loss, self.network), batch, logits)

    def measure(self, loss: tf.Tensor, batch: Batch, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """Updates the metrics with a batch, and returns the logs of the step; `loss` is this replica's share."""
        for metric in self.metrics:
            if metric.name == "loss":
                # The loss is the mean over the replicas of share * replicas. All replicas have the same weight, however
                # many images each has, and the weights add up to the number of images in the global batch.
                images = tf.cast(parallel.total(tf.shape(logits)[0]), tf.float32)
                metric.update_state(loss * parallel.replicas(), sample_weight=parallel.share_of_batch_statistic(images))
        return self.logs_of_step(self.compute_metrics(batch.x, batch.y, logits, batch.sample_weight))

    def compute_metrics(
        self, x: typing.Any, y: typing.Any, y_pred: typing.Any, sample_weight: typing.Any = None
    ) -> dict[str, tf.Tensor]:
        """Updates the compiled metrics, with labels converted to the kind of the first ones.

        Keras chooses the meaning of "accuracy" by the first labels, whole numbers or rows. Validation may have the
        other kind.
        """
        are_rows = len(y.shape) == 2 and y.shape[-1] != 1
        if self._metrics_take_rows is None:
            self._metrics_take_rows = are_rows
        elif self._metrics_take_rows != are_rows:
            y = losses.true_class(y) if are_rows else losses.one_hot(y, self.network.output_shape[-1])
        return super().compute_metrics(x, y, y_pred, sample_weight)


def _check_for_several_devices(optimizer: keras.optimizers.Optimizer) -> None:
    for name in ("clipnorm", "global_clipnorm", "clipvalue", "gradient_accumulation_steps"):
        if (value := getattr(optimizer, name)) is not None:
            validation.refuse(f"{name} of the optimizer", value, "None, as Keras applies it on each device by itself")


def with_penalties(loss: tf.Tensor, network: keras.Model) -> tf.Tensor:
    """Returns a replica's share of a loss plus its share of the penalties of the network's layers.

    Of penalties that depend on the forward pass, such as activity regularizers, Keras keeps those of the last one only.
    """
    for penalty in network.losses:
        loss += parallel.share_of_batch_statistic(tf.cast(penalty, loss.dtype))  # 16 bits in mixed precision
    return loss


def _without(some: Sequence[keras.Variable], variables: Sequence[keras.Variable]) -> list[keras.Variable]:
    left_out = set(map(id, some))
    return [variable for variable in variables if id(variable) not in left_out]
