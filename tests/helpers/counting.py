"""Counts what a training step really does to the images of its batch."""

import collections

import keras
import numpy as np
import tensorflow as tf

from tf_nuat.defenses.passes import Passes

STEPS = (2, 3)  # an even and an odd batch: some attacks alternate


def passes(make_model, images, labels):
    """Returns the measured `Passes` of a defense, per image of the batch, averaged over the two `STEPS`.

    A forward counts once: as training where a gradient went back to the weights (and perhaps to the images as well), as
    input gradient where it went back to the images alone, else as a forward. A gradient to the images that is
    differentiated counts as training once more. Copies of the network that
    `averaging.copy_of` makes (averages, proxies, sources) count as the network does.

    Args:
        make_model: function of a network that returns the compiled defense around it.
        images, labels: the batch of both steps.
    """
    tally = collections.defaultdict(collections.Counter)  # a forward of the traced step -> what happened, how often

    class Counted(keras.layers.Layer):
        """Hands the images on, multiplied by a weight that is 1, and counts them on their way."""

        def build(self, input_shape):
            self.scale = self.add_weight(shape=(), initializer="ones")

        def call(self, x):
            # Here `call` traces one forward. It may be run many times, in a loop, but always for the same purpose.
            forward, size = object(), tf.shape(x)[0]

            def counting(value, what):
                def count(n):
                    tally[forward][what] += int(n)

                # Stateful, so that TensorFlow neither drops nor merges what it counts.
                with tf.control_dependencies([tf.numpy_function(count, [size], [], stateful=True)]):
                    return tf.identity(value)

            def counting_gradients(value, what):
                @tf.custom_gradient
                def forward_of(v):
                    # A gradient that is itself differentiated is a pass of its own.
                    again = tf.custom_gradient(lambda u: (counting(u, what), lambda second: counting(second, "again")))
                    return tf.identity(v), again

                return forward_of(value)

            scale = counting_gradients(tf.convert_to_tensor(self.scale), "to the weights")
            return counting_gradients(counting(x, "forward"), "to the images") * scale

    num_classes = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    inputs = keras.Input(images.shape[1:])
    model = make_model(keras.Model(inputs, keras.layers.Dense(num_classes)(keras.layers.Flatten()(Counted()(inputs)))))
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(STEPS[0])
    step = tf.function(model.train_step, autograph=False)
    for _ in STEPS:
        step((tf.constant(images), tf.constant(labels)))

    counts = [(seen["forward"], seen["to the images"], seen["to the weights"]) for seen in tally.values()]
    again = sum(seen["again"] for seen in tally.values())
    runs = len(STEPS) * len(images)
    return Passes(
        input_gradient=sum(max(to_images - to_weights, 0) for _, to_images, to_weights in counts) / runs,
        training=(again + sum(to_weights for *_, to_weights in counts)) / runs,
        forward=sum(forwards - max(backwards) for forwards, *backwards in counts) / runs,
    )


def batch(size=8, shape=(6, 6, 1), num_classes=4):
    """Returns random images (size, *shape) and integer labels (size,) of all classes in turn."""
    images = np.random.default_rng(0).uniform(size=(size, *shape)).astype(np.float32)
    return images, np.arange(size) % num_classes
