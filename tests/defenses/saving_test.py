"""A defense that Keras saves whole goes on as if it never had been: the next steps end with the same weights."""

import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tests.helpers import linear
from tf_nuat.defenses.network_model import NetworkModel

X, Y = linear.batch(16)
SAVED = [name for name in tf_nuat.DEFENSES if name != "eat"]


def network(*, draws=False):
    keras.utils.set_random_seed(3)
    layers = keras.layers
    inside = [layers.Dropout(0.3)] if draws else []
    return keras.Sequential(
        [
            keras.Input(linear.SHAPE),
            layers.Conv2D(3, 3),
            layers.BatchNormalization(),
            layers.Flatten(),
            *inside,
            layers.Dense(3),
        ]
    )


def compiled(defense, optimizer=None, *, run_eagerly=True, **options):
    """Returns a defense whose steps are not compiled unless told so: that takes longer than the few that are taken."""
    model = defense(options.pop("network", None) or network(), epsilon=0.1, **options)
    model.compile(optimizer or keras.optimizers.Adam(0.01), metrics=["accuracy"], run_eagerly=run_eagerly)
    return model


def fitted(model, epochs=2, **options):
    return model.fit(X, Y, batch_size=8, shuffle=False, epochs=epochs, verbose=0, **options)


def goes_on_alike(model, path, **how):
    model.save(path)
    other = keras.saving.load_model(path)
    assert type(other) is type(model) and other.name == model.name and other.trained_network is not model.network
    for each in model, other:
        fitted(each, **(how or {"epochs": 3, "initial_epoch": 2}))
    assert len(model.variables) == len(other.variables)
    for variable, expected in zip(
        [*other.variables, *other.optimizer.variables], [*model.variables, *model.optimizer.variables]
    ):
        np.testing.assert_array_equal(variable.numpy(), expected.numpy(), err_msg=variable.path)


@pytest.mark.parametrize("name", SAVED)
def test_what_is_loaded_has_every_argument(name):
    """Of the other things that make the next step, the defenses below have some of each kind."""
    options = {
        argument: each.default * 0.5
        for argument, each in inspect.signature(tf_nuat.DEFENSES[name]).parameters.items()
        if isinstance(each.default, float) and argument not in ("beta", "label_smoothing")
    }
    model = compiled(tf_nuat.DEFENSES[name], seed=5, **options)
    other = type(model).from_config(model.get_config())
    for argument in inspect.signature(type(model)).parameters:
        if argument != "network":
            assert getattr(other, argument) == getattr(model, argument), argument
    assert other.network.get_config()["layers"] == model.network.get_config()["layers"]


@pytest.mark.parametrize(
    "name, options",
    [
        ("nuat2_wa", {"nuclear_weight": tf_nuat.schedules.ramp(2.0, 4.0)}),
        ("nuat_h", {}),
        ("elle_a", {"sensitivity": 0.0}),
        ("free_at", {"replays": 3, "batch_size": 8}),
        ("awp_trades", {"awp_gamma": 0.02}),
        ("gat", {"network": "draws"}),
        (
            "pgd_at",
            {"steps": 2, "optimizer": keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2)},
        ),
    ],
)
def test_training_goes_on_to_the_bit(name, options, tmp_path):
    """Also where `fit` is not told which epoch is the first: the attack's average would have no memory in that."""
    options = {**options, **({"network": network(draws=True)} if "network" in options else {})}
    model = compiled(tf_nuat.DEFENSES[name], **options)
    fitted(model)
    goes_on_alike(model, tmp_path / "defense.keras", **({"epochs": 1} if name.startswith("nuat") else {}))
    assert int(model.epoch) == 2


def test_a_network_that_has_an_optimizer_of_its_own(tmp_path):
    own = network()
    own.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    own.fit(X, Y, verbose=0)
    model = compiled(tf_nuat.FGSMAT, tf_nuat.optimizers.CoupledSGD(tf_nuat.schedules.constant(0.1)), network=own)
    fitted(model)
    goes_on_alike(model, tmp_path / "defense.keras")


def test_the_checkpoint_of_the_best_epoch(tmp_path):
    model = compiled(tf_nuat.Standard, ema_decay=0.5, run_eagerly=False)
    path = tmp_path / "best.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(path, monitor="val_accuracy", save_best_only=True)
    fitted(model, epochs=1, validation_data=(X, Y), callbacks=[checkpoint])
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))


def test_the_inference_of_the_network_is_exported(tmp_path):
    model = compiled(tf_nuat.Standard, ema_decay=0.5)
    fitted(model)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.serve(tf.constant(X)), model.network(X, training=False), atol=1e-5)


def lowered(step):
    return 1.0 / (1.0 + tf.cast(step, tf.float32))


class Forgets(tf_nuat.Standard):
    def __init__(self, network, *, epsilon, temperature=1.0, **options):
        super().__init__(network, epsilon=epsilon, **options)


@pytest.mark.parametrize(
    "defense, options, words",
    [
        (tf_nuat.EAT, {"sources": [network()]}, "EAT cannot be saved whole: it has no attribute sources"),
        (tf_nuat.NuAT, {"nuclear_weight": lowered}, "it has the plain function lowered as nuclear_weight"),
        (tf_nuat.NuAT, {"nuclear_weight": lambda step: 1.0}, "it has the plain function <lambda> as nuclear_weight"),
        (Forgets, {}, "Forgets cannot be saved whole: it has no attribute temperature"),
    ],
)
def test_what_cannot_be_saved_whole_is_refused_before_training(defense, options, words, tmp_path):
    model = compiled(defense, **options)
    for refused in (
        lambda: fitted(model, callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "best.keras")]),
        lambda: model.save(tmp_path / "defense.keras"),
        model.get_config,
    ):
        with pytest.raises(ValueError, match=words) as raised:
            refused()
        assert "\n" not in str(raised.value) and "allowed: model.network.save(path)" in str(raised.value)
    assert int(model.optimizer.iterations) == 0
    weights_alone = keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", save_weights_only=True)
    fitted(model, epochs=1, callbacks=[weights_alone])


def test_a_registered_function_is_saved():
    @keras.saving.register_keras_serializable(package="tests")
    def halved(step):
        return 0.5

    model = compiled(tf_nuat.NuAT, nuclear_weight=halved)
    assert type(model).from_config(model.get_config()).nuclear_weight is halved


def test_the_file_of_an_earlier_version_is_loaded(tmp_path, monkeypatch):
    """It does not say that its last epoch has ended."""
    model = compiled(tf_nuat.Standard, ema_decay=0.5)
    fitted(model)
    with monkeypatch.context() as patch:
        patch.setattr(NetworkModel, "save_own_variables", keras.Model.save_own_variables)
        model.save(tmp_path / "defense.keras")
    loaded = keras.saving.load_model(tmp_path / "defense.keras")
    fitted(loaded, epochs=3, initial_epoch=2)
    assert int(loaded.epoch) == 2


def test_an_epoch_that_was_saved_before_its_end_is_begun_again(tmp_path):
    """The last batch of the second epoch is saved before that ends."""
    whole, weights = tmp_path / "batch.keras", tmp_path / "batch.weights.h5"
    model, loaded = (compiled(tf_nuat.NuAT2WA) for _ in range(2))
    checkpoint = functools.partial(keras.callbacks.ModelCheckpoint, save_freq=1)
    saves = [checkpoint(whole), checkpoint(weights, save_weights_only=True)]
    fitted(model, callbacks=saves)
    loaded.build_state()
    loaded.load_weights(weights)
    for each in keras.saving.load_model(whole), loaded:
        assert each.count_batches() == model.count_batches() == 4
        each.on_epoch_begin(0)  # as `fit` does
        assert int(each.epoch) == 1
