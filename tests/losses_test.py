"""The losses of attacks and defenses against their definitions."""

import numpy as np
import pytest
import tensorflow as tf

from tf_nuat import losses

CLASSES = 5


def ratio(z, y, target=None):
    """The losses of an example by their definitions, with a sort."""
    ordered = np.sort(z)[::-1]
    if target is None:
        return -(z[y] - np.max(np.delete(z, y))) / (ordered[0] - ordered[2])
    return -(z[y] - z[target]) / (ordered[0] - 0.5 * (ordered[2] + ordered[3]))


@pytest.mark.parametrize("one_hot", [False, True])
def test_the_ratios_are_those_of_the_definitions(one_hot):
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(64, CLASSES)).astype(np.float32)
    y, targets = generator.integers(0, CLASSES, (2, 64))
    labels = tf.constant(np.eye(CLASSES, dtype=np.float32)[y] if one_hot else y)
    found = losses.dlr(logits, labels), losses.targeted_dlr(logits, labels, targets)
    np.testing.assert_allclose(found[0], [ratio(z, *other) for z, *other in zip(logits, y)], rtol=1e-4)
    np.testing.assert_allclose(found[1], [ratio(z, *other) for z, *other in zip(logits, y, targets)], rtol=1e-4)
    for scale, shift in (1000.0, 0.0), (0.01, -3.0):
        moved = scale * logits + shift
        np.testing.assert_allclose(losses.dlr(moved, labels), found[0], rtol=2e-3)
        np.testing.assert_allclose(losses.targeted_dlr(moved, labels, targets), found[1], rtol=2e-3, atol=1e-3)


def test_equal_logits_have_finite_ratios():
    logits = tf.Variable(tf.zeros((2, CLASSES)))
    with tf.GradientTape() as tape:
        value = losses.dlr(logits, tf.constant([0, 1])) + losses.targeted_dlr(
            logits, tf.constant([0, 1]), tf.constant([1, 2])
        )
    np.testing.assert_array_equal(value, 0.0)
    assert np.all(np.isfinite(tape.gradient(value, logits)))


@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (4, 4)])
def test_nuclear_norm_and_its_gradient(shape):
    """Singular values are the roots of the eigenvalues of A^T A, and the gradient is A (A^T A)^(-1/2)."""
    matrix = np.random.default_rng(0).normal(size=shape)
    variable = tf.Variable(matrix, dtype=tf.float32)
    with tf.GradientTape() as tape:
        norm = losses.nuclear_norm(variable)
    short = matrix if shape[0] >= shape[1] else matrix.T
    eigenvalues, vectors = np.linalg.eigh(short.T @ short)
    np.testing.assert_allclose(norm, np.sqrt(eigenvalues).sum(), rtol=1e-5)
    expected = short @ (vectors / np.sqrt(eigenvalues)) @ vectors.T
    gradient = tape.gradient(norm, variable).numpy()
    np.testing.assert_allclose(gradient if shape[0] >= shape[1] else gradient.T, expected, atol=1e-3)


@pytest.mark.parametrize("matrix", [np.zeros((6, 4)), np.ones((6, 4)), np.eye(6)[:, :4], np.zeros((6, 6))])
def test_the_gradient_is_finite_at_repeated_and_zero_singular_values(matrix):
    variable = tf.Variable(matrix, dtype=tf.float32)
    with tf.GradientTape() as tape:
        norm = losses.nuclear_norm(variable)
    gradient = tape.gradient(norm, variable).numpy()
    # A subgradient of the nuclear norm: no longer than 1 in the spectral norm, and <G, A> = |A|_*.
    assert np.linalg.norm(gradient, 2) <= 1 + 1e-5
    np.testing.assert_allclose(np.sum(gradient * matrix), norm, atol=1e-5)
    np.testing.assert_allclose(norm, np.linalg.svd(matrix, compute_uv=False).sum(), atol=1e-5)
