"""Training in 16 bits: gradients do not vanish, weights and losses stay in float32, and so does what is kept."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tests.helpers import small
from tests.helpers.killed import run
from tests.training.backup_test import RECIPE
from tf_nuat import training
from tf_nuat.attacks.ascent import cross_entropy_of, input_gradient
from tf_nuat.defenses.grad_align import cosine
from tf_nuat.models import precision
from tf_nuat.models.inference import inference
from tf_nuat.training import building, experiment

MIXED = precision.POLICIES[1:]
# One for each objective, and for each way to the gradients: of images, of moved weights, of a network and its average.
KINDS = ("awp_trades", "bat", "eat", "elle", "free_at", "gat", "grad_align", "mart", "nuat_wa", "nuat2_wa", "sat_r1")
KINDS += ("sat_r3", "trades")


def network():
    keras.utils.set_random_seed(1)
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(16, activation="relu")]
    return keras.Sequential([*layers, keras.layers.Dense(10)])


@pytest.fixture(scope="module")
def sure():
    """A network whose loss on most images is so small that the gradient's largest entry is none in float16."""
    trained = keras.models.clone_model(small.undefended())
    trained.set_weights([6**0.5 * weight for weight in small.undefended().get_weights()])
    return trained


def gradient_of_loss(logits_fn, x, y):
    return input_gradient(cross_entropy_of(logits_fn, tf.constant(y)), tf.constant(x))[0].numpy()


def test_the_gradients_of_an_attack_do_not_vanish_in_float16(sure):
    """Without scaling they do, on most images; with it they are those of float32."""
    x, y = small.sample(200)
    exact = gradient_of_loss(inference(sure), x, y)
    moved = np.max(np.abs(exact), axis=(1, 2, 3)) > 1e-25
    assert np.mean(moved) > 0.8
    half = precision.computing_in(sure, "mixed_float16")
    lost = gradient_of_loss(lambda v: half(v, training=False), x, y)
    scaled = gradient_of_loss(inference(half), x, y)
    assert np.mean(np.any(lost[moved] != 0, axis=(1, 2, 3))) < 0.5
    assert np.all(np.any(scaled[moved] != 0, axis=(1, 2, 3)))
    norms = [np.linalg.norm(each[moved].reshape(moved.sum(), -1), axis=1) for each in (scaled - exact, exact)]
    assert np.median(norms[0] / norms[1]) < 0.01
    assert np.mean(np.sign(scaled[moved]) == np.sign(exact[moved])) > 0.97


def test_a_compiled_attack_on_a_network_in_float16_is_that_on_float32(sure):
    x, y = small.sample(100)
    half = precision.computing_in(sure, "mixed_float16")
    for name, settings in {"fgsm": {}, "ifgsm": {"steps": 3}, "nuclear": {"weight": 1.0}}.items():
        attack = tf_nuat.ATTACKS[name]
        one, other = (attack(each, x, y, epsilon=0.1, **settings).numpy() for each in (sure, half))
        assert np.mean(np.abs(one - other) < 1e-3) > 0.95, name
        assert np.mean(np.abs(other - x) > 0.0) > 0.3, name


def test_gradients_that_grad_align_compares_do_not_vanish_in_float16():
    """Two classes have a chance of about 1e-8 against class 0: without scaling, float16 would round gradients to 0."""
    confident = network()
    *weights, _ = confident.get_weights()
    confident.set_weights([*weights, np.array([18.5, 0.0, 0.0, *[-100.0] * 7])])
    x, y = tf.constant(small.sample(32)[0]), tf.zeros(32, tf.int64)
    noisy = x + tf.random.stateless_uniform(x.shape, (1, 2), -0.3, 0.3)
    found = []
    for policy in ("float32", "mixed_float16"):
        model = tf_nuat.GradAlign(precision.computing_in(confident, policy), epsilon=0.3)
        found.append(cosine(*(input_gradient(model._in_training(y), images)[0] for images in (x, noisy))))
    (exact, _), (ours, is_known) = found
    assert np.mean(is_known) > 0.9
    assert np.median(np.abs(ours - exact)) < 0.1


@pytest.mark.parametrize(
    "name, policy",
    [
        *((name, "mixed_float16") for name in KINDS),
        ("nuat2_wa", "mixed_bfloat16"),
    ],
)
def test_every_kind_of_defense_trains_in_16_bits(name, policy):
    """From equal weights, a step is that of float32, as exactly as 16 bits allow."""
    x, y = small.sample(32)
    changes = []
    for each in ("float32", policy):
        start = network().get_weights()
        options = {"sources": [network()]} if name == "eat" else {}
        model = tf_nuat.DEFENSES[name](precision.computing_in(network(), each), epsilon=0.1, **options)
        optimizer = tf_nuat.optimizers.CoupledSGD(0.05)
        if each == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        model.compile(optimizer)
        if name == "nuat_wa":  # compiled, too
            loss = model.fit(x, y, batch_size=32, epochs=1, verbose=0, shuffle=False).history["loss"]
        else:
            loss = model.train_step((tf.constant(x), tf.constant(y)))["loss"]
        assert np.all(np.isfinite(loss))
        trained = model.trained_network
        assert all(weight.dtype == "float32" for weight in trained.weights)
        changes.append(trained.get_weights()[0] - start[0])
        assert trained.layers[1].compute_dtype == each.removeprefix("mixed_")
        assert trained.layers[-1].compute_dtype == "float32"
    exact, ours = changes
    assert np.linalg.norm(exact) > 0.0
    assert np.linalg.norm(ours - exact) < 0.25 * np.linalg.norm(exact)


@pytest.mark.parametrize("policy", MIXED)
def test_what_a_run_keeps_is_in_float32(policy, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "build_network", lambda *_: network())
    card = run(dataclasses.replace(RECIPE, precision=policy), tmp_path)
    for name in ("network.keras", "last.keras"):
        kept = keras.saving.load_model(tmp_path / name, compile=False)
        assert {layer.dtype_policy.name for layer in kept.layers} == {"float32"}, name
    assert card.precision == policy and card.history[-1]["accuracy"] > 0.2


def test_the_twin_is_the_network_where_nothing_is_to_change():
    trained = network()
    assert precision.computing_in(trained, "float32") is trained
    half = precision.computing_in(trained, "mixed_float16")
    assert precision.computing_in(half, "mixed_float16") is half
    back = precision.computing_in(half, "float32")
    for one, other in zip(back.get_weights(), trained.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_a_network_within_a_network_ends_in_float32():
    inner = network()
    inputs = keras.Input((8, 8, 1))
    outer = keras.Model(inputs, inner(inputs))
    twin = precision.computing_in(outer, "mixed_bfloat16")
    assert [layer.compute_dtype for layer in twin.layers[-1].layers[-2:]] == ["bfloat16", "float32"]
    x, _ = small.sample(8)
    np.testing.assert_allclose(twin(x), outer(x), atol=0.05)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision is 'half'; allowed: float32, mixed_bfloat16, mixed_float16"):
        dataclasses.replace(RECIPE, precision="half")


CPU_FLAGS = {
    "avx512f amx_bf16 amx_tile": ("bfloat16",),
    "avx2 avx512_bf16 avx512_fp16": ("bfloat16", "float16"),
    "avx2 fma avx512_bf16_of_tomorrow": (),
}


@pytest.fixture
def hardware(monkeypatch):
    """Returns a function that replaces this machine: its processor's flags, or the capability of its first GPU."""

    def replace(*, flags="", capability=None):
        gpus = [] if capability is None else ["a GPU"]
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
        details = {"compute_capability": capability}
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)
        monkeypatch.setattr(precision.pathlib.Path, "read_text", lambda path: f"processor: 0\nflags: {flags}\n")
        precision.multiplies.cache_clear()

    yield replace
    precision.multiplies.cache_clear()


@pytest.mark.parametrize("flags", CPU_FLAGS)
def test_which_types_a_processor_multiplies(flags, hardware, monkeypatch):
    hardware(flags=flags)
    assert tuple(name for name in ("bfloat16", "float16") if precision.multiplies(name)) == CPU_FLAGS[flags]
    assert precision.multiplies("float32")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")  # without oneDNN, TensorFlow does not use these instructions
    precision.multiplies.cache_clear()
    assert not precision.multiplies("bfloat16")


def test_which_types_a_gpu_multiplies(hardware):
    for capability, expected in {(6, 1): (), (7, 5): ("float16",), (8, 0): ("bfloat16", "float16")}.items():
        hardware(flags="amx_bf16 amx_fp16", capability=capability)
        found = tuple(name for name in ("bfloat16", "float16") if precision.multiplies(name))
        assert found == expected, capability


def test_a_machine_without_proc_is_not_known_to_multiply(hardware, monkeypatch):
    hardware(flags="amx_bf16")

    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(precision.pathlib.Path, "read_text", missing)
    assert not precision.multiplies("bfloat16")


def test_training_in_a_precision_that_the_machine_converts_warns(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(experiment.logging, "log_first_n", lambda level, line, count, *args: lines.append(line % args))
    for multiplied in ("float32", "bfloat16"), ("float32",):
        monkeypatch.setattr(precision, "multiplies", multiplied.__contains__)
        for policy in ("float32", "mixed_bfloat16"):
            training.check(dataclasses.replace(RECIPE, precision=policy), tmp_path)
    (line,) = lines
    assert line.startswith("precision is mixed_bfloat16, but no hardware for it was found: ")
    assert line.endswith("--precision float32")
