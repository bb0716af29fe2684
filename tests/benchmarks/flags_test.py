"""Flags that the benchmarks share: what is wrong is refused before anything is measured."""

import importlib

import pytest
from absl.testing import flagsaver

OF_A_FILE = ("attacks", "device", "judgements", "official", "pipeline", "precision", "strategies", "training")


def refused(name, arguments, words):
    """Checks that a benchmark ends in an error with `words`."""
    module = importlib.import_module(f"benchmarks.{name}")
    saved = flagsaver.save_flag_values(module.FLAGS)
    try:
        with pytest.raises(ValueError, match=words):
            (module.main if hasattr(module, "main") else module.command)(arguments)
    finally:
        flagsaver.restore_flag_values(saved, module.FLAGS)


@pytest.mark.parametrize("name", OF_A_FILE)
def test_a_folder_in_the_place_of_the_figures(name, tmp_path):
    given = ["--golden=nowhere"] if name == "official" else []
    refused(name, [*given, f"--out={tmp_path}"], "out is .*; allowed: a file for the figures, not a folder")


@pytest.mark.parametrize("shape", ["28x28x1", "28,28", "28,28,0", ""])
@pytest.mark.parametrize("name", ["attacks", "strategies", "training"])
def test_a_wrong_shape(name, shape):
    refused(name, [f"--shape={shape}"], f"shape is '{shape}'; allowed: height,width,channels as 28,28,1")


@pytest.mark.parametrize("name", ["attacks", "device", "strategies", "training"])
def test_a_network_that_there_is_not(name):
    refused(name, ["--network=lenet"], "network is 'lenet'; allowed: ")


def test_a_way_round_of_a_network_that_there_is_not(tmp_path):
    out = tmp_path / "out"
    refused("way_round", ["--networks=ties,nois", f"--out={out}"], "--networks is 'nois'; allowed: .*noise, quantised")
    assert not out.exists()
