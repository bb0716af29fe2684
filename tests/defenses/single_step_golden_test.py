"""N-FGSM, GradAlign and ELLE agree with the golden vectors: attack, regularizer, loss, gradients."""

import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tests.helpers import golden
from tf_nuat.attacks.ascent import input_gradient
from tf_nuat.defenses.grad_align import cosine

WEIGHTS = {"grad_align": "alignment_weight", "elle": "linearity_weight"}


@pytest.fixture(scope="module", params=golden.SHAPES)
def vectors(request):
    return golden.load(request.param, "single_step")


def build(vectors, name):
    options = {WEIGHTS[name]: float(vectors[f"{name}/weight"])} if name in WEIGHTS else {}
    network = golden.network(vectors, activation="softplus")
    return tf_nuat.DEFENSES[name](network, epsilon=float(vectors["epsilon"]), **options)


def float32(vectors, *names):
    return [tf.constant(vectors[name], tf.float32) for name in names]


def noise_of(vectors, name):
    """Returns the draws as `objective` takes them."""
    noise, a, b, mix = float32(vectors, "noise", "noise_a", "noise_b", "mix")
    epsilon = float(vectors["epsilon"])
    return {"grad_align": epsilon * noise, "elle": (epsilon * a, epsilon * b, mix)}[name]


@pytest.mark.parametrize("name", ["n_fgsm", "grad_align", "elle", "elle_a"])
def test_attack(vectors, name):
    model = build(vectors, name)
    (x, noise), y, start = float32(vectors, "x", "noise"), tf.constant(vectors["y"]), None
    if name == "n_fgsm":
        start = tf.clip_by_value(x + 2.0 * float(vectors["epsilon"]) * noise, 0.0, 1.0)
    x_adv = tf.function(model.perturb)(x, y, start=start).numpy()
    golden.assert_same_images(x_adv, vectors["n_fgsm/x_adv" if name == "n_fgsm" else "fgsm/x_adv"])


@pytest.mark.parametrize("name", ["n_fgsm", "grad_align", "elle"])
def test_objective_and_gradients(vectors, name):
    model = build(vectors, name)
    adversary = "n_fgsm/x_adv" if name == "n_fgsm" else "fgsm/x_adv"
    (x, x_adv), y = float32(vectors, "x", adversary), tf.constant(vectors["y"])
    options = {"noise": noise_of(vectors, name)} if name in WEIGHTS else {}

    @tf.function
    def loss_and_gradients():
        with tf.GradientTape() as tape:
            loss, *_ = model.objective(x, x_adv, y, **options)
        return loss, tape.gradient(loss, model.network.trainable_variables)

    loss, gradients = loss_and_gradients()
    np.testing.assert_allclose(loss, vectors[f"{name}/loss"], rtol=1e-4)
    golden.assert_same_gradients(gradients, vectors, name)


@pytest.mark.parametrize("name", ["grad_align", "elle"])
def test_batch_statistics_are_those_of_the_adversarial_images_first(vectors, name):
    """As a second network has them after forwards by hand. Dark images stand in for adversaries: the order shows."""
    model, by_hand = build(vectors, name), golden.network(vectors, activation="softplus")
    (x,), y, noise = float32(vectors, "x"), tf.constant(vectors["y"]), noise_of(vectors, name)
    x_adv = 0.2 * x
    model.objective(x, x_adv, y, noise=noise)
    if name == "grad_align":
        batches = [x_adv, x, x + noise]
    else:
        a, b, place = x + noise[0], x + noise[1], tf.reshape(noise[2], (-1, 1, 1, 1))
        batches = [x_adv, tf.concat([a, b, (1.0 - place) * a + place * b], axis=0)]
    for images in batches:
        by_hand(images, training=True)
    for statistic in ("bn1.running_mean", "bn2.running_mean"):
        expected = golden.value(by_hand, statistic)
        np.testing.assert_allclose(golden.value(model.network, statistic), expected, rtol=1e-4, atol=1e-5)


def test_the_cosines_and_the_linearity_error_alone(vectors):
    """Of weights so small that a loss hardly shows them."""
    (x,), y = float32(vectors, "x"), tf.constant(vectors["y"])
    model = build(vectors, "grad_align")
    found, is_known = cosine(
        *(input_gradient(model._in_training(y), images)[0] for images in (x, x + noise_of(vectors, "grad_align")))
    )
    np.testing.assert_allclose(found, vectors["grad_align/cosine"], atol=1e-4)
    assert np.all(is_known)
    squares = build(vectors, "elle").squared_errors(x, y, noise_of(vectors, "elle"))
    np.testing.assert_allclose(np.mean(squares), vectors["elle/linearity_error"], rtol=1e-3)
