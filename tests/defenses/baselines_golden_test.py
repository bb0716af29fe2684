"""GAT, FGSM-AT and R-FGSM-AT agree with the golden vectors."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import golden
from tf_nuat import optimizers
from tf_nuat.defenses.fgsm_at import FGSMAT, RFGSMAT
from tf_nuat.defenses.gat import GAT


def gat(vectors):
    model = GAT(
        golden.network(vectors),
        epsilon=float(vectors["epsilon"]),
        alpha=float(vectors["alpha"]),
        guidance_weight=float(vectors["gat/weight"]),
    )
    model.compile(optimizer=optimizers.CoupledSGD(0.05))
    model.optimizer.iterations.assign(1)  # a guided batch
    return model


@pytest.mark.parametrize("shape", golden.SHAPES)
def test_gat_attack(shape):
    vectors = golden.load(shape)
    x = tf.constant(vectors["x"], tf.float32)
    noise = tf.constant(vectors["alpha"] * vectors["bernoulli_sign"], tf.float32)
    start = tf.clip_by_value(x + noise, 0.0, 1.0)
    x_adv = tf.function(gat(vectors).perturb)(x, tf.constant(vectors["y"]), start=start).numpy()
    golden.assert_same_images(x_adv, vectors["gat/x_adv"])


@pytest.mark.parametrize("shape", golden.SHAPES)
def test_gat_objective_and_gradients(shape):
    vectors = golden.load(shape)
    model = gat(vectors)
    x, x_adv = (tf.constant(vectors[key], tf.float32) for key in ("x", "gat/x_adv"))
    with tf.GradientTape() as tape:
        loss, _ = model.objective(x, x_adv, tf.constant(vectors["y"]))
    np.testing.assert_allclose(loss, vectors["gat/loss"], rtol=1e-4)
    golden.assert_same_gradients(tape.gradient(loss, model.network.trainable_variables), vectors, "gat")


@pytest.mark.parametrize("shape", golden.SHAPES)
def test_batch_statistics_of_gat_are_those_of_the_adversarial_then_the_clean_batch(shape):
    """NuAT's vectors say what these two forwards, in this order, leave behind."""
    vectors = golden.load(shape)
    model = gat(vectors)
    x, x_adv = (tf.constant(vectors[key], tf.float32) for key in ("x", "nuat_ce_batch/x_adv"))
    model.objective(x, x_adv, tf.constant(vectors["y"]))
    for statistic in ("bn1.running_mean", "bn2.running_mean"):
        np.testing.assert_allclose(
            golden.value(model.network, statistic), vectors[f"nuat_ce_batch/after/{statistic}"], rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize("shape", golden.SHAPES)
@pytest.mark.parametrize("every", [1, 2])
def test_fgsm_at_and_rfgsm_at_attack(shape, every):
    vectors = golden.load(shape)
    epsilon, alpha = float(vectors["epsilon"]), float(vectors["sat_r2/alpha"])
    network, x, y = golden.network(vectors), tf.constant(vectors["x"], tf.float32), tf.constant(vectors["y"])
    start = tf.clip_by_value(x + tf.constant(alpha * np.sign(vectors["normal"]), tf.float32), 0.0, 1.0)
    for model, key in (
        (FGSMAT(network, epsilon=epsilon, every=every), "sat_r1/x_fgsm"),
        (RFGSMAT(network, epsilon=epsilon, alpha=alpha, every=every), "sat_r2/x_rfgsm"),
    ):
        x_adv = model.perturb(x, y, start=start).numpy()
        golden.assert_same_images(x_adv[::every], vectors[key][::every])
        if every == 2:
            np.testing.assert_array_equal(x_adv[1::2], x[1::2])
