"""AWP: the perturbation in closed form, the published update in NumPy, what is restored, two devices."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_nuat import parallel, schedules
from tf_nuat.defenses.awp import AWP, AWPTRADES, WeightPerturbation, perturbation
from tf_nuat.defenses.pgd_at import PGDAT
from tf_nuat.defenses.standard import Standard
from tf_nuat.defenses.trades import TRADES
from tf_nuat.optimizers import CoupledSGD

BASES = {AWP: PGDAT, AWPTRADES: TRADES}
EVERY_AWP = pytest.mark.parametrize("defense", BASES)
CLASSES = 3
LEARNING_RATE, MOMENTUM, DECAY = 0.1, 0.9, 5e-3


def linear(num_classes=CLASSES):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4, 4, 1))
    return keras.Model(inputs, keras.layers.Dense(num_classes)(keras.layers.Flatten()(inputs)))


def convolutional():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.BatchNormalization(momentum=0.5, name="of_images")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.5)(keras.layers.Conv2D(4, 3)(x))
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.Flatten()(keras.layers.ReLU()(x))))


def compiled(defense, network, **options):
    model = defense(network, epsilon=0.1, **options)
    model.compile(CoupledSGD(LEARNING_RATE, momentum=MOMENTUM, weight_decay=DECAY), metrics=["accuracy"])
    return model


def batch(size=12, num_classes=CLASSES):
    generator = np.random.default_rng(0)
    images = generator.uniform(size=(size, 4, 4, 1)).astype(np.float32)
    return images, generator.integers(0, num_classes, size)


def test_loss_is_the_largest_within_the_ball_of_weights():
    """One image, two classes: the margin is linear in the kernel, so its smallest value in the ball is known."""
    x, y = batch(1, 2)
    gamma = 0.2
    network = linear(2)
    kernel, bias = network.get_weights()
    logits = x.reshape(1, 16) @ kernel + bias
    margin = logits[0, y[0]] - logits[0, 1 - y[0]]
    smallest = margin - gamma * np.linalg.norm(kernel) * np.sqrt(2.0) * np.linalg.norm(x)
    model = compiled(AWP, network, awp_gamma=gamma)
    loss, *_ = model.gradients(tf.constant(x), tf.constant(x), tf.constant(y))
    assert float(loss) == pytest.approx(np.log1p(np.exp(-smallest)), rel=1e-5)


def softmax_gradient(kernel, bias, x, y):
    """Returns the gradient of the mean cross-entropy with respect to kernel and bias."""
    logits = x @ kernel + bias
    error = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = error / error.sum(axis=1, keepdims=True) - np.eye(CLASSES)[y]
    return x.T @ error / len(x), error.mean(axis=0)


def test_step_is_the_published_update():
    """Two steps: the gradient at the moved kernel, and weight decay, act on the unmoved one; the bias does not move."""
    x, y = batch()
    gamma = 0.3
    model = compiled(AWP, linear(), awp_gamma=gamma)
    kernel, bias = (weight.astype(np.float64) for weight in model.network.get_weights())
    velocity = np.zeros_like(kernel), np.zeros_like(bias)
    step = tf.function(model.train_step, autograph=False)
    for _ in range(2):
        x_adv = model.perturb(tf.constant(x), tf.constant(y)).numpy().reshape(len(x), 16).astype(np.float64)
        first, _ = softmax_gradient(kernel, bias, x_adv, y)
        moved = kernel + gamma * np.linalg.norm(kernel) * first / np.linalg.norm(first)
        gradient = softmax_gradient(moved, bias, x_adv, y)
        plain = softmax_gradient(kernel, bias, x_adv, y)
        velocity = tuple(MOMENTUM * v + g + DECAY * w for v, g, w in zip(velocity, gradient, (kernel, bias)))
        kernel, bias = (w - LEARNING_RATE * v for w, v in zip((kernel, bias), velocity))
        step((tf.constant(x), tf.constant(y)))
        for weight, expected in zip(model.network.get_weights(), (kernel, bias)):
            np.testing.assert_allclose(weight, expected, atol=1e-5)
        assert np.max(np.abs(gradient[0] - plain[0])) > 1e-2  # else a step without perturbation would pass


@EVERY_AWP
def test_without_a_perturbation_it_is_the_defense_beneath(defense):
    data = batch(24)
    weights = []
    for model in compiled(defense, convolutional(), awp_gamma=0.0), compiled(BASES[defense], convolutional()):
        for step in range(4):
            model.train_step(tuple(tf.constant(part[step % 2 :: 2]) for part in data))
        weights.append(model.network.get_weights())
    for one, other in zip(*weights):
        np.testing.assert_allclose(one, other, atol=1e-5)


@EVERY_AWP
def test_a_small_perturbation_changes_little_in_proportion(defense):
    """The gradients' distance from those of the defense beneath is of first order in gamma."""
    x, y = map(tf.constant, batch())
    plain = compiled(BASES[defense], linear())
    x_adv = plain.perturb(x, y)
    expected = plain.gradients(x, x_adv, y).gradients[0]

    def distance(gamma):
        gradient = compiled(defense, linear(), awp_gamma=gamma).gradients(x, x_adv, y).gradients[0]
        return np.linalg.norm(gradient - expected)

    assert distance(0.02) == pytest.approx(2 * distance(0.01), rel=0.1)
    assert distance(0.01) > 1e-4


@EVERY_AWP
def test_weights_are_restored_to_the_bit(defense):
    x, y = map(tf.constant, batch())
    model = compiled(defense, convolutional(), awp_gamma=0.5)
    before = [weight.numpy() for weight in model.trainable_variables]
    loss, *_ = tf.function(model.gradients, autograph=False)(x, x, y)
    for weight, expected in zip(model.trainable_variables, before):
        np.testing.assert_array_equal(weight.numpy(), expected)
    unmoved, _ = compiled(BASES[defense], convolutional()).objective(x, x, y)
    assert abs(float(loss) - float(unmoved)) > 1e-2


def test_statistics_see_the_batch_once():
    """Those of BatchNorm on the images do not depend on weights: one update has a closed form."""
    x, y = map(tf.constant, batch())
    model = compiled(AWP, convolutional(), awp_gamma=0.5)
    model.gradients(x, x, y)
    layer = model.network.get_layer("of_images")
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.5 * np.mean(x, axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.numpy(), 0.5 + 0.5 * np.var(x, axis=(0, 1, 2)), rtol=1e-5)


def test_statistics_are_those_at_the_moved_weights():
    """A BatchNorm behind the convolution has seen the moved kernel, and only that."""
    x, y = map(tf.constant, batch())
    model = compiled(AWP, convolutional(), awp_gamma=0.5)
    moved = convolutional()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, moved(x, training=True), True))
    gradients = tape.gradient(loss, moved.trainable_variables)
    weights = []
    for weight, gradient in zip(convolutional().trainable_variables, gradients):
        weight, gradient = weight.numpy(), gradient.numpy()
        unit = gradient / max(np.linalg.norm(gradient), 1e-20)
        weights.append(weight + 0.5 * np.linalg.norm(weight) * unit if weight.ndim > 1 else weight)
    fresh = convolutional()
    for variable, weight in zip(fresh.trainable_variables, weights):
        variable.assign(weight)
    fresh(x, training=True)
    model.gradients(x, x, y)
    for one, other in zip(model.network.non_trainable_variables, fresh.non_trainable_variables):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-5)


def test_perturbation_has_the_length_and_the_direction_that_are_published():
    generator = np.random.default_rng(0)
    weight, gradient = generator.normal(size=(2, 3, 3, 4, 5)).astype(np.float32)
    for scale in 1.0, 1e-30:  # squares of the latter are 0 in float32
        change = perturbation(tf.constant(weight), tf.constant(np.float32(scale) * gradient), 0.005).numpy()
        expected = 0.005 * np.linalg.norm(weight) * gradient / np.linalg.norm(gradient)
        np.testing.assert_allclose(change, expected, rtol=1e-4)
    assert not np.any(perturbation(tf.constant(weight), tf.zeros_like(weight), 0.005))
    overflowed = tf.fill(weight.shape, np.inf)
    assert not np.any(perturbation(tf.constant(weight), overflowed, 0.005))


def test_gamma_follows_its_schedule():
    x, y = map(tf.constant, batch())
    warm_up = schedules.Piecewise([(0, 0.0), (2, 0.0), (2, 0.3)])
    scheduled, constant, plain = (
        compiled(AWP, linear(), awp_gamma=warm_up),
        compiled(AWP, linear(), awp_gamma=0.3),
        compiled(PGDAT, linear()),
    )
    for step, like in (1, plain), (2, constant):
        scheduled.optimizer.iterations.assign(step)
        loss, expected = (float(model.gradients(x, x, y).loss) for model in (scheduled, like))
        assert loss == pytest.approx(expected, rel=1e-6)
    assert float(constant.gradients(x, x, y).loss) > float(plain.gradients(x, x, y).loss) + 1e-2


def test_mixin_serves_another_defense():
    """Standard training, moved, is AWP on clean images."""

    class Perturbed(WeightPerturbation, Standard):
        pass

    x, y = map(tf.constant, batch(1, 2))
    awp = compiled(AWP, linear(2), awp_gamma=0.2)
    loss, *_ = compiled(Perturbed, linear(2), awp_gamma=0.2).gradients(x, x, y)
    assert float(loss) == pytest.approx(float(awp.gradients(x, x, y).loss), rel=1e-6)


def test_two_devices_train_as_one(two_devices):
    """Half a batch's gradient would perturb each replica another way; a large gamma shows it."""
    images, labels = batch(48)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(16)
    results = []
    for strategy in parallel.strategy("one"), two_devices:
        with strategy.scope():
            model = compiled(AWPTRADES, linear(), awp_gamma=0.3)
        results.append((model.fit(data, epochs=1, verbose=0).history, model))
    (history, one), (history_of_two, two) = results
    for weight, expected, initial in zip(two.network.weights, one.network.get_weights(), linear().get_weights()):
        for copy in two_devices.experimental_local_results(weight.value):
            np.testing.assert_allclose(copy, expected, atol=1e-5)
        assert np.max(np.abs(expected - initial)) > 1e-3
    np.testing.assert_allclose(history_of_two["loss"], history["loss"], atol=1e-5)


def test_the_statistics_of_two_devices_are_those_of_the_batch_seen_once(two_devices):
    """After one step the moving mean of each is that of all images: those of the moved weights left no trace."""
    images, labels = batch(16)
    with two_devices.scope():
        model = compiled(AWP, convolutional(), awp_gamma=0.3, steps=1, step_size=1e-6, random_start=False)
    model.fit(tf.data.Dataset.from_tensor_slices((images, labels)).batch(16), epochs=1, verbose=0)
    mean = model.network.get_layer("of_images").moving_mean
    copies = [copy.numpy()[0] for copy in two_devices.experimental_local_results(mean.value)]
    np.testing.assert_allclose(copies, [0.5 * images.mean()] * 2, rtol=1e-4)


def test_wrong_gamma_is_named():
    with pytest.raises(ValueError, match="awp_gamma is -1; allowed"):
        AWP(linear(), epsilon=0.1, awp_gamma=-1)
