"""The ordinarily trained network that `critical_epsilon` is given as a file, against Keras's own cross-entropy."""

import keras
import pytest

import tf_nuat
from tests.helpers import tiny
from tf_nuat import critical_epsilon, networks, training
from tf_nuat.critical_epsilon import training_runs

RECIPE = training.Recipe(
    dataset="digits", network="two_conv", defense="pgd_at", epsilon=0.1, epochs=1, learning_rate=0.05
)


def test_one_that_ends_in_softmax_has_the_losses_of_its_logits(tmp_path):
    """Fine-tuning begins with its logits. The softmax in their place has no loss below log(e + 9) - 1, or 1.46."""
    splits = tf_nuat.data.load("digits")
    keras.utils.set_random_seed(0)
    logits = tiny.network((8, 8, 1), 10)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    logits.compile(keras.optimizers.Adam(0.01), loss)
    logits.fit(*splits.arrays("train"), epochs=20, batch_size=32, verbose=0)
    image = keras.Input((8, 8, 1))
    keras.Model(image, keras.layers.Softmax()(logits(image))).save(tmp_path / "clean.keras")
    found = training_runs.clean_network(RECIPE, tmp_path, tmp_path / "clean.keras", splits, 10_000, {})
    for split, value in (("train", found.train_loss), ("test", found.test_loss)):
        x, y = splits.arrays(split)
        assert value == pytest.approx(float(loss(y, logits.predict(x, verbose=0))), rel=1e-4), split
    assert found.test_loss < 1.0 and found.test_accuracy > 0.9


def test_one_of_other_images_is_refused(tmp_path):
    networks.two_conv((4, 4, 1), 10).save(tmp_path / "clean.keras")
    with pytest.raises(ValueError, match=r"clean takes images of \(4, 4, 1\); allowed: \(8, 8, 1\)"):
        critical_epsilon.fast(RECIPE, tmp_path, epsilons=[0.1, 0.2], clean=tmp_path / "clean.keras", strategy="one")
