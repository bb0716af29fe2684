"""Distances between the logits of adversaries: closed forms on a linear network of two classes, and the callback."""

import json

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

import tf_nuat
from sanity.figures import FIGURES, Options
from tests.helpers import linear
from tf_nuat.training.logit_distances import LogitDistances, logit_distances


def two_classes():
    """Returns a linear network, whose gradient has one direction, and grey images, which nothing cuts."""
    network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    kernel = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
    network.set_weights([kernel, np.zeros(2, np.float32)])
    images = np.random.default_rng(1).uniform(0.4, 0.6, size=(30, 4, 4, 1)).astype(np.float32)
    return network, kernel, images, np.arange(30) % 2


def test_one_step_and_many_end_at_the_same_point_of_a_linear_network():
    network, _, images, labels = two_classes()
    found = logit_distances(network, images, labels, epsilon=0.1, alpha=0.0, batch_size=20)
    for distances in found.values():
        np.testing.assert_allclose(distances, np.zeros(30), atol=1e-5)


def test_the_distance_to_rfgsm_is_that_of_the_logits_of_its_random_step():
    """With alpha = epsilon R-FGSM is its random step: the logits differ by W^T (epsilon sign(g) - that step)."""
    network, kernel, images, labels = two_classes()
    randomized = np.asarray(tf_nuat.attacks.rfgsm(network, images, labels, epsilon=0.1, alpha=0.1, seed=3))
    towards = np.where(labels[:, None] == 0, 1.0, -1.0) * np.sign(kernel[:, 1] - kernel[:, 0])
    difference = 0.1 * towards - (randomized - images).reshape(30, 16)
    found = logit_distances(network, images, labels, epsilon=0.1, alpha=0.1, seed=3)["fgsm_rfgsm"]
    np.testing.assert_allclose(found, np.linalg.norm(difference @ kernel, axis=1), rtol=1e-4)
    assert np.min(found) > 0.01


def test_the_callback_measures_the_network_that_is_trained_at_the_steps_that_it_was_asked_for(tmp_path):
    model = linear.compiled(tf_nuat.FGSMAT)
    images, labels = linear.batch(40)
    callback = LogitDistances(images, labels, epsilon=0.1, every=3, path=tmp_path / "distances.json")
    untrained = logit_distances(model.network, images, labels, epsilon=0.1)
    model.fit(images, labels, batch_size=8, epochs=2, callbacks=[callback], verbose=0)
    assert callback.history["iteration"] == [0, 3, 6, 9]
    assert callback.history["fgsm_rfgsm"][0] == pytest.approx(np.mean(untrained["fgsm_rfgsm"]), rel=1e-5)
    error = np.std(untrained["fgsm_rfgsm"]) / np.sqrt(40)
    assert callback.history["fgsm_rfgsm_error"][0] == pytest.approx(error, rel=1e-5)
    assert callback.history["fgsm_rfgsm"][-1] != callback.history["fgsm_rfgsm"][0]
    kept = json.loads((tmp_path / "distances.json").read_text())
    assert kept == {"defense": "FGSMAT", "epsilon": 0.1, "images": 40, "history": callback.history}


def test_the_figure_shows_what_the_callback_wrote(tmp_path):
    path, figure = tmp_path / "distances.json", FIGURES["logit_distances"]
    model = linear.compiled(tf_nuat.FGSMAT)
    callback = LogitDistances(*linear.batch(40), epsilon=0.1, every=3, path=path)
    model.fit(*linear.batch(40), batch_size=8, callbacks=[callback], verbose=0)
    data = figure.measure([], Options(distances=[path]))
    assert data["trainings"] == [json.loads(path.read_text())] and isinstance(figure.draw(data), Figure)
    callback.history["iteration"].append(6)  # one more than there are distances
    path.write_text(json.dumps({**data["trainings"][0], "history": callback.history}))
    with pytest.raises(
        ValueError, match="--distances is .*, which is not a file of distances .*; allowed: what the callb"
    ):
        figure.measure([], Options(distances=[path]))


@pytest.mark.parametrize(
    ("changed", "said"), [({"epsilon": 0.0}, "epsilon is 0.0"), ({"every": 0}, "every is 0; allowed: a whole number")]
)
def test_bad_arguments_are_named(changed, said):
    with pytest.raises(ValueError, match=said):
        LogitDistances(*linear.batch(), **{"epsilon": 0.1, **changed})
