"""N-FGSM, GradAlign, ELLE and ELLE-A in closed form: attacks, regularizers of a linear loss, the switch."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tests.helpers import linear
from tests.helpers.images import lengths
from tf_nuat import draws, norms, parallel, schedules
from tf_nuat.defenses.grad_align import cosine

X, Y = linear.batch(16)


def with_linear_loss():
    """Returns a network of two classes whose cross-entropy for class 0 is a linear function of the image, above 0."""
    inputs = keras.Input(linear.SHAPE)
    dense = keras.layers.Dense(1, bias_initializer=keras.initializers.Constant(2.0), kernel_initializer="ones")
    loss = dense(keras.layers.Rescaling(0.1)(keras.layers.Flatten()(inputs)))
    other = keras.ops.log(-keras.ops.expm1(-loss))  # so that the probabilities sum to 1
    return keras.Model(inputs, keras.layers.Concatenate()([-loss, other]))


def test_of_a_linear_loss_gradients_are_aligned_and_the_linearity_error_is_0():
    x, y = tf.constant(X), tf.zeros(len(X), tf.int64)
    for name, weight in ("grad_align", "alignment_weight"), ("elle", "linearity_weight"):
        penalized, plain = (
            tf_nuat.DEFENSES[name](with_linear_loss(), epsilon=0.3, **{weight: each}).objective(x, x, y)
            for each in (1000.0, 0.0)
        )
        assert float(penalized[0]) == pytest.approx(float(plain[0]), abs=1e-3), name
        assert float(plain[0]) == pytest.approx(2.0 + 0.1 * X.sum(axis=(1, 2, 3)).mean(), rel=1e-5)
    assert float(penalized[2]["linearity_error"]) < 1e-10


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_n_fgsm_goes_on_from_strong_noise_and_is_not_projected(norm):
    model = linear.compiled(tf_nuat.NFGSM, norm=norm, noise_scale=3.0)
    x, y = tf.constant(X), tf.constant(Y)
    start = norms.of(norm).random_point(x, 3.0 * linear.EPSILON, model.draw_seed)
    _, gradient, _, _ = linear.cross_entropy(model.network.get_weights(), start.numpy(), Y)
    step = np.sign(gradient) if norm == "linf" else gradient / lengths(gradient)[:, None, None, None]
    x_adv = tf.function(model.perturb)(x, y).numpy()
    np.testing.assert_allclose(x_adv, np.clip(start + linear.EPSILON * step, 0.0, 1.0), atol=1e-5)
    assert np.max(norms.of(norm).distances(x_adv - X)) > 1.5 * linear.EPSILON
    given = model.perturb(x, y, start=x).numpy()
    _, gradient, _, _ = linear.cross_entropy(model.network.get_weights(), X, Y)
    step = np.sign(gradient) if norm == "linf" else gradient / lengths(gradient)[:, None, None, None]
    np.testing.assert_allclose(given, np.clip(X + linear.EPSILON * step, 0.0, 1.0), atol=1e-5)


@pytest.mark.parametrize("name", ["n_fgsm", "grad_align", "elle"])
def test_epsilon_is_warmed_up(name):
    model = linear.compiled(tf_nuat.DEFENSES[name], epsilon_share=schedules.ramp(1.0, 4))
    x, y = tf.constant(X), tf.constant(Y)
    np.testing.assert_array_equal(model.perturb(x, y), X)
    half, constant = (linear.compiled(tf_nuat.DEFENSES[name], epsilon=share * linear.EPSILON) for share in (0.5, 1.0))
    for each in half, constant, model:
        each.optimizer.iterations.assign(2)
    np.testing.assert_allclose(model.perturb(x, y), half.perturb(x, y), atol=1e-6)
    # The random points of GradAlign's regularizer are those of the whole ball from the beginning.
    same = constant if name == "grad_align" else half
    loss, other = (float(each.objective(x, x, y)[0]) for each in (model, same))
    assert loss == pytest.approx(other, rel=1e-5)


def test_draws_of_the_objective_are_within_the_ball_and_not_cut():
    model = linear.compiled(tf_nuat.ELLE, norm="l2", epsilon=2.0)
    a, b, place = model._drawn(tf.zeros((500, *linear.SHAPE)))
    for change in a, b:
        assert 1.8 < np.max(lengths(change)) <= 2.0 + 1e-5 and np.min(change) < -0.1
    assert not np.allclose(a, b) and 0.0 <= np.min(place) < 0.1 and 0.9 < np.max(place) < 1.0


@pytest.mark.parametrize("layers", [["relu", "pool"], ["softplus", "pool"], ["relu"]])
def test_weights_learn_from_the_angle_between_the_gradients(layers):
    """The derivative of the whole objective along a direction is that of finite differences, pooling included."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(3, 3, activation=layers[0])(inputs)
    x = keras.layers.MaxPooling2D()(x) if "pool" in layers else x
    x = keras.layers.Dense(8, activation="tanh")(keras.layers.Flatten()(x))
    network = keras.Model(inputs, keras.layers.Dense(3)(x))
    model = tf_nuat.GradAlign(network, epsilon=0.2, alignment_weight=5.0)
    images = tf.random.stateless_uniform((8, 6, 6, 1), (1, 2))
    noise = 0.05 * tf.random.stateless_normal((8, 6, 6, 1), (3, 4))
    y = tf.constant(np.arange(8) % 3)

    def loss():
        return model.objective(images, images, y, noise=noise)[0]

    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, network.trainable_variables)
    # The gradient itself is the direction in which the loss changes most beside its rounding.
    size = tf.sqrt(sum(tf.reduce_sum(each**2) for each in gradients))
    values = []
    for step in 1e-3, -2e-3:
        for variable, gradient in zip(network.trainable_variables, gradients):
            variable.assign_add(step * gradient / size)
        values.append(float(loss()))
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(float(size), rel=0.02)


def test_images_without_a_gradient_are_left_out_of_the_mean():
    """The units of a dark image are dead, so that its gradient is 0."""
    layers = [keras.layers.Flatten(), keras.layers.Dense(6, activation="relu"), keras.layers.Dense(3)]
    network = keras.Sequential([keras.Input(linear.SHAPE), *layers])
    network.layers[1].set_weights([np.random.default_rng(3).normal(size=(16, 6)) + 1.0, np.full(6, -3.0)])
    model = tf_nuat.GradAlign(network, epsilon=0.2, alignment_weight=1.0)
    x, y = tf.constant(np.concatenate([np.zeros_like(X[:6]), X[6:]])), tf.constant(Y)
    noise = tf.where(x > 0.0, 0.1 * tf.random.stateless_normal(x.shape, (1, 2)), 0.0)
    with tf.GradientTape() as tape:
        loss, *_ = model.objective(x, x, y, noise=noise)
    lit, *_ = model.objective(x[6:], x[6:], y[6:], noise=noise[6:])
    plain = tf_nuat.GradAlign(network, epsilon=0.2, alignment_weight=0.0)
    penalties = float(loss - plain.objective(x, x, y)[0]), float(lit - plain.objective(x[6:], x[6:], y[6:])[0])
    assert penalties[0] == pytest.approx(penalties[1], rel=1e-4) and penalties[0] > 1e-3
    assert all(np.all(np.isfinite(each)) for each in tape.gradient(loss, network.trainable_variables))


def test_the_cosine_of_small_gradients_is_that_of_large_ones():
    generator = np.random.default_rng(0)
    first, second = (generator.normal(size=(5, 4, 4, 1)).astype(np.float32) for _ in range(2))
    expected = np.sum(first * second, axis=(1, 2, 3)) / (lengths(first) * lengths(second))
    for scale in 1.0, 1e-25, 1e15:
        found, is_known = cosine(tf.constant(scale * first), tf.constant(second))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.all(is_known)


@pytest.mark.parametrize("name", ["grad_align", "elle"])
def test_an_example_weighs_in_the_regularizer_as_often_as_it_is_told_to(name):
    model = linear.compiled(tf_nuat.DEFENSES[name])
    x, y, weights = tf.constant(X), tf.constant(Y), np.linspace(0.0, 3.0, 16).astype(np.float32)
    change = 0.1 * tf.random.stateless_normal(x.shape, (1, 2))
    noise = (change, -2.0 * change, tf.random.stateless_uniform((16,), (3, 4)))

    def loss(rows):
        given = change[rows] if name == "grad_align" else tuple(each[rows] for each in noise)
        return float(model.objective(x[rows], x[rows], y[rows], noise=given)[0])

    alone = [loss(slice(row, row + 1)) for row in range(16)]
    with parallel.weighing(tf.constant(weights)):
        weighted = loss(slice(None))
    assert weighted == pytest.approx(np.sum(weights * alone) / 16, rel=1e-4)


def test_the_weight_of_elle_a_jumps_at_unusual_errors_and_fades_between():
    model = tf_nuat.ELLEA(linear.network(), epsilon=0.1, linearity_weight=100.0, sensitivity=2.0, decay=0.5)
    errors = [1.0, 1.0, 3.0, 3.7, 1.0, 2.0, 1.5, 9.0, 9.0, float("nan"), 1.0, 50.0]
    weight, seen, expected, found = 0.0, [], [], []
    for error in errors:
        used = float(model.weight(tf.constant(error)))
        model.observe({"linearity_error": tf.constant(error)})
        if np.isnan(error):
            continue
        is_unusual = bool(seen) and error > np.mean(seen) + 2.0 * np.std(seen)
        weight = 100.0 if is_unusual else 0.5 * weight
        seen.append(error)
        expected.append(weight)
        found.append(used)
    np.testing.assert_allclose(found, expected)
    assert expected[:6] == [0.0, 0.0, 100.0, 100.0, 50.0, 25.0] and expected[7] == expected[-1] == 100.0
    assert model.card_facts() == {"linearity_weight_jumps": float(expected.count(100.0))}


def test_elle_a_trains_with_the_weight_of_the_step():
    """Its loss is that of ELLE with that weight; the error that decides is not weighed by the images' weights."""
    model = linear.compiled(tf_nuat.ELLEA, linearity_weight=50.0)
    plain = linear.compiled(tf_nuat.ELLE, linearity_weight=50.0)
    x, y = tf.constant(X), tf.constant(Y)
    change = 0.3 * tf.random.stateless_normal(x.shape, (1, 2))
    noise = (change, -change, tf.fill([16], 0.5))
    bare, logits, facts = model.objective(x, x, y, noise=noise)
    expected, _, _ = plain.objective(x, x, y, noise=noise)
    assert float(expected - bare) == pytest.approx(50.0 * float(facts["linearity_error"]), rel=1e-4)
    model.observe({"linearity_error": facts["linearity_error"] / 2.0})  # this batch is unusual beside it
    assert float(model.objective(x, x, y, noise=noise)[0]) == pytest.approx(float(expected), rel=1e-6)
    with parallel.weighing(tf.zeros(16)):
        _, _, unweighted = model.objective(x, x, y, noise=noise)
    assert float(unweighted["linearity_error"]) == pytest.approx(float(facts["linearity_error"]), rel=1e-6)


def test_two_places_of_a_seed_differ():
    """The draws of the objective are not those of the attack."""
    model = linear.compiled(tf_nuat.NFGSM)
    other = draws.fold_in(model.draw_seed, 1)
    x = tf.constant(X)
    assert not np.allclose(norms.LINF.random_change(x, other), norms.LINF.random_change(x, model.draw_seed))


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("n_fgsm", {"noise_scale": -1.0}, "noise_scale is -1.0; allowed: a number at least 0"),
        ("n_fgsm", {"norm": "l1"}, "norm is 'l1'; allowed: l2, linf"),
        ("n_fgsm", {"epsilon_share": -0.1}, "epsilon_share is -0.1"),
        ("grad_align", {"alignment_weight": -1}, "alignment_weight is -1; allowed: "),
        ("elle", {"linearity_weight": "high"}, "linearity_weight is 'high'; allowed: "),
        ("elle_a", {"decay": 1.0}, "decay is 1.0; allowed: "),
        ("elle_a", {"sensitivity": -2}, "sensitivity is -2; allowed: "),
    ],
)
def test_bad_options_are_named(name, options, words):
    with pytest.raises(ValueError, match=words) as raised:
        linear.compiled(tf_nuat.DEFENSES[name], **options)
    assert "\n" not in str(raised.value)


def test_an_error_that_is_infinite_is_no_jump():
    """Where the loss is scaled, such a step is skipped."""
    model = linear.compiled(tf_nuat.ELLEA)
    for error in 1.0, np.inf, np.nan:
        model.observe({"linearity_error": tf.constant(error, tf.float32)})
    assert model.card_facts() == {"linearity_weight_jumps": 0.0}
