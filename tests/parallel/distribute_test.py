"""Two devices with 32 images each do what one device with 64 does."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tests.helpers import linear
from tests.helpers.distributed import BATCH, CLASSES, SHAPE, batches, network, trained, with_batch_norm
from tf_nuat import draws, losses, parallel
from tf_nuat.models import averaging

# Defenses whose steps, as far as they differ on several devices, are those of another one that is tried here: how the
# loss is shared, where noise is drawn for the whole batch. Averages are those of the nuat ones.
COVERED = {
    "standard": "eat",
    "rfgsm_at": "fbf",
    "pgd_at": "mart",
    "fgsm_at": "eat",
    "gat_wa": "gat",
    "trades_wa": "trades",
    "awp": "tests/defenses/awp_test.py",
    "awp_trades": "tests/defenses/awp_test.py",
    "free_at": "tests/defenses/free_at_test.py",
    "nuat": "nuat_wa_h",
    "nuat_wa": "nuat_wa_h",
    "nuat_h": "nuat_wa_h",
    "nuat2": "nuat2_wa",
}


@pytest.mark.parametrize("name", [name for name in tf_nuat.DEFENSES if name not in COVERED])
def test_fit_on_two_devices_is_fit_on_one(name, two_devices):
    # Compiling takes longer than a few steps. These exchange tensors within a loop or a condition: only a graph can.
    eagerly = not name.startswith(("nuat", "sat_r2"))
    one, history_of_one = trained(name, tf.distribute.get_strategy(), run_eagerly=eagerly)
    two, history_of_two = trained(name, two_devices, run_eagerly=eagerly)
    start = network().get_weights()
    for weight, expected, initial in zip(two.trained_network.get_weights(), one.trained_network.get_weights(), start):
        np.testing.assert_allclose(weight, expected, atol=1e-5)
        assert np.max(np.abs(expected - initial)) > 1e-3  # else agreement would say nothing
    for weight, expected in zip(two.network.get_weights(), one.network.get_weights()):
        np.testing.assert_allclose(weight, expected, atol=1e-5)
    for key, values in history_of_one.items():
        np.testing.assert_allclose(history_of_two[key], values, atol=1e-5, err_msg=key)


def test_the_loss_of_a_batch_that_does_not_divide_is_the_mean_over_its_images(two_devices):
    """Of 13 images in batches of 8 the last are 5, of which one device has more."""
    data = batches().unbatch().take(13).batch(8)
    logged = []
    for strategy in tf.distribute.get_strategy(), two_devices:
        model, history = trained("standard", strategy, data, run_eagerly=True)
        logged.append([*history["loss"], model.evaluate(data, verbose=0, return_dict=True)["loss"]])
    np.testing.assert_allclose(logged[1], logged[0], atol=1e-5)


def test_the_pairs_of_r1_may_be_on_several_devices(two_devices):
    """All 32 images of the second device and 8 of the first take the iterative attack."""
    one, two = (
        trained("sat_r1", strategy, pairs=40, steps=2)[0].network.get_weights()
        for strategy in (tf.distribute.get_strategy(), two_devices)
    )
    for weight, expected in zip(two, one):
        np.testing.assert_allclose(weight, expected, atol=1e-5)


def shares(strategy, x, y, x_adv):
    """Returns the loss, its gradients and the perturbed images of one NuAT step, summed or joined over the replicas."""
    with strategy.scope():
        model = tf_nuat.NuAT(network(), epsilon=0.1, nuclear_weight=2.0)
        model.compile(optimizer="sgd")
        model.optimizer.iterations.assign(1)  # an odd batch: the attack's norm is the global batch's, too

    @tf.function
    def step(x, y, x_adv):
        perturbed = model.perturb(x, y)
        with tf.GradientTape() as tape:
            loss, _ = model.objective(x, x_adv, y)
        return loss, tape.gradient(loss, model.network.trainable_variables), perturbed

    parts = [
        strategy.experimental_distribute_values_from_function(
            lambda context, whole=whole: np.array_split(whole, strategy.num_replicas_in_sync)[
                context.replica_id_in_sync_group
            ]
        )
        for whole in (x, y, x_adv)
    ]
    loss, gradients, perturbed = strategy.run(step, args=parts)
    total = functools.partial(strategy.reduce, "SUM", axis=None)
    return total(loss), [total(g) for g in gradients], np.concatenate(strategy.experimental_local_results(perturbed))


def test_losses_gradients_and_attacks_are_the_global_batchs(two_devices):
    """Of shares of 32 and 31 images."""
    size = 63
    generator = np.random.default_rng(2)
    x = generator.uniform(size=(size, *SHAPE)).astype(np.float32)
    x_adv = np.clip(x + generator.uniform(-0.1, 0.1, size=x.shape), 0, 1).astype(np.float32)
    y = generator.integers(0, CLASSES, size)
    loss, gradients, perturbed = shares(tf.distribute.get_strategy(), x, y, x_adv)
    loss_of_two, gradients_of_two, perturbed_of_two = shares(two_devices, x, y, x_adv)
    np.testing.assert_allclose(loss_of_two, loss, atol=1e-5)
    for gradient, expected in zip(gradients_of_two, gradients):
        np.testing.assert_allclose(gradient, expected, atol=1e-5)
    assert np.mean(np.abs(perturbed_of_two - perturbed) < 1e-5) > 0.999


def test_the_objective_of_the_global_batch_is_not_the_mean_of_two_local_ones():
    """What a nuclear norm per replica would give: the tests above would see it."""
    generator = np.random.default_rng(3)
    change = tf.constant(generator.normal(size=(BATCH, CLASSES)), tf.float32)
    whole = losses.nuclear_penalty(change, 1.0)
    halves = [losses.nuclear_penalty(half, 1.0) for half in tf.split(change, 2)]
    assert abs(float(whole) - float(sum(halves)) / 2) > 0.1 * float(whole)


def test_noise_is_drawn_for_the_global_batch(two_devices):
    """The two devices have different noise, and together that of one device."""
    x = tf.zeros((8, 2, 2, 1))
    whole = draws.signs(x, 5).numpy()

    @tf.function
    def draw():
        return draws.signs(tf.zeros((4, 2, 2, 1)), 5)

    parts = two_devices.experimental_local_results(two_devices.run(draw))
    np.testing.assert_array_equal(np.concatenate([part.numpy() for part in parts]), whole)
    assert np.any(parts[0] != parts[1])


def test_averages_move_on_every_device(two_devices):
    with two_devices.scope():
        average, target = network(), network()
        average.set_weights([np.zeros_like(w) for w in average.get_weights()])

    two_devices.run(tf.function(lambda: averaging.update(average, target, tf.constant(0.75))))
    for weight, goal in zip(average.weights, target.weights):
        for copy in two_devices.experimental_local_results(weight.value):
            np.testing.assert_allclose(copy, 0.25 * goal.numpy(), atol=1e-6)


@pytest.fixture(scope="module")
def with_statistics(two_devices):
    """GAT-WA of a network with BatchNorm, trained on one device and on two."""
    return [
        trained("gat_wa", strategy, network=with_batch_norm, run_eagerly=True)[0]
        for strategy in (tf.distribute.get_strategy(), two_devices)
    ]


def test_batch_norm_has_the_same_statistics_on_every_device(with_statistics, two_devices):
    """Each device updates them with its own images, and then takes the mean: of means, that of the whole batch."""
    alone, model = with_statistics
    for one, other in (model.trained_network, alone.trained_network), (model.network, alone.network):
        for weight in one.non_trainable_weights:
            copies = [copy.numpy() for copy in two_devices.experimental_local_results(weight.value)]
            np.testing.assert_array_equal(copies[0], copies[1])
        mean, expected = (each.layers[1].moving_mean.numpy() for each in (one, other))
        np.testing.assert_allclose(mean, expected, atol=2e-4)
        assert np.max(np.abs(expected)) > 0.01


def test_synchronized_batch_norm_makes_two_devices_one(with_statistics, two_devices):
    """Without it, they are not: a half of the batch has other statistics."""
    one, apart = with_statistics
    together, _ = trained("gat_wa", two_devices, network=functools.partial(with_batch_norm, True), run_eagerly=True)
    errors = []
    for two in (together, apart):
        pairs = zip(two.network.get_weights(), one.network.get_weights())
        errors.append(max(np.max(np.abs(weight - expected)) for weight, expected in pairs))
    assert errors[0] < 1e-5 < 10 * 1e-5 < errors[1]


def test_a_device_without_images_changes_nothing(two_devices):
    """Of a batch of one image the second device has none: its BatchNorm would make NaN of every weight."""
    data = batches().unbatch().take(3).batch(1)
    models = []
    for strategy in tf.distribute.get_strategy(), two_devices:
        model, _ = trained("gat_wa", strategy, data, with_batch_norm, run_eagerly=True)
        models.append(model)
    one, two = models
    for weight, expected in zip(two.trained_network.weights, one.trained_network.weights):
        for copy in two_devices.experimental_local_results(weight.value):
            np.testing.assert_allclose(copy, expected.numpy(), atol=1e-5, err_msg=weight.path)
    assert np.max(np.abs(one.trained_network.layers[1].moving_mean)) > 1e-3


def test_a_step_is_skipped_where_the_gradients_of_one_device_overflow(two_devices):
    device = tf.Variable(0)

    class Overflows(tf_nuat.Standard):
        def gradients(self, *arguments, **options):
            found = super().gradients(*arguments, **options)
            is_one = tf.equal(tf.distribute.get_replica_context().replica_id_in_sync_group, device)
            return found._replace(gradients=[tf.where(is_one, np.inf, each) for each in found.gradients])

    with two_devices.scope():
        model = Overflows(network(), epsilon=0.1)
        model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=16.0))
    before = [weight.copy() for weight in model.network.get_weights()]
    each_in_turn = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: device.assign(batch))
    model.fit(batches().take(2), verbose=0, callbacks=[each_in_turn])
    for weight, expected in zip(model.network.get_weights(), before):
        np.testing.assert_array_equal(weight, expected)
    assert model.count_batches() == 0 and float(model.optimizer.dynamic_scale.numpy()) == 4.0


@pytest.mark.parametrize(
    "option", [{"clipnorm": 1.0}, {"global_clipnorm": 1.0}, {"clipvalue": 0.1}, {"gradient_accumulation_steps": 2}]
)
def test_what_an_optimizer_would_do_on_each_device_by_itself_is_refused(option, two_devices):
    """Clipped shares do not add up to the clipped gradient, and TensorFlow fails at accumulated ones."""
    [(name, value)] = option.items()
    linear.compiled(tf_nuat.Standard).compile(keras.optimizers.SGD(0.1, **option))
    with two_devices.scope():
        model = tf_nuat.Standard(linear.network(), epsilon=0.1)
        optimizers = [keras.optimizers.SGD(0.1, **option) for _ in range(2)]
        for optimizer in optimizers[0], keras.optimizers.LossScaleOptimizer(optimizers[1]):
            with pytest.raises(ValueError, match=f"{name} of the optimizer is {value}; allowed: None"):
                model.compile(optimizer)


def test_frozen_weights_are_no_moving_statistics():
    """Replicas would exchange a whole frozen network at each step, and round what must not change."""
    inner = with_batch_norm()
    inputs = keras.Input(SHAPE)
    frozen = keras.layers.Conv2D(1, 1, trainable=False)
    frozen_norm = keras.layers.BatchNormalization(trainable=False)
    outer = keras.Model(inputs, inner(frozen_norm(frozen(inputs))))
    norm = inner.layers[1]
    assert parallel.moving_statistics(outer) == [norm.moving_mean, norm.moving_variance]
    assert len(outer.non_trainable_weights) == 8


def test_a_synchronized_copy_has_the_weights_and_stock_layers():
    network = with_batch_norm()
    copy = parallel.synchronized(network)
    assert copy.layers[1].synchronized and not network.layers[1].synchronized
    images = next(iter(batches()))[0]
    np.testing.assert_array_equal(copy(images), network(images))


def test_strategies():
    assert parallel.strategy("one").num_replicas_in_sync == 1
    assert parallel.strategy("auto").num_replicas_in_sync == 1  # no GPU here
    with pytest.raises(ValueError, match="strategy is 'two'; allowed: auto, mirrored, multiworker, one"):
        parallel.strategy("two")
