"""Free-AT: adversarial training for free (Shafahi et al., 2019)."""

import typing

import keras
import numpy as np
import tensorflow as tf

from tf_nuat import parallel
from tf_nuat.core import validation
from tf_nuat.defenses import training_data
from tf_nuat.defenses.base import Defense, Facts, Gradients
from tf_nuat.defenses.passes import Passes
from tf_nuat.models import random_layers


class FreeAT(Defense):
    """Free-AT: every batch is replayed, and one gradient moves both weights and perturbation (algorithm 1).

    One `train_step` is one replay. It minimizes the cross-entropy of the perturbed images, and the same backward pass
    moves the perturbation by `epsilon` along the sign of its gradient. A pixel that is clipped to [0, 1] has none, and
    keeps its perturbation, as in the authors' code. The perturbation begins at 0 and is carried over from replay to
    replay and from batch to batch. `fit` takes each batch of its data `replays` times in a row: an epoch of finite data
    has `replays` times as many steps as the data has batches. With `steps_per_epoch` it has that many steps, and sees
    fewer images.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K), of a fixed height and width.
        epsilon: radius of the L-infinity threat model and length of the step, above 0.
        replays: m, number of times in a row that a batch is used, at least 1.
        batch_size: images of the largest batch, all devices together, at least 1.
        **options: those of `Defense`.

    Raises:
        ValueError: an argument is out of its range, a batch is larger than `batch_size`, or the network ends in
            softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.FreeAT(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, replays=4, batch_size=32)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    NEEDS = ("batch_size",)

    def __init__(
        self, network: keras.Model, *, epsilon: float, replays: int = 8, batch_size: int = 64, **options: typing.Any
    ) -> None:
        super().__init__(network, epsilon=epsilon, **options)
        self.replays = validation.whole_number("replays", replays, at_least=1)
        self.batch_size = validation.whole_number("batch_size", batch_size, at_least=1)
        image_shape = network.input_shape[1:]
        if None in image_shape:
            raise ValueError(f"network takes images of shape {image_shape}; allowed: a fixed height and width")
        # All replays of a batch have the same augmentation: the perturbation belongs to the augmented images.
        self.draws = [
            self.add_weight(shape=each.shape, dtype=each.dtype, initializer="zeros", trainable=False, name="draw")
            for layer in random_layers.augmentation(self.trained_network)
            for each in random_layers.states(layer)
        ]
        # Every replica holds the perturbation of the global batch.
        self.perturbation = self.add_weight(
            shape=(batch_size, *image_shape),
            initializer="zeros",
            trainable=False,
            name="perturbation",
            aggregation="only_first_replica",
        )
        self.skipped = self.scalar_state("skipped")  # replays whose gradients overflowed: `batches` leaves them out

    def compile(self, *arguments: typing.Any, **options: typing.Any) -> None:
        super().compile(*arguments, **options)
        if self.count_batches() == 0:  # of a new optimizer
            self.skipped.assign(0.0)

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        if start is None:
            start = x + self._own_perturbation(x)
        return tf.clip_by_value(start, 0.0, 1.0)

    def augmented(self, x: tf.Tensor) -> tf.Tensor:
        for state, draw in zip(self._states(), self.draws):
            is_first = tf.equal(self._replay(), 0)
            draw.assign(tf.where(is_first, state.value, draw.value))
            state.assign(draw.value)
        return super().augmented(x)

    def train_step(self, data: typing.Any) -> dict[str, tf.Tensor]:
        before = tf.identity(self.batches)
        logs = super().train_step(data)
        self.skipped.assign_add(tf.cast(tf.equal(self.batches, before), tf.float32))
        return logs

    def gradients(self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor, **shared: typing.Any) -> Gradients:
        """Returns the `Gradients`, with the gradient at the images, from the same backward pass, as a fact."""
        with tf.GradientTape() as tape:
            tape.watch(x_adv)
            loss, logits, facts = self.penalized_objective(x, x_adv, y, **shared)
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients, image_gradient = tape.gradient(scaled_loss, (self.trained_network.trainable_variables, x_adv))
        if image_gradient is None:  # nothing differentiable connects the images to the loss
            image_gradient = tf.zeros_like(x_adv)
        moved = x + self._own_perturbation(x)
        image_gradient = tf.where((moved < 0.0) | (moved > 1.0), 0.0, image_gradient)
        return Gradients(loss, logits, gradients, {**facts, "image_gradient": image_gradient})

    def observe(self, facts: Facts) -> None:
        """Moves the perturbation along the sign of the gradient at the images."""
        gradient = facts["image_gradient"]
        step = self.epsilon * tf.where(tf.math.is_finite(gradient), tf.sign(gradient), 0.0)
        moved = tf.clip_by_value(self._own_perturbation(gradient) + step, -self.epsilon, self.epsilon)
        moved = parallel.gather(moved)
        rest = self.perturbation.value[tf.shape(moved)[0] :]
        self.perturbation.assign(tf.ensure_shape(tf.concat([moved, rest], axis=0), self.perturbation.shape))

    def passes(self, batch_size: int) -> Passes:
        # The backward pass to the weights goes on through the first layer to the images: it is no additional pass.
        return Passes()

    def replayed(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        return training_data.replayed(dataset, self.replays)

    def fit_options(self) -> dict[str, typing.Any]:
        return {"is_replayed": True}

    def fit(
        self,
        x: typing.Any = None,
        y: typing.Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: typing.Any = None,
        *,
        is_replayed: bool = False,
        **options: typing.Any,
    ) -> keras.callbacks.History:
        """Trains as `Defense.fit` does, on arrays or on a `tf.data.Dataset`, every batch `replays` times in a row.

        If training stopped in the middle of the replays of a batch, the first batch of endless data gets only the
        replays that are left: a run resumed with `data.skip(steps // replays)` equals the uninterrupted one.

        With `is_replayed` the dataset is taken as it is: the caller has already called `replayed` on it.
        """
        if is_replayed:
            return super().fit(x, y, batch_size, epochs, verbose, callbacks, **options)
        if isinstance(x, (np.ndarray, tf.Tensor)):
            training_data.check_images_and_labels(self.network, "x", x, "y", y)
            if options.get("validation_split"):
                validation.refuse("validation_split", options["validation_split"], "0, or validation_data")
            training_data.check_sample_weight("sample_weight", options.get("sample_weight"), x)
            given = [each for each in (x, y, options.pop("sample_weight", None)) if each is not None]
            x = training_data.batches(*given, batch_size=batch_size or 32, shuffle=options.pop("shuffle", True))
            y, batch_size = None, None
        elif not isinstance(x, tf.data.Dataset):
            raise ValueError(f"x is a {type(x).__name__}; allowed: an array or a tf.data.Dataset")
        self._check_batch_size(training_data.size_of_first(x))
        x = self.replayed(x)
        if x.cardinality() == tf.data.INFINITE_CARDINALITY:
            x = x.skip(parallel.scalar(self._replay()))
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, **options)

    def _replay(self) -> tf.Tensor:
        """Returns which replay of its batch comes next, from 0."""
        return (tf.cast(self.batches, tf.int32) + tf.cast(self.skipped.value, tf.int32)) % self.replays

    def _states(self) -> list[keras.Variable]:
        layers = random_layers.augmentation(self.trained_network)
        return [state for layer in layers for state in random_layers.states(layer)]

    def _own_perturbation(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the perturbation (B, H, W, C) of this replica's share of the batch, `images`."""
        if images.shape[0] is not None:
            self._check_batch_size(images.shape[0])
        return parallel.own_rows(lambda shape: self.perturbation.value[: shape[0]], images)

    def _check_batch_size(self, size: int) -> None:
        if size > self.batch_size:
            raise ValueError(f"batch_size is {self.batch_size}; allowed: at least that of the data, {size}")
