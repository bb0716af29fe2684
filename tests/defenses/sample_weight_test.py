"""Weights of images and of classes: they weigh the examples of the loss as Keras does, wherever they come from."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tests.helpers import linear
from tf_nuat import losses, parallel

X, Y = linear.batch(16)
WEIGHTS = np.linspace(0.0, 3.0, 16).astype(np.float32)
# Of the others a term belongs to the batch: the nuclear norm, a hinge, the pairs at its end.
PER_EXAMPLE = ["standard", "fgsm_at", "fbf", "free_at", "gat", "pgd_at", "trades", "mart", "awp", "bat", "sat_r2"]
PER_EXAMPLE += ["n_fgsm"]  # tests/defenses/single_step_test.py has those that draw in their objective


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return tuple(array[8 * index :][:8] for array in (X, Y, WEIGHTS))


FEW = {"free_at": {"replays": 2}, "pgd_at": {"steps": 2}}


def trained(name, *data, **options):
    """Returns the weights after two epochs in batches of 8, in order."""
    model = linear.compiled(tf_nuat.DEFENSES[name], **FEW.get(name, {}))
    model.run_eagerly = name in FEW  # to compile them takes longer than four steps
    model.fit(*data, batch_size=8 if len(data) == 2 else None, epochs=2, shuffle=False, verbose=0, **options)
    return [weight.copy() for weight in model.network.get_weights()]  # the memory is the model's, which ends here


def batches(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(8)


@pytest.mark.parametrize("name", PER_EXAMPLE)
def test_an_example_weighs_in_the_objective_as_often_as_it_is_told_to(name):
    """The weighted objective of a batch is the sum of weight times the objective of each image alone, over its size."""
    model = linear.compiled(tf_nuat.DEFENSES[name])
    x, y = tf.constant(X), tf.constant(Y)
    x_adv = model.perturb(x, y)
    parts = len(x_adv) // len(x)  # SAT-R2 has two adversarial images for each
    alone = [float(model.objective(x[i : i + 1], x_adv[i :: len(x)][:parts], y[i : i + 1])[0]) for i in range(len(x))]
    with parallel.weighing(tf.constant(WEIGHTS)):
        weighted = float(model.objective(x, x_adv, y)[0])
    assert weighted == pytest.approx(np.sum(WEIGHTS * alone) / len(x), rel=1e-5)
    assert float(model.objective(x, x_adv, y)[0]) == pytest.approx(np.mean(alone), rel=1e-5)


@pytest.mark.parametrize("name", ["pgd_at", "free_at", "sat_r1", "nuat_h"])
def test_weights_of_arrays_datasets_and_generators_train_the_same(name):
    expected = trained(name, X, Y, sample_weight=WEIGHTS)
    sources = [trained(name, batches(X, Y, WEIGHTS[:, None])), trained(name, batches(X, Y, WEIGHTS))]
    if name != "free_at":  # which replays datasets
        sources.append(trained(name, Batches()))
    for found in sources:
        for weight, other in zip(found, expected):
            np.testing.assert_allclose(weight, other, atol=1e-6)
    assert not np.allclose(trained(name, X, Y)[0], expected[0], atol=1e-3)


@pytest.mark.parametrize("name", ["pgd_at", "free_at", "nuat"])
def test_weights_of_classes_are_those_of_their_images(name):
    of_class = {0: 0.5, 2: 3.0}  # class 1: 1
    expected = trained(name, X, Y, sample_weight=np.array([0.5, 1.0, 3.0])[Y])
    for data in (X, Y), (batches(X, Y),), (X, np.eye(3)[Y]):
        for weight, other in zip(trained(name, *data, class_weight=of_class), expected):
            np.testing.assert_allclose(weight, other, atol=1e-6)


@pytest.mark.parametrize("name", ["standard", "free_at"])
def test_the_last_classes_may_have_no_weight(name):
    """It is then 1, wherever the labels come from: of a dataset Keras knows no class after the last one given."""
    expected = trained(name, X, Y, sample_weight=np.where(Y == 0, 0.5, 1.0))
    assert Y.max() == 2
    for data in (X, Y), (batches(X, Y),):
        for weight, other in zip(trained(name, *data, class_weight={0: 0.5}), expected):
            np.testing.assert_allclose(weight, other, atol=1e-6)


@pytest.mark.parametrize("name", ["standard", "nuat", "sat_r1", "sat_r3"])
def test_weights_of_1_change_nothing(name):
    for weight, other in zip(trained(name, X, Y, sample_weight=np.ones(16)), trained(name, X, Y)):
        np.testing.assert_allclose(weight, other, atol=1e-6)


def test_the_nuclear_norm_is_not_weighed():
    """With weights 0 it is all that is left."""
    model = linear.compiled(tf_nuat.NuAT, nuclear_weight=2.0)
    x, y = tf.constant(X), tf.constant(Y)
    x_adv = model.perturb(x, y)
    with parallel.weighing(tf.zeros(16)):
        loss = float(model.objective(x, x_adv, y)[0])
    change = model.network(x_adv) - model.network(x)
    assert loss == pytest.approx(float(losses.nuclear_penalty(change, 2.0)), rel=1e-6)


def test_the_pairs_of_r1_have_the_weights_of_their_images():
    """They are the last three of the batch. By hand; darker images stand in for those of the iterative attack."""
    model = linear.compiled(tf_nuat.SATR1, pairs=3, regularizer_weight=2.0)
    weights = model.network.get_weights()
    dark = 0.5 * X[13:]
    with parallel.weighing(tf.constant(WEIGHTS)):
        loss, *_ = model.objective(tf.constant(X), tf.constant(np.concatenate([X, dark])), tf.constant(Y))
    alone = [linear.cross_entropy(weights, X[i : i + 1], Y[i : i + 1])[0] for i in range(16)]
    distances = np.sum(((X[13:] - dark).reshape(3, -1) @ weights[0]) ** 2, axis=1)
    expected = np.mean(WEIGHTS * alone) + 2.0 * np.mean(WEIGHTS[13:] * distances)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_clean_loss_that_the_hybrid_watches_is_not_weighed():
    """A drop of the weights is no drop of the loss, and takes no second step."""
    model = linear.compiled(tf_nuat.NuATH)
    with parallel.weighing(tf.zeros(16)):
        *_, facts = model.objective(*map(tf.constant, (X, X, Y)))
    expected, *_ = linear.cross_entropy(model.network.get_weights(), X, Y)
    assert float(facts["clean_loss"]) == pytest.approx(expected, rel=1e-5)


def test_evaluation_and_weighted_metrics_are_those_of_keras():
    model = linear.compiled(tf_nuat.NuAT)
    model.compile("sgd", metrics=["accuracy"], weighted_metrics=[keras.metrics.SparseCategoricalAccuracy("weighted")])
    plain = linear.network()
    plain.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy("weighted")],
    )
    options = {"sample_weight": WEIGHTS, "batch_size": 8, "verbose": 0, "return_dict": True}
    expected = plain.evaluate(X, Y, **options)
    assert abs(expected["accuracy"] - expected["weighted"]) > 0.01
    assert model.evaluate(X, Y, **options) == pytest.approx(expected, rel=1e-5)
    history = model.fit(X, Y, batch_size=8, verbose=0, validation_data=(X, Y, WEIGHTS)).history
    plain.set_weights(model.network.get_weights())
    expected = {f"val_{name}": [value] for name, value in plain.evaluate(X, Y, **options).items()}
    for name, value in expected.items():
        assert history[name] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"sample_weight": -WEIGHTS}, "sample_weight has values from -3 to -?0; allowed: finite numbers, at least 0"),
        ({"sample_weight": np.full(16, np.nan)}, "sample_weight has values from nan to nan"),
        ({"sample_weight": WEIGHTS[:5]}, r"sample_weight has shape \(5,\) .* the 16 images"),
        ({"class_weight": {0: -1.0}}, r"class_weight\[0\] is -1.0; allowed: a number at least 0"),
        ({"class_weight": {7: 1.0}}, "class_weight is {7: 1.0}; allowed: a dict of classes, from 0 to 2"),
        ({"validation_data": (X, Y, -WEIGHTS)}, r"validation_data\[2\] has values from -3"),
    ],
)
@pytest.mark.parametrize("name", ["pgd_at", "free_at"])
def test_wrong_weights_are_refused_before_any_work(name, options, words):
    model = linear.compiled(tf_nuat.DEFENSES[name])
    before = model.network.get_weights()
    with pytest.raises(ValueError, match=words) as raised:
        model.fit(X, Y, verbose=0, **options)
    assert "\n" not in str(raised.value)
    np.testing.assert_array_equal(model.network.get_weights()[0], before[0])


@pytest.mark.parametrize("eagerly", [False, True])
def test_a_wrong_weight_stops_the_step_that_it_comes_in(eagerly):
    model = linear.compiled(tf_nuat.PGDAT)
    model.run_eagerly = eagerly
    weights = np.where(np.arange(16) < 8, 1.0, -1.0)
    words = "sample_weight has values from -1 to -1 in batch 2 of training; allowed: finite numbers, at least 0"
    with pytest.raises(ValueError, match=words):
        model.fit(batches(X, Y, weights), verbose=0)
    with pytest.raises(ValueError, match="sample_weight has values .* in batch 1 of evaluation"):
        model.evaluate(X, Y, sample_weight=weights, verbose=0)


def test_an_objective_that_weighs_nothing_refuses_weights():
    class Unweighted(tf_nuat.Standard):
        def objective(self, x, x_adv, y):
            logits = self.trained_network(x_adv, training=True)
            return tf.reduce_mean(losses.cross_entropy(logits, y)), logits

    model = linear.compiled(Unweighted)
    model.fit(X, Y, verbose=0)
    with pytest.raises(
        ValueError, match="sample_weight is given in batch 2 of training; allowed: None, .* Unweighted .*share_of_mean"
    ):
        model.fit(X, Y, sample_weight=WEIGHTS, verbose=0)
