"""The base class and the NuAT family beyond the golden vectors: averages, switching, schedules in use, wrong input."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tf_nuat import losses
from tf_nuat.models import averaging

SHAPE = (8, 8, 1)
CLASSES = 10
BATCH = 16


def network(*, batch_norm=False, last=None, seed=1):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(SHAPE)
    x = keras.layers.Conv2D(4, 3)(inputs)
    if batch_norm:
        x = keras.layers.BatchNormalization(momentum=0.5)(x)
    x = keras.layers.Flatten()(keras.layers.ReLU()(x))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, activation=last)(x))


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    return generator.uniform(size=(64, *SHAPE)).astype(np.float32), generator.integers(0, CLASSES, 64)


def compiled(name, *, batch_norm=False, learning_rate=0.05, **options):
    if name == "eat":
        options.setdefault("sources", [network(seed=2)])
    model = tf_nuat.DEFENSES[name](network(batch_norm=batch_norm), epsilon=0.1, **options)
    model.compile(optimizer=tf_nuat.optimizers.CoupledSGD(learning_rate), metrics=["accuracy"])
    return model


def stepped(model, x, y):
    """Takes the steps of an epoch without compiling them, and returns the weights that are trained."""
    for start in range(0, len(x), BATCH):
        model.train_step((tf.constant(x[start : start + BATCH]), tf.constant(y[start : start + BATCH])))
    return model.trained_network.get_weights()


# The others are one of these but for a default, the kind of noise or the loss under AWP; tests/defenses/hooks_test.py
# has them all.
SIMILAR = ("awp", "fgsm_at", "gat_wa", "nuat", "nuat2", "nuat_wa_h", "rfgsm_at", "trades_wa")
FITTED = [name for name in tf_nuat.DEFENSES if name not in SIMILAR]


@pytest.mark.parametrize("name", FITTED)
def test_trains_and_validates(name, data):
    model = compiled(name, batch_norm=True)
    history = model.fit(*data, batch_size=BATCH, epochs=2, validation_data=data, verbose=0).history
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert np.all(np.isfinite(list(history.values())))
    accuracy = np.mean(np.argmax(model.network(data[0], training=False), axis=1) == data[1])
    assert accuracy == pytest.approx(history["val_accuracy"][-1])


def test_predicts_what_the_averaged_network_does(data):
    model = compiled("nuat_wa", batch_norm=True)
    stepped(model, *data)
    logits = model.predict(data[0], verbose=0)
    np.testing.assert_allclose(logits, model.network(data[0], training=False), atol=1e-6)
    assert np.max(np.abs(logits - model.trained_network(data[0], training=False))) > 1e-3


@pytest.mark.parametrize("name", tf_nuat.DEFENSES)
def test_a_documented_class_with_checked_options(name):
    defense = tf_nuat.DEFENSES[name]
    assert inspect.isclass(defense) and issubclass(defense, tf_nuat.Defense) and defense.__doc__
    assert getattr(tf_nuat, defense.__name__) is defense and defense.__name__ in tf_nuat.__all__
    with pytest.raises(ValueError, match="epsilon is 0; allowed: a number above 0"):
        defense(network(), epsilon=0, **({"sources": [network()]} if name == "eat" else {}))


# Every objective, and every attack, that asks for labels.
@pytest.mark.parametrize(
    "name", ["bat", "eat", "gat", "mart", "nuat_h", "nuat2", "sat_r1", "sat_r2", "sat_r3", "trades"]
)
def test_one_hot_labels_train_as_integers_do(name, data):
    """Two steps: some attacks alternate."""
    x, y = (part[: 2 * BATCH] for part in data)
    one, other = (stepped(compiled(name), x, labels) for labels in (y, np.eye(CLASSES, dtype=np.float32)[y]))
    for weight, expected in zip(other, one):
        np.testing.assert_allclose(weight, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["fgsm_at", "free_at"])  # two methods `fit`
def test_fit_takes_one_hot_labels(name, data):
    x, y = data
    weights = []
    for labels in y, np.eye(CLASSES, dtype=np.float32)[y]:
        model = compiled(name)
        model.fit(x, labels, batch_size=BATCH, epochs=1, shuffle=False, verbose=0)
        weights.append(model.network.get_weights())
    for one, other in zip(*weights):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_fit_takes_what_keras_takes(data):
    """Positional batch size and epochs, and a dataset of float64 images."""
    images, labels = data
    model = compiled("fgsm_at")
    assert len(model.fit(images, labels, BATCH, 2, 0).history["loss"]) == 2
    dataset = tf.data.Dataset.from_tensor_slices((images.astype(np.float64), labels)).batch(BATCH)
    callbacks = keras.callbacks.CallbackList([], add_history=True, model=model)
    history = model.fit(dataset, epochs=1, validation_data=dataset, callbacks=callbacks, verbose=0).history
    assert np.isfinite(history["val_loss"][-1])


def test_the_same_seed_trains_the_same_network(data):
    x, y = (part[: 2 * BATCH] for part in data)

    def weights(seed):
        return np.concatenate([weight.ravel() for weight in stepped(compiled("nuat", seed=seed), x, y)])

    once = weights(3)
    np.testing.assert_allclose(weights(3), once, atol=1e-6)
    assert np.max(np.abs(once - weights(4))) > 1e-4


def test_the_noise_is_fresh_at_every_step(data):
    """A plain seed inside a compiled step would repeat the same noise for ever."""
    model = compiled("nuat", nuclear_weight=0.0)
    perturb = tf.function(model.perturb)
    x, y = map(tf.constant, data)
    first = perturb(x, y)
    np.testing.assert_array_equal(perturb(x, y), first)
    model.optimizer.iterations.assign_add(2)
    assert np.mean(perturb(x, y) != first) > 0.1


def test_nuclear_weight_follows_its_schedule(data):
    ramp = tf_nuat.schedules.ramp(4.0, 2, steps_per_epoch=10)
    model = compiled("nuat", nuclear_weight=ramp)
    for step, expected in (0, 0.0), (5, 1.0), (10, 2.0), (20, 4.0), (30, 4.0):
        model.optimizer.iterations.assign(step)
        assert float(model.weight()) == pytest.approx(expected)


def test_one_compiled_training_step(data):
    """Neither epochs nor steps trace the training step again."""
    traces = []

    class Counting(tf_nuat.NuAT):
        def perturb(self, x, y, start=None):
            traces.append(1)
            return super().perturb(x, y, start)

    model = Counting(network(), epsilon=0.1)
    model.compile(optimizer=tf_nuat.optimizers.CoupledSGD(0.01))
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(BATCH, drop_remainder=True)
    model.fit(dataset, epochs=1, verbose=0)
    after_one = len(traces)
    model.fit(dataset, epochs=3, initial_epoch=1, verbose=0)
    assert len(traces) == after_one <= 2


def test_averages_all_weights_with_batch_norm_statistics(data):
    decay = 0.5
    model = compiled("nuat", batch_norm=True, ema_decay=decay)
    expected = [weight.copy() for weight in model.trained_network.get_weights()]
    start = [weight.copy() for weight in expected]
    for step in range(1, 4):
        model.train_on_batch(data[0][:BATCH], data[1][:BATCH])
        kept = min(decay, (1 + step) / (10 + step))
        expected = [
            kept * average + (1 - kept) * w for average, w in zip(expected, model.trained_network.get_weights())
        ]
    names = [weight.path for weight in model.network.weights]
    assert any("moving_mean" in name for name in names)
    for name, average, goal, begin in zip(names, model.network.get_weights(), expected, start):
        np.testing.assert_allclose(average, goal, atol=1e-6, err_msg=name)
        if not name.endswith("bias"):
            assert np.max(np.abs(average - begin)) > 1e-4, name


def test_averaging_does_not_change_what_is_trained(data):
    plain, averaged = compiled("nuat"), compiled("nuat_wa")
    for one, other in zip(*(stepped(model, data[0][:32], data[1][:32]) for model in (plain, averaged))):
        np.testing.assert_array_equal(one, other)
    assert any(
        np.any(one != other)
        for one, other in zip(averaged.network.get_weights(), averaged.trained_network.get_weights())
    )


def test_weights_loaded_after_construction_are_trained(data):
    model = compiled("nuat_wa", learning_rate=1e-9)
    other = network(seed=2)
    model.network.set_weights(other.get_weights())
    model.fit(*data, batch_size=BATCH, epochs=1, verbose=0)
    for weight, expected in zip(model.trained_network.get_weights(), other.get_weights()):
        np.testing.assert_allclose(weight, expected, atol=1e-5)


@pytest.mark.parametrize("how", ["loaded", "compiled again"])
def test_what_was_trained_is_trained_further_by_a_new_optimizer(how, data, tmp_path):
    """To begin from the average, which lags behind, would lose the last steps."""
    model = compiled("standard", ema_decay=0.9)
    model.fit(*data, batch_size=BATCH, verbose=0)
    trained = [weight.copy() for weight in model.trained_network.get_weights()]
    assert np.max(np.abs(model.network.get_weights()[0] - trained[0])) > 1e-4
    if how == "loaded":
        model.save_weights(tmp_path / "defense.weights.h5")
        model = tf_nuat.Standard(network(), epsilon=0.1, ema_decay=0.9)
        model.load_weights(tmp_path / "defense.weights.h5")
    model.compile(tf_nuat.optimizers.CoupledSGD(1e-9))
    model.fit(*data, batch_size=BATCH, verbose=0)
    for weight, expected in zip(model.trained_network.get_weights(), trained):
        np.testing.assert_allclose(weight, expected, atol=1e-5)


def test_weights_that_are_set_after_training_are_trained_by_a_new_optimizer(data):
    """As for the next fold of a cross-validation."""
    model = compiled("standard", ema_decay=0.9)
    model.fit(*data, batch_size=BATCH, verbose=0)
    other = network(seed=2)
    model.network.set_weights(other.get_weights())
    model.compile(tf_nuat.optimizers.CoupledSGD(1e-9))
    model.fit(*data, batch_size=BATCH, verbose=0)
    for weight, expected in zip(model.trained_network.get_weights(), other.get_weights()):
        np.testing.assert_allclose(weight, expected, atol=1e-5)


def test_decay_while_the_average_is_young():
    steps = np.array([0, 1, 10, 90, 10**6])
    np.testing.assert_allclose(
        [float(averaging.decay_at(step, 0.9998)) for step in steps], [0.1, 2 / 11, 0.55, 0.91, 0.9998], rtol=1e-5
    )


def test_nuat2_wa_attacks_the_network_itself_in_the_first_epoch(data):
    model = compiled("nuat2_wa", attack_ema_decay=0.9)
    differences = []

    class Compare(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            pairs = zip(model.attack_network.get_weights(), model.trained_network.get_weights())
            differences.append(max(np.max(np.abs(one - other)) for one, other in pairs))

    model.fit(*data, batch_size=BATCH, epochs=2, callbacks=[Compare()], verbose=0)
    assert differences[:4] == [0.0] * 4
    assert all(difference > 0 for difference in differences[4:])


def test_hybrid_switches_on_a_sudden_drop_and_back(data):
    """The clean loss is prescribed: two steps are taken exactly while its recent mean is below the threshold."""
    model = compiled("nuat_h", threshold=0.8)
    model.RECENT_STEPS = 1  # the mean of the last step alone
    model.on_epoch_begin(0)
    for loss in (1.0, 1.0, 1.0, 1.0):
        assert not bool(model.takes_two_steps())
        model.observe({"clean_loss": tf.constant(loss)})
    model.on_epoch_begin(1)
    taken = []
    prescribed = (1.0, 0.7, 0.5, 0.9, 1.0, 0.5)
    for loss in prescribed:  # the state of a step follows from the step before
        taken.append(bool(model.takes_two_steps()))
        model.observe({"clean_loss": tf.constant(loss)})
    assert taken == [False, False, True, True, False, False]
    assert float(model.previous_epoch_loss) == 1.0
    assert float(model.two_step_batches) == 2
    model.optimizer.iterations.assign(9)
    model.on_epoch_begin(2)
    assert float(model.previous_epoch_loss) == pytest.approx(np.mean(prescribed))


@pytest.mark.parametrize("drop", [False, True])
def test_hybrid_is_nuat_or_nuat2(drop, data):
    hybrid, reference = compiled("nuat_h"), compiled("nuat2" if drop else "nuat")
    if drop:
        hybrid.previous_epoch_loss.assign(1.0)
        hybrid.recent_loss.assign(0.1)
    x, y = map(tf.constant, data)
    np.testing.assert_array_equal(tf.function(hybrid.perturb)(x, y), tf.function(reference.perturb)(x, y))


def test_second_step_raises_the_cross_entropy(data):
    x, y = map(tf.constant, data)
    one, two = compiled("nuat"), compiled("nuat2")
    one.optimizer.iterations.assign(1)
    two.optimizer.iterations.assign(1)
    loss = [float(tf.reduce_mean(losses.cross_entropy(model.network(model.perturb(x, y)), y))) for model in (one, two)]
    assert loss[1] > loss[0]


def test_smaller_last_batch_is_averaged_over_its_own_size(data):
    """Repeating a batch three times changes neither cross-entropy nor its mean, but a fixed divisor would."""
    model = compiled("standard")
    x, y = (tf.constant(part[:5]) for part in data)
    loss, _ = model.objective(x, x, y)
    repeated, _ = model.objective(*(tf.concat([part] * 3, axis=0) for part in (x, x)), tf.concat([y] * 3, axis=0))
    assert float(loss) == pytest.approx(float(repeated), rel=1e-5)


def test_coupled_decay_is_not_keras_own(data):
    """Coupled decay enters the momentum; Keras's shrinks the variable beside it."""
    variables = [keras.Variable(np.ones(3, np.float32)) for _ in range(2)]
    optimizers = [
        tf_nuat.optimizers.CoupledSGD(0.1, momentum=0.9, weight_decay=0.1),
        keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1),
    ]
    weight, velocity = np.ones(3), np.zeros(3)
    for _ in range(4):
        velocity = 0.9 * velocity + 0.5 + 0.1 * weight
        weight = weight - 0.1 * velocity
        for variable, optimizer in zip(variables, optimizers):
            optimizer.apply([tf.fill([3], 0.5)], [variable])
    np.testing.assert_allclose(variables[0].numpy(), weight, rtol=1e-6)
    assert np.max(np.abs(variables[1].numpy() - weight)) > 1e-2


def test_variables_may_be_excluded_from_coupled_decay():
    """As `keras.optimizers.AdamW` has it: by themselves, or by a part of their names."""
    kernel, bias, scale = (keras.Variable(np.ones(3, np.float32), name=name) for name in ("kernel", "bias", "scale"))
    optimizer = tf_nuat.optimizers.CoupledSGD(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[scale], var_names=["bias"])
    optimizer.apply([tf.zeros(3)] * 3, [kernel, bias, scale])
    np.testing.assert_allclose(kernel.numpy(), 0.95 * np.ones(3), rtol=1e-6)
    for excluded in bias, scale:
        np.testing.assert_array_equal(excluded.numpy(), np.ones(3))


def test_optimizer_is_restored_from_its_config():
    optimizer = tf_nuat.optimizers.CoupledSGD(0.1, momentum=0.8, weight_decay=1e-3)
    again = tf_nuat.optimizers.CoupledSGD.from_config(optimizer.get_config())
    assert (again.momentum, again.coupled_weight_decay, float(again.learning_rate)) == (
        0.8,
        1e-3,
        pytest.approx(0.1),
    )


BAD_DATA = [
    (lambda x, y: ((x * 255).astype(np.uint8), y), "x has dtype uint8"),
    (lambda x, y: (x * 255, y), "x has values from"),
    (lambda x, y: (x[..., 0], y), "x has shape"),
    (lambda x, y: (np.repeat(x, 3, axis=-1), y), "the network takes"),
    (lambda x, y: (x, y + 5), "y has values from"),
    (lambda x, y: (x, y - 3), "y has values from"),
    (lambda x, y: (x, y[:-1]), "y has 63 entries for 64 images"),
    (lambda x, y: (x, y + 0.5), r"y has shape \(64,\) and dtype float64"),
    (lambda x, y: (x, np.eye(7)[y % 7]), "y has shape"),
    (lambda x, y: (x, 2 * np.eye(CLASSES)[y]), "rows that do not sum to 1"),
    (lambda x, y: (tf.data.Dataset.from_tensor_slices((x * 255, y)).batch(8), None), "x has values from"),
    (lambda x, y: (tf.data.Dataset.from_tensor_slices((x, y + 99)).batch(8), None), "labels of x has values"),
    (lambda x, y: (tf.data.Dataset.from_tensor_slices(x).batch(8), None), "batches"),
]


@pytest.mark.parametrize("change, words", BAD_DATA)
def test_bad_data_is_refused_before_any_work(change, words, data):
    model = compiled("nuat")
    before = model.network.get_weights()
    with pytest.raises(ValueError, match=words) as raised:
        model.fit(*change(*data), verbose=0)
    assert "\n" not in str(raised.value)
    for weight, old in zip(model.network.get_weights(), before):
        np.testing.assert_array_equal(weight, old)
    with pytest.raises(ValueError):
        x, y = change(*data)
        model.fit(*data, validation_data=x if y is None else (x, y), verbose=0)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: tf_nuat.NuAT(network(last="softmax"), epsilon=0.1), "network ends in softmax"),
        (lambda: tf_nuat.NuAT("lenet", epsilon=0.1), "network is a str"),
        (lambda: tf_nuat.NuAT(network(), epsilon=-1), "epsilon is -1"),
        (lambda: tf_nuat.NuAT(network(), epsilon=8), "epsilon is 8"),
        (lambda: tf_nuat.NuAT(network(), epsilon=0.1, alpha=0.2), "alpha is 0.2"),
        (lambda: tf_nuat.NuAT(network(), epsilon=0.1, nuclear_weight=-1), "nuclear_weight is -1"),
        (lambda: tf_nuat.NuAT(network(), epsilon=0.1, ema_decay=1.0), "ema_decay is 1.0"),
        (lambda: tf_nuat.NuAT(network(), epsilon=0.1, seed=0.5), "seed is 0.5"),
        (lambda: tf_nuat.NuAT2(network(), epsilon=0.1, attack_ema_decay=2), "attack_ema_decay is 2"),
        (lambda: tf_nuat.NuATH(network(), epsilon=0.1, threshold=0), "threshold is 0"),
        (lambda: tf_nuat.NuAT(network(), epsilon=0.1).compile("sgd", loss="mse"), "loss is 'mse'"),
        (lambda: tf_nuat.optimizers.CoupledSGD(weight_decay=-1), "weight_decay is -1"),
        (lambda: tf_nuat.optimizers.CoupledSGD(momentum=1), "momentum is 1"),
    ],
)
def test_bad_options_are_named(make, words):
    with pytest.raises(ValueError, match=words) as raised:
        make()
    assert "\n" not in str(raised.value) and "allowed" in str(raised.value)


def test_sgd_without_momentum_is_gradient_descent():
    variable = keras.Variable([1.0, -2.0])
    optimizer = tf_nuat.optimizers.CoupledSGD(0.1, momentum=0.0, weight_decay=0.5)
    for _ in range(2):
        before = variable.numpy()
        optimizer.apply([tf.constant([1.0, 3.0])], [variable])
        np.testing.assert_allclose(variable, before - 0.1 * (np.array([1.0, 3.0]) + 0.5 * before), rtol=1e-6)
    assert optimizer.get_config()["momentum"] == 0.0
