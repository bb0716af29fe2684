"""SAT-R1, SAT-R2 and SAT-R3 agree with the golden vectors: attack, objective, gradients."""

import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tests.helpers import golden, linear
from tf_nuat.attacks.rfgsm import random_step

NAMES = ("sat_r1", "sat_r2", "sat_r3")


def build(vectors, name):
    options = {
        "sat_r1": lambda: {"steps": int(vectors["sat_r1/ifgsm_steps"]), "pairs": 1},
        "sat_r2": lambda: {"alpha": float(vectors["sat_r2/alpha"])},
        "sat_r3": lambda: {"epsilon_low": float(vectors["sat_r3/epsilon_low"]), "tau": float(vectors["sat_r3/tau"])},
    }[name]()
    return tf_nuat.DEFENSES[name](
        golden.network(vectors),
        epsilon=float(vectors["epsilon"]),
        regularizer_weight=float(vectors.get(f"{name}/weight", 1.0)),
        **options,
    )


def adversaries(vectors, name):
    """Returns what the published attack made, in the order in which `perturb` returns it."""
    x, x_fgsm = vectors["x"], vectors["sat_r1/x_fgsm"]
    if name == "sat_r1":
        return np.concatenate([x_fgsm, vectors["sat_r1/x_ifgsm_last"]])
    if name == "sat_r2":
        return np.concatenate([x_fgsm, vectors["sat_r2/x_rfgsm"]])
    # No pixel lies on the border of [0, 1], so that FGSM moved each one along the sign of its gradient.
    x_low = np.clip(x + vectors["sat_r3/epsilon_low"] * np.sign(x_fgsm - x), 0.0, 1.0)
    return np.concatenate([x_low, x_fgsm])


@pytest.mark.parametrize("shape", golden.SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_attack(shape, name):
    vectors = golden.load(shape)
    model = build(vectors, name)
    x = tf.constant(vectors["x"], tf.float32)
    noise = tf.constant(vectors["sat_r2/alpha"] * np.sign(vectors["normal"]), tf.float32)
    start = tf.clip_by_value(x + noise, 0.0, 1.0) if name == "sat_r2" else None
    x_adv = tf.function(model.perturb)(x, tf.constant(vectors["y"]), start=start).numpy()
    golden.assert_same_images(x_adv, adversaries(vectors, name))


@pytest.mark.parametrize("shape", golden.SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_objective_and_gradients(shape, name):
    vectors = golden.load(shape)
    model = build(vectors, name)
    x, x_adv = (tf.constant(images, tf.float32) for images in (vectors["x"], adversaries(vectors, name)))
    with tf.GradientTape() as tape:
        loss, _ = model.objective(x, x_adv, tf.constant(vectors["y"]))
    np.testing.assert_allclose(loss, vectors[f"{name}/loss"], rtol=1e-4)
    golden.assert_same_gradients(tape.gradient(loss, model.network.trainable_variables), vectors, name)


def test_the_steps_of_r3_are_no_shorter_for_the_noise_that_they_start_from():
    """As in the authors' code, where small epsilon and noise are equal on CIFAR-10."""
    model = linear.compiled(tf_nuat.SATR3, epsilon_low=0.02, alpha=0.02)
    x, y = linear.batch()
    start = random_step(tf.constant(x), 0.02, model.draw_seed).numpy()
    _, gradient, _, _ = linear.cross_entropy(model.network.get_weights(), start, y)
    expected = [np.clip(start + size * np.sign(gradient), 0.0, 1.0) for size in (0.02, linear.EPSILON)]
    np.testing.assert_allclose(model.perturb(tf.constant(x), tf.constant(y)), np.concatenate(expected), atol=1e-6)


@pytest.mark.parametrize("shape", golden.SHAPES)
@pytest.mark.parametrize("name", ["sat_r1", "sat_r3"])
def test_without_the_regularizer_only_the_fgsm_images_are_made_and_trained_on(shape, name):
    vectors = golden.load(shape)
    model = tf_nuat.DEFENSES[name](golden.network(vectors), epsilon=float(vectors["epsilon"]), regularizer_weight=0.0)
    x, y = tf.constant(vectors["x"], tf.float32), tf.constant(vectors["y"])
    golden.assert_same_images(model.perturb(x, y), vectors["sat_r1/x_fgsm"])
    loss, _ = model.objective(x, tf.constant(vectors["sat_r1/x_fgsm"], tf.float32), y)
    # The golden loss is of FGSM and weaker images in one BatchNorm batch: this oracle is a forward of FGSM alone.
    logits = golden.network(vectors)(vectors["sat_r1/x_fgsm"].astype(np.float32), training=True)
    expected = -np.mean(np.take_along_axis(tf.nn.log_softmax(logits).numpy(), vectors["y"][:, None], axis=1))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
