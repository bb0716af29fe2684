"""`benchmarks.device`: runs on a processor, at a small size, and says what it was asked for."""

import json

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import flagsaver

import tf_nuat
from benchmarks import device, training


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("device") / "device.json"
    small = ["--dataset=digits", "--network=two_conv", "--width=2", "--precisions=float32", "--noxla"]
    saved = flagsaver.save_flag_values(device.FLAGS)
    assert device.command([*small, "--batch_size=32", "--rounds=1", "--seconds=0.001", f"--out={out}"]) == 0
    flagsaver.restore_flag_values(saved, device.FLAGS)
    return json.loads(out.read_text())


def test_one_run_says_steps_norms_input_and_traces(found):
    assert found["devices"] == ["CPU"] and found["not_run"] == {}
    steps = found["steps"]
    assert steps["forwards_of_a_step"] == 8.5 and steps["images_of_the_recipe"] == 100 * 39 * 32
    rate = steps["float32"]["images_per_second"]
    assert rate == pytest.approx(32 / (steps["float32"]["milliseconds"]["median"] / 1e3))
    assert steps["float32"]["hours_of_training"] == pytest.approx(100 * 39 * 32 / rate / 3600)
    assert set(found["nuclear_norm"]["milliseconds"]) == {"svd", "svd on the host", "eigenvalues"}
    assert all(rates["median"] > 0 for rates in found["images_per_second"].values())


def test_a_step_is_traced_once(found):
    assert found["traces"] == {"train_step": 1, "test_step": 1}


def test_eigenvalues_lose_what_svd_keeps(found):
    errors = found["nuclear_norm"]["distance_from_float64"]
    for name in errors:
        assert errors[name]["finite at 0"] and errors[name]["random"]["gradient, largest"] < 1e-5
    assert errors["svd"]["nearly of rank 1"]["gradient, largest"] < 0.01
    assert errors["eigenvalues"]["nearly of rank 1"]["gradient, largest"] > 0.1


def test_what_a_device_cannot_do_is_listed():
    def refused():
        return tf.debugging.Assert(False, ["no such kernel"])

    times, failed = device.in_turns({"one": lambda: lambda: np.zeros(1), "other": lambda: refused}, 1, 0.0)
    assert list(times) == ["one"] and "no such kernel" in failed["other"]


def test_what_fails_after_the_measuring_is_listed_too(monkeypatch, tmp_path):
    """A step in the last precision, a form of the norm, and the traces: the precision before takes its place."""

    def fails(*_):
        raise NotImplementedError("no such kernel")

    def build(recipe, splits, built=device.training.build):
        return fails() if recipe.precision == "mixed_bfloat16" else built(recipe, splits)

    monkeypatch.setattr(device.training, "build", build)
    monkeypatch.setitem(device.NORMS, "svd", fails)
    monkeypatch.setattr(device, "traces", fails)
    monkeypatch.setattr(device, "input_figures", lambda recipe, *_: {recipe.precision: {"median": 1.0}})
    small = ["--dataset=digits", "--network=two_conv", "--width=2", "--noxla", "--batch_size=32"]
    out = tmp_path / "device.json"
    saved = flagsaver.save_flag_values(device.FLAGS)
    try:
        assert device.command([*small, "--rounds=1", "--seconds=0.001", f"--out={out}"]) == 0
    finally:
        flagsaver.restore_flag_values(saved, device.FLAGS)
    found = json.loads(out.read_text())
    assert found["not_run"] == dict.fromkeys(("mixed_bfloat16", "svd", "traces"), "no such kernel")
    assert found["images_per_second"] == {"float32": {"median": 1.0}} and "traces" not in found
    norms = found["nuclear_norm"]
    assert set(norms["milliseconds"]) == set(norms["distance_from_float64"]) == {"svd on the host", "eigenvalues"}


def test_the_device_has_done_all_of_the_steps_before_the_time_is_taken(monkeypatch):
    """On a GPU a call returns before its work is done, and what it returns may not depend on all of that."""
    done = []
    monkeypatch.setattr(tf.test.experimental, "sync_devices", lambda: done.append("all"))
    training.seconds_per_step(lambda: done.append("asked"), 0.0)
    assert done == ["asked"] * 10 + ["all"]


def test_operations_of_resnet18_are_those_of_its_products():
    """1.11 GFLOP: 17 convolutions of 3x3, the projections of 1x1, the logits."""
    stages = [(32, 3, 64)] + [(32, 64, 64)] * 4
    for size, channels in ((16, 128), (8, 256), (4, 512)):
        stages += [(size, channels // 2, channels)] + [(size, channels, channels)] * 3
    products = sum(9 * size**2 * inputs * outputs for size, inputs, outputs in stages)
    products += sum(size**2 * channels // 2 * channels for size, channels in ((16, 128), (8, 256), (4, 512)))
    assert device.flops_of_forward(tf_nuat.networks.resnet18((32, 32, 3), 10)) == 2 * (products + 5120)
    assert 2 * (products + 5120) == pytest.approx(1.11e9, rel=0.005)
