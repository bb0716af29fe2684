"""`benchmarks.attacks`: what is wrong is refused before anything is measured."""

import keras
import pytest
from absl.testing import flagsaver

from benchmarks import attacks


@pytest.mark.parametrize(
    "name, words",
    [
        ("none.keras", "checkpoint is .*none.keras', which is not a file"),
        ("softmax.keras", "checkpoint ends in softmax; allowed: logits"),
    ],
)
def test_a_wrong_checkpoint_is_refused_before_anything_is_measured(name, words, monkeypatch, tmp_path):
    softmax = keras.layers.Dense(10, activation="softmax")
    network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), softmax])
    network.save(tmp_path / "softmax.keras")
    refused(monkeypatch, [f"--checkpoint={tmp_path / name}", "--dataset=digits"], words)


def refused(monkeypatch, arguments, words):
    """Checks that the command ends in an error with `words`, and measures nothing."""
    monkeypatch.setattr(attacks, "pgd_parts", lambda *_: pytest.fail("measured"))
    saved = flagsaver.save_flag_values(attacks.FLAGS)
    try:
        with pytest.raises(ValueError, match=words):
            attacks.main(arguments)
    finally:
        flagsaver.restore_flag_values(saved, attacks.FLAGS)
