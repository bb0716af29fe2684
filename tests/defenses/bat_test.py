"""Bilateral training: the two rules for labels against the published equations, one clean forward a step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_nuat.defenses.bat import BAT, adversarial_label, most_confusing_class
from tf_nuat.optimizers import CoupledSGD

CLASSES = 6
BETA, GAMMA = 9.0, 0.01
RULES = ("main", "supplement")
EVERY_RULE = pytest.mark.parametrize("rule", RULES)


@pytest.fixture(scope="module")
def logits():
    return np.random.default_rng(0).normal(scale=3.0, size=(20, CLASSES)).astype(np.float32)


@pytest.fixture(scope="module")
def y():
    return np.arange(20) % CLASSES


def wrong_losses(logits, y):
    """Returns v_k of the wrong classes (B, K - 1), from the smallest, in float64."""
    v = np.log(np.sum(np.exp(logits.astype(np.float64)), axis=1, keepdims=True)) - logits
    return np.sort(np.stack([np.delete(row, label) for row, label in zip(v, y)]), axis=1)


def label_of(logits, y, rule, **options):
    return adversarial_label(tf.constant(logits), tf.constant(y), rule=rule, **options).numpy()


def split(label, y):
    """Returns the share of the true class (B,) and those of the wrong ones (B, K - 1)."""
    return label[np.arange(len(y)), y], np.stack([np.delete(row, true) for row, true in zip(label, y)])


@EVERY_RULE
@pytest.mark.parametrize("top", [None, 2])
def test_label_is_a_distribution_that_the_true_class_leads(rule, top, logits, y):
    label = label_of(logits, y, rule, top=top)
    true, wrong = split(label, y)
    np.testing.assert_allclose(label.sum(axis=1), 1.0, atol=1e-6)
    assert np.all(label >= 0.0)
    np.testing.assert_array_equal(label.argmax(axis=1), y)
    np.testing.assert_allclose(true, BETA * wrong.max(axis=1), rtol=1e-5)  # equation 3, as an equality


@EVERY_RULE
def test_a_wrong_class_with_a_larger_loss_has_more(rule, logits, y):
    _, wrong = split(label_of(logits, y, rule), y)
    _, wrong_logits = split(logits, y)
    order = np.argsort(-wrong_logits, axis=1)
    assert np.all(np.diff(np.take_along_axis(wrong, order, axis=1)) > 0)


def test_budget_of_the_main_rule(logits, y):
    true, _ = split(label_of(logits, y, "main"), y)
    v = wrong_losses(logits, y)
    budget = 1 / (1 + BETA * (v[:, -1] - v[:, 0] + GAMMA) / np.sum(v - v[:, :1] + GAMMA, axis=1))
    np.testing.assert_allclose(1 - true, budget, rtol=1e-4)


def test_budget_of_the_supplement(logits, y):
    true, _ = split(label_of(logits, y, "supplement"), y)
    v = wrong_losses(logits, y)
    np.testing.assert_allclose(1 - true, 1 / (1 + BETA * v[:, -1] / v.sum(axis=1)), rtol=1e-4)  # equation 4


def test_supplement_is_gradient_ascent(logits, y):
    """Equations 5 and 6: every wrong share is the same multiple of the class's loss."""
    _, wrong = split(label_of(logits, y, "supplement"), y)
    v = wrong_losses(logits, y)
    alpha = 1 / (v.sum(axis=1) + BETA * v[:, -1])
    np.testing.assert_allclose(np.sort(wrong, axis=1), alpha[:, None] * v, rtol=1e-4)


def test_share_of_the_most_confusing_class(logits, y):
    """Equations 7 and 8, and their order (9)."""
    v = wrong_losses(logits, y)
    n = CLASSES
    main = GAMMA / (v.sum(axis=1) - (n - 1) * (v[:, 0] - GAMMA) + BETA * (v[:, -1] - v[:, 0] + GAMMA))
    supplement = v[:, 0] / (v.sum(axis=1) + BETA * v[:, -1])
    rows = np.arange(len(y)), most_confusing_class(tf.constant(logits), tf.constant(y)).numpy()
    np.testing.assert_allclose(label_of(logits, y, "main")[rows], main, rtol=1e-3)
    np.testing.assert_allclose(label_of(logits, y, "supplement")[rows], supplement, rtol=1e-4)
    assert np.all(label_of(logits, y, "main")[rows] < label_of(logits, y, "supplement")[rows])


@EVERY_RULE
def test_top_classes_share_what_the_others_lose(rule, logits, y):
    _, everybody = split(label_of(logits, y, rule), y)
    _, two = split(label_of(logits, y, rule, top=2), y)
    _, wrong_logits = split(logits, y)
    order = np.argsort(wrong_logits, axis=1)
    two, everybody = (np.take_along_axis(wrong, order, axis=1) for wrong in (two, everybody))
    assert np.all(two[:, 2:] == 0.0)
    np.testing.assert_allclose(two[:, 0] / two[:, 1], everybody[:, 0] / everybody[:, 1], rtol=1e-4)
    for all_of_them in CLASSES - 1, CLASSES + 3:
        np.testing.assert_array_equal(label_of(logits, y, rule, top=all_of_them), label_of(logits, y, rule))


@EVERY_RULE
def test_labels_of_extreme_logits_are_finite(rule):
    """The loss of a class that is certain is 0 in float32: with two classes nobody else could have the budget."""
    for logits in ([[80.0, -80.0]], [[0.0, 0.0]], [[1e4, -1e4]]):
        for true in 0, 1:
            expected = np.full(2, 1 / (1 + BETA))
            expected[true] = BETA / (1 + BETA)
            np.testing.assert_allclose(label_of(np.float32(logits), [true], rule)[0], expected, rtol=1e-5)


@EVERY_RULE
def test_one_hot_labels_are_integers(rule, logits, y):
    one_hot = np.eye(CLASSES, dtype=np.float32)[y]
    np.testing.assert_array_equal(label_of(logits, one_hot, rule), label_of(logits, y, rule))
    np.testing.assert_array_equal(*(most_confusing_class(logits, tf.constant(labels)) for labels in (one_hot, y)))


def network(seed=1):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.BatchNormalization(momentum=0.5)(keras.layers.Conv2D(4, 3)(inputs))
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.Flatten()(keras.layers.ReLU()(x))))


def compiled(**options):
    model = BAT(network(), epsilon=0.1, **options)
    model.compile(CoupledSGD(0.5), metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def batch(y):
    images = np.random.default_rng(1).uniform(size=(20, 4, 4, 1)).astype(np.float32)
    return tf.constant(images), tf.constant(y)


@pytest.mark.parametrize("label", [None, *RULES])
def test_a_training_step_is_perturb_and_objective(label, batch):
    """The one clean forward of a step gives both what they compute when they are called alone."""
    x, labels = batch
    together, alone = compiled(label=label), compiled(label=label)
    tf.function(together.train_step, autograph=False)(batch)
    x_adv = alone.perturb(x, labels)
    with tf.GradientTape() as tape:
        loss, _ = alone.objective(x, x_adv, labels)
    alone.optimizer.apply(tape.gradient(loss, alone.trainable_variables), alone.trainable_variables)
    for one, other in zip(together.network.get_weights(), alone.network.get_weights()):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_nothing_is_kept_from_step_to_step(batch):
    """After training steps, compiled and not, the label is that of the network as it is now."""
    x, labels = batch
    model = compiled()
    objective = tf.function(model.objective)
    model.train_step(batch)
    tf.function(model.train_step, autograph=False)(batch)
    for _ in range(2):
        label = adversarial_label(model.network(x, training=False), labels)
        fresh = network()
        fresh.set_weights(model.network.get_weights())
        log_softmax = tf.nn.log_softmax(fresh(x, training=True))
        expected = -np.mean(np.sum(label * log_softmax, axis=1))
        assert float(objective(x, x, labels)[0]) == pytest.approx(expected, rel=1e-5)
        model.network.set_weights(network(seed=2).get_weights())


def test_the_label_is_a_constant(batch):
    """The gradient is that of a cross-entropy with fixed labels: it does not run back through the clean images."""
    x, labels = batch
    model = compiled()
    label = adversarial_label(model.network(x, training=False), labels)
    x_adv = model.perturb(x, labels)
    copy = network()
    with tf.GradientTape() as tape:
        expected = tf.reduce_mean(-tf.reduce_sum(label * tf.nn.log_softmax(copy(x_adv, training=True)), axis=1))
    expected = tape.gradient(expected, copy.trainable_variables)
    with tf.GradientTape() as tape:
        loss, _ = model.objective(x, x_adv, labels)
    for gradient, target in zip(tape.gradient(loss, model.trainable_variables), expected):
        np.testing.assert_allclose(gradient, target, atol=1e-6)


def test_the_step_raises_the_most_confusing_class(batch):
    x, labels = batch
    model = compiled()
    target = most_confusing_class(model.network(x, training=False), labels).numpy()
    x_adv = model.perturb(x, labels, start=x).numpy()
    assert np.all(np.abs(x_adv - x) <= 0.1 + 1e-6) and np.mean(np.abs(x_adv - x)) > 0.08

    def probability(images):
        return tf.nn.softmax(model.network(images, training=False)).numpy()[np.arange(20), target]

    assert np.all(probability(x_adv) > probability(x))


def test_starts_are_uniform_in_the_ball(batch):
    """One step of epsilon from there: half of the pixels end at the bound, the others uniformly inside."""
    x = tf.fill((200, 4, 4, 1), 0.5)
    change = compiled().perturb(x, tf.zeros(200, tf.int32)).numpy() - 0.5
    at_bound = np.abs(np.abs(change) - 0.1) < 1e-6
    assert np.mean(at_bound) == pytest.approx(0.5, abs=0.05)
    inside = np.abs(change[~at_bound]) / 0.1
    np.testing.assert_allclose(np.quantile(inside, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.05)


@pytest.mark.parametrize(
    "option, value", [("label", "both"), ("beta", 0.5), ("gamma", 0.0), ("top", 0), ("epsilon", 0.0)]
)
def test_wrong_options_are_named(option, value):
    with pytest.raises(ValueError, match=f"{option} is {value!r}; allowed"):
        BAT(network(), **{"epsilon": 0.1, option: value})
