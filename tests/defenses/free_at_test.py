"""Free-AT is the published algorithm: replays, the one backward, and the perturbation that is carried over."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import counting, linear
from tf_nuat.defenses.free_at import FreeAT
from tf_nuat.defenses.standard import Standard
from tf_nuat.defenses.training_data import replayed

SIZES = (8, 8, 5)  # of the batches of an epoch, the last one smaller


def dataset(sizes=SIZES):
    batches = [linear.batch(size, seed) for seed, size in enumerate(sizes)]
    images, labels = (np.concatenate(part) for part in zip(*batches))
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(max(sizes))


def published(weights, batches, replays, size):
    """Returns weights and perturbation after algorithm 1 on `batches`, in NumPy; what is cut has no gradient."""
    weights = [weight.astype(np.float64) for weight in weights]
    delta = np.zeros((size, *linear.SHAPE))
    for x, y in batches:
        for _ in range(replays):
            x_adv = np.clip(x + delta[: len(x)], 0, 1)
            is_cut = x_adv != x + delta[: len(x)]
            _, gradient, *to_weights = linear.cross_entropy(weights, x_adv, y)
            moved = delta[: len(x)] + linear.EPSILON * np.where(is_cut, 0, np.sign(gradient))
            delta[: len(x)] = np.clip(moved, -linear.EPSILON, linear.EPSILON)
            weights = [weight - linear.LEARNING_RATE * g for weight, g in zip(weights, to_weights)]
    return weights, delta


@pytest.mark.parametrize("replays", [1, 3])
@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9}])
def test_fit_is_the_published_algorithm(replays, options):
    model = linear.compiled(FreeAT, replays=replays, batch_size=10, **options)
    start = model.network.get_weights()
    data = dataset()
    model.fit(data, epochs=2, verbose=0)
    weights, delta = published(start, [*data.as_numpy_iterator()] * 2, replays, 10)
    for weight, expected in zip(model.trained_network.get_weights(), weights):
        np.testing.assert_allclose(weight, expected, atol=1e-5)
    np.testing.assert_allclose(model.perturbation.numpy(), delta, atol=1e-6)
    assert model.optimizer.iterations.numpy() == 2 * replays * len(SIZES)
    images = np.concatenate([x for x, _ in dataset().as_numpy_iterator()])
    assert np.any(images < linear.EPSILON) and np.any(images > 1 - linear.EPSILON)  # some pixels are cut
    # What no batch has reached is still 0, and the smaller batch has left the rest of the others'.
    assert np.all(delta[8:] == 0) and np.all(np.any(delta[:8], axis=(1, 2, 3)))


def test_two_devices_are_one(two_devices):
    data = dataset((16, 16, 13))  # 13: shares of 7 and 6
    models = []
    for strategy in tf.distribute.get_strategy(), two_devices:
        with strategy.scope():
            models.append(linear.compiled(FreeAT, replays=2, batch_size=16))
        models[-1].fit(data, epochs=2, verbose=0)
    one, two = models
    for weight, expected in zip(two.network.get_weights(), one.network.get_weights()):
        np.testing.assert_allclose(weight, expected, atol=1e-5)
    for copy in two_devices.experimental_local_results(two.perturbation.value):
        np.testing.assert_allclose(copy, one.perturbation.numpy(), atol=1e-6)


def test_images_stay_within_epsilon_and_the_range_of_images():
    model = linear.compiled(FreeAT, replays=4, batch_size=8)
    for x, y in replayed(dataset(), 4):
        x_adv = model.perturb(x, y).numpy()
        assert np.max(np.abs(x_adv - x)) <= linear.EPSILON + 1e-6
        assert x_adv.min() >= 0 and x_adv.max() <= 1
        model.train_step((x, y))
        assert np.max(np.abs(model.perturbation.numpy())) <= linear.EPSILON + 1e-7


def test_a_start_takes_the_place_of_the_perturbation():
    model = linear.compiled(FreeAT)
    x, y = map(tf.constant, linear.batch())
    model.perturbation.assign(tf.fill(model.perturbation.shape, 0.05))
    np.testing.assert_allclose(model.perturb(x, y), np.clip(x + 0.05, 0, 1), atol=1e-7)
    np.testing.assert_allclose(model.perturb(x, y, start=x - 0.02), np.clip(x - 0.02, 0, 1), atol=1e-7)


@pytest.mark.parametrize("shuffle", [False, True])
def test_arrays_are_batched_and_replayed(shuffle):
    model = linear.compiled(FreeAT, replays=3)
    seen = []
    perturb = model.perturb

    def watch(x, y, start=None):
        seen.append((x.numpy(), y.numpy()))
        return perturb(x, y, start)

    model.perturb = watch
    model.compile(optimizer=keras.optimizers.SGD(0.1), run_eagerly=True)
    images, labels = linear.batch(20)
    model.fit(images, labels, 8, 2, 0, shuffle=shuffle)
    assert [len(x) for x, _ in seen] == ([8] * 6 + [4] * 3) * 2
    for first in range(0, 18, 3):
        assert all(np.array_equal(seen[first][0], x) for x, _ in seen[first : first + 3])
    epochs = [[np.concatenate(part) for part in zip(*seen[first : first + 9 : 3])] for first in (0, 9)]
    for x, y in epochs:
        order = np.lexsort(x.reshape(20, -1).T), np.lexsort(images.reshape(20, -1).T)
        np.testing.assert_array_equal(x[order[0]], images[order[1]])
        np.testing.assert_array_equal(y[order[0]], labels[order[1]])
    assert np.array_equal(epochs[0][0], images) == (not shuffle)
    assert np.array_equal(epochs[0][0], epochs[1][0]) == (not shuffle)


def test_steps_per_epoch_are_optimizer_steps():
    model = linear.compiled(FreeAT, replays=4)
    model.fit(dataset().repeat(), epochs=2, steps_per_epoch=5, verbose=0)
    assert model.optimizer.iterations.numpy() == 10


@pytest.mark.parametrize("accumulated", [None, 2])
def test_a_resumed_run_is_the_undisturbed_one(accumulated):
    """What is left of a batch's replays is counted in batches, not in updates."""
    data = dataset().repeat()
    undisturbed, resumed = (linear.compiled(FreeAT, replays=4, batch_size=8) for _ in range(2))
    for model in undisturbed, resumed:
        model.compile(keras.optimizers.SGD(linear.LEARNING_RATE, gradient_accumulation_steps=accumulated))
    undisturbed.fit(data, epochs=2, steps_per_epoch=5, verbose=0)
    resumed.fit(data, epochs=1, steps_per_epoch=5, verbose=0)
    resumed.fit(data.skip(5 // 4), initial_epoch=1, epochs=2, steps_per_epoch=5, verbose=0)
    for weight, expected in zip(resumed.network.get_weights(), undisturbed.network.get_weights()):
        np.testing.assert_allclose(weight, expected, atol=1e-6)
    np.testing.assert_allclose(resumed.perturbation.numpy(), undisturbed.perturbation.numpy(), atol=1e-6)


def test_a_resumed_run_counts_the_replays_whose_gradients_overflow():
    """The optimizer skips the second, and does not count it."""
    seen = []

    class Watched(FreeAT):
        def gradients(self, x, x_adv, y):
            found = super().gradients(x, x_adv, y)
            seen.append(x.numpy())
            return found._replace(gradients=[each * (np.inf if len(seen) == 2 else 1.0) for each in found.gradients])

    model = linear.compiled(Watched, replays=4, batch_size=8)
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(linear.LEARNING_RATE)), run_eagerly=True)
    data = dataset((8, 8)).repeat()
    model.fit(data, epochs=1, steps_per_epoch=6, verbose=0)
    model.fit(data.skip(6 // 4), initial_epoch=1, epochs=2, steps_per_epoch=6, verbose=0)
    assert model.count_batches() == 11
    for first in 0, 4, 8:
        assert all(np.array_equal(seen[first], x) for x in seen[first : first + 4])
    model.compile(keras.optimizers.SGD(linear.LEARNING_RATE), run_eagerly=True)  # which begins at a first replay
    model.fit(data, steps_per_epoch=4, verbose=0)
    assert all(np.array_equal(seen[12], x) for x in seen[13:])


def test_cardinality_is_known_where_the_datas_is():
    numbers = tf.data.Dataset.range(3)
    assert [*replayed(numbers, 2).as_numpy_iterator()] == [(n,) for n in (0, 0, 1, 1, 2, 2)]
    assert replayed(numbers, 2).cardinality() == 6
    assert replayed(numbers.repeat(), 2).cardinality() == tf.data.INFINITE_CARDINALITY
    assert replayed(numbers.filter(lambda n: n > 0), 2).cardinality() == tf.data.UNKNOWN_CARDINALITY


def test_a_gradient_that_is_none_or_no_number_leaves_the_perturbation():
    class Round(keras.layers.Layer):
        def call(self, x):
            return tf.stop_gradient(tf.round(x))

    class SquareRoot(keras.layers.Layer):
        def call(self, x):  # its gradient at 0 is infinite
            return tf.sqrt(x)

    x, y = linear.batch()
    for layer, moves in (Round(), np.zeros_like(x, bool)), (SquareRoot(), x > 0):
        network = keras.Sequential([keras.Input(linear.SHAPE), layer, *linear.network().layers])
        model = linear.compiled(FreeAT, network=network, batch_size=len(x))
        model.train_step((tf.constant(x), tf.constant(y)))
        assert np.any(x == 0)
        np.testing.assert_array_equal(model.perturbation.numpy() != 0, moves)


def test_the_state_is_saved_with_the_perturbation(tmp_path):
    models = [linear.compiled(FreeAT, batch_size=8) for _ in range(2)]
    models[0].fit(dataset(), verbose=0)
    models[0].save_weights(tmp_path / "state.weights.h5")
    models[1].load_weights(tmp_path / "state.weights.h5")
    assert np.any(models[1].perturbation.numpy())
    np.testing.assert_array_equal(models[1].perturbation.numpy(), models[0].perturbation.numpy())


def test_passes():
    models = []

    def make_model(network):
        models.append(linear.compiled(FreeAT, network=network))
        return models[0]

    assert counting.passes(make_model, *counting.batch()) == models[0].passes(8) == (0.0, 1.0, 0.0)


def any_size():
    inputs = keras.Input((None, None, 1))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(inputs)))


@pytest.mark.parametrize(
    "act, words",
    [
        (lambda: linear.compiled(FreeAT, replays=0), "replays is 0"),
        (lambda: linear.compiled(FreeAT, batch_size=0), "batch_size is 0"),
        (lambda: linear.compiled(FreeAT, network=any_size()), r"network takes images of shape \(None, None, 1\)"),
        (lambda: linear.compiled(FreeAT, batch_size=7).fit(dataset()), "batch_size is 7; allowed: at least .* 8"),
        (lambda: linear.compiled(FreeAT, batch_size=7).fit(*linear.batch(8), 8), "batch_size is 7"),
        (lambda: linear.compiled(FreeAT).fit(*linear.batch(), validation_split=0.5), "validation_split is 0.5"),
        (lambda: linear.compiled(FreeAT).fit(iter([linear.batch()])), "x is a list_iterator"),
        (lambda: linear.compiled(FreeAT).fit(linear.batch()[0] * 2, linear.batch()[1]), "x has values from"),
        (lambda: linear.compiled(FreeAT).fit(tf.data.Dataset.range(3).batch(2)), "batches"),
    ],
)
def test_bad_use_is_named(act, words):
    with pytest.raises(ValueError, match=words) as raised:
        act()
    assert "\n" not in str(raised.value)


def test_what_keras_takes_in_the_seventh_place_does_not_turn_off_the_replays():
    """It is `validation_split`, which all defenses take by its name alone."""
    for defense in FreeAT, Standard:
        with pytest.raises(TypeError, match="positional"):
            linear.compiled(defense).fit(*linear.batch(), 8, 1, 0, None, 0.5)
