"""Free-AT: adversarial training for free (Shafahi et al., 2019)."""

import numpy as np
import tensorflow as tf

from tf_nuat import parallel
from tf_nuat.core import validation
from tf_nuat.defenses.base import Defense, Passes


class FreeAT(Defense):
    """Free-AT: every batch is replayed, and one gradient moves both weights and perturbation (algorithm 1).

    One `train_step` is one replay: it minimizes the cross-entropy of the perturbed images, and the same backward moves
    the perturbation by `epsilon` along the sign of its gradient. The perturbation begins at 0 and is carried over from
    replay to replay and from batch to batch. `fit` gives each batch of its data `replays` times in a row: an epoch of
    finite data takes `replays` times as many steps as the data has batches; with `steps_per_epoch` it takes those
    steps, and sees fewer images.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K), of a fixed height and width.
        epsilon: radius of the L-infinity threat model and length of the step, above 0.
        replays: m, how often a batch is used in a row, at least 1.
        batch_size: images of the largest batch, all devices together, at least 1.
        **options: those of `Defense`.

    Raises:
        ValueError: an argument is out of its range, a batch is larger than `batch_size`, or the network ends in
            softmax.
    """

    NEEDS = ("batch_size",)

    def __init__(self, network, *, epsilon, replays=8, batch_size=64, **options):
        super().__init__(network, epsilon=epsilon, **options)
        self.replays = validation.whole_number("replays", replays, at_least=1)
        self.batch_size = validation.whole_number("batch_size", batch_size, at_least=1)
        image_shape = network.input_shape[1:]
        if None in image_shape:
            raise ValueError(f"network takes images of shape {image_shape}; allowed: a fixed height and width")
        # Every replica holds that of the global batch.
        self.perturbation = self.add_weight(
            shape=(batch_size, *image_shape),
            initializer="zeros",
            trainable=False,
            name="perturbation",
            aggregation="only_first_replica",
        )

    def perturb(self, x, y, start=None):
        if start is None:
            start = x + self._own_perturbation(x)
        return tf.clip_by_value(start, 0.0, 1.0)

    def gradients(self, x, x_adv, y):
        """Returns what `Defense.gradients` does, and moves the perturbation by the same backward."""
        with tf.GradientTape() as tape:
            tape.watch(x_adv)
            loss, logits = self.loss_and_logits(x, x_adv, y)
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients, image_gradient = tape.gradient(scaled_loss, (self.trained_network.trainable_variables, x_adv))
        self._move_perturbation(x, image_gradient)
        return loss, logits, gradients

    def passes(self, batch_size):
        # The backward to the weights goes on to the images, through the first layer: no pass of its own.
        return Passes()

    def replayed(self, dataset):
        return replayed(dataset, self.replays)

    def fit_options(self):
        return {"is_replayed": True}

    def fit(
        self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, is_replayed=False, **options
    ):
        """Trains as `Defense.fit` does, on arrays or on a `tf.data.Dataset`, every batch `replays` times in a row.

        The first batch of endless data is only given what replays are left of it, where training has stopped in the
        middle of a batch's: a run that is resumed with `data.skip(steps // replays)` is the undisturbed one.

        With `is_replayed` the dataset is taken as it is: `replayed` has been called on it.
        """
        if is_replayed:
            return super().fit(x, y, batch_size, epochs, verbose, callbacks, **options)
        if isinstance(x, (np.ndarray, tf.Tensor)):
            self._check_data("x", x, "y", y)
            if options.get("validation_split"):
                raise ValueError(f"validation_split is {options['validation_split']!r}; allowed: 0, or validation_data")
            x, y = _batches(x, y, batch_size or 32, shuffle=options.pop("shuffle", True)), None
            batch_size = None
        elif not isinstance(x, tf.data.Dataset):
            raise ValueError(f"x is a {type(x).__name__}; allowed: an array or a tf.data.Dataset")
        self._check_batch_size(_size_of_first(x))
        x = self.replayed(x)
        if self.optimizer is not None and x.cardinality() == tf.data.INFINITE_CARDINALITY:
            x = x.skip(parallel.scalar(self.optimizer.iterations) % self.replays)
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, **options)

    def _own_perturbation(self, x):
        if x.shape[0] is not None:
            self._check_batch_size(x.shape[0])
        return parallel.own_rows(lambda shape: self.perturbation.value[: shape[0]], x)

    def _move_perturbation(self, x, image_gradient):
        step = 0.0  # where nothing differentiable connects the images to the loss, or the gradient is no finite number
        if image_gradient is not None:
            step = self.epsilon * tf.where(tf.math.is_finite(image_gradient), tf.sign(image_gradient), 0.0)
        moved = tf.clip_by_value(self._own_perturbation(x) + step, -self.epsilon, self.epsilon)
        moved = parallel.gather(moved)
        rest = self.perturbation.value[tf.shape(moved)[0] :]
        self.perturbation.assign(tf.ensure_shape(tf.concat([moved, rest], axis=0), self.perturbation.shape))

    def _check_batch_size(self, size):
        if size > self.batch_size:
            raise ValueError(f"batch_size is {self.batch_size}; allowed: at least that of the data, {size}")


def replayed(dataset, replays):
    """Returns `dataset` with each of its elements `replays` times in a row."""
    count = dataset.cardinality()
    repeated = dataset.flat_map(lambda *batch: tf.data.Dataset.from_tensors(batch).repeat(replays))
    if count != tf.data.UNKNOWN_CARDINALITY:  # of which `flat_map` knows nothing
        count = count if count == tf.data.INFINITE_CARDINALITY else count * replays
        repeated = repeated.apply(tf.data.experimental.assert_cardinality(count))
    return repeated


def _batches(x, y, batch_size, *, shuffle):
    """Returns arrays as a dataset of batches, in a new order at each iteration where they are to be shuffled."""
    x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
    indices = tf.data.Dataset.range(len(x))
    if shuffle:
        indices = indices.shuffle(len(x))
    return indices.batch(batch_size).map(lambda rows: (tf.gather(x, rows), tf.gather(y, rows)))


def _size_of_first(dataset):
    """Returns the number of images in the first batch, 0 where there is none."""
    images = tf.nest.flatten(dataset.element_spec)[0]
    if images.shape.rank and images.shape[0] is not None:
        return images.shape[0]
    return max((len(tf.nest.flatten(batch)[0]) for batch in dataset.take(1)), default=0)
