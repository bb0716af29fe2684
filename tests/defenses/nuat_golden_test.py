"""NuAT, NuAT2 and NuAT2-WA agree with the golden vectors: attack, objective, gradients, BatchNorm, SGD."""

import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tests.helpers import golden
from tf_nuat import losses

# Vectors, class, optimizer steps taken before (NuAT's nuclear batches are the odd ones).
CASES = [
    ("nuat_nuclear_batch", "nuat", 1),
    ("nuat_ce_batch", "nuat", 0),
    ("nuat2", "nuat2", 0),
    ("nuat2_wa", "nuat2_wa", 1000),
]


def build(vectors, name, steps_taken):
    model = tf_nuat.DEFENSES[name](
        golden.network(vectors),
        epsilon=float(vectors["epsilon"]),
        alpha=float(vectors["alpha"]),
        nuclear_weight=float(vectors["nuclear_weight"]),
    )
    if getattr(model, "attack_network", None) is not None:
        model.attack_network.set_weights(golden.network(vectors, "ema_network").get_weights())
    model.compile(optimizer=tf_nuat.optimizers.CoupledSGD(0.05, momentum=0.9, weight_decay=0.0))
    model.optimizer.iterations.assign(steps_taken)
    return model


def inputs(vectors):
    x = tf.constant(vectors["x"], tf.float32)
    start = tf.clip_by_value(x + tf.constant(vectors["alpha"] * vectors["bernoulli_sign"], tf.float32), 0.0, 1.0)
    return x, tf.constant(vectors["y"]), start


@pytest.mark.parametrize("shape", golden.SHAPES)
def test_network_gives_the_published_logits(shape):
    vectors = golden.load(shape)
    logits = golden.network(vectors)(vectors["x"].astype(np.float32), training=False)
    np.testing.assert_allclose(logits, vectors["logits_inference"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", golden.SHAPES)
@pytest.mark.parametrize("key, name, steps_taken", CASES)
def test_attack(shape, key, name, steps_taken):
    vectors = golden.load(shape)
    model = build(vectors, name, steps_taken)
    x, y, start = inputs(vectors)
    x_adv = tf.function(model.perturb)(x, y, start=start).numpy()
    golden.assert_same_images(x_adv, vectors[f"{key}/x_adv"])
    # The statistics of BatchNorm are those of before: the attack was in inference mode.
    np.testing.assert_array_equal(
        golden.value(model.trained_network, "bn1.running_mean"), vectors["network/bn1.running_mean"].astype(np.float32)
    )


@pytest.mark.parametrize("shape", golden.SHAPES)
def test_the_nuclear_and_the_cross_entropy_batch_differ(shape):
    """Else agreement with either would say nothing about the alternation."""
    vectors = golden.load(shape)
    assert np.mean(np.abs(vectors["nuat_nuclear_batch/x_adv"] - vectors["nuat_ce_batch/x_adv"]) > 1e-5) > 0.02


@pytest.mark.parametrize("shape", golden.SHAPES)
@pytest.mark.parametrize("key, name, steps_taken", CASES)
def test_objective_gradients_and_batch_statistics(shape, key, name, steps_taken):
    vectors = golden.load(shape)
    model = build(vectors, name, steps_taken)
    network = model.trained_network
    x, y, _ = inputs(vectors)
    x_adv = tf.constant(vectors[f"{key}/x_adv"], tf.float32)

    with tf.GradientTape() as tape:
        loss, logits = model.objective(x, x_adv, y)
    gradients = tape.gradient(loss, network.trainable_variables)

    clean_loss = tf.reduce_mean(losses.cross_entropy(logits, y))
    np.testing.assert_allclose(clean_loss, vectors[f"{key}/ce_clean"], rtol=1e-4)
    np.testing.assert_allclose(loss, vectors[f"{key}/loss"], rtol=1e-4)
    nuclear = (loss - clean_loss) / vectors["nuclear_weight"]
    np.testing.assert_allclose(nuclear, vectors[f"{key}/nuclear_per_sample"], rtol=1e-3)

    golden.assert_same_gradients(gradients, vectors, key)

    for statistic in ("bn1.running_mean", "bn2.running_mean"):
        np.testing.assert_allclose(
            golden.value(network, statistic), vectors[f"{key}/after/{statistic}"], rtol=1e-3, atol=1e-5
        )
    for statistic in ("bn1.running_var", "bn2.running_var"):  # unbiased there, biased in Keras
        np.testing.assert_allclose(golden.value(network, statistic), vectors[f"{key}/after/{statistic}"], rtol=0.1)


@pytest.mark.parametrize("shape", golden.SHAPES)
def test_coupled_sgd(shape):
    vectors = golden.load(shape)
    network = golden.network(vectors)
    x, y, _ = inputs(vectors)
    optimizer = tf_nuat.optimizers.CoupledSGD(0.05, momentum=0.9, weight_decay=5e-4)
    for _ in range(5):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(losses.cross_entropy(network(x, training=True), y))
        optimizer.apply(tape.gradient(loss, network.trainable_variables), network.trainable_variables)
    for name in golden.TRAINABLE:
        moved = np.linalg.norm(vectors[f"sgd/after_5_steps/{name}"] - vectors[f"network/{name}"])
        error = np.linalg.norm(golden.value(network, name) - vectors[f"sgd/after_5_steps/{name}"])
        assert error <= 1e-3 * moved + 1e-6, name
