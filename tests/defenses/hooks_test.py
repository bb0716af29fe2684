"""What the trainer relies on: `perturb` and `objective` change nothing, signatures are in full, hooks have defaults."""

import functools
import inspect

import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tests.helpers import linear
from tf_nuat.defenses.awp import WeightPerturbation

EVERY_DEFENSE = pytest.mark.parametrize("name", tf_nuat.DEFENSES)


def needed(name):
    """Returns what a defense cannot be made without."""
    return {"sources": [linear.network(2)]} if "sources" in tf_nuat.DEFENSES[name].NEEDS else {}


def made(name):
    return linear.compiled(tf_nuat.DEFENSES[name], **needed(name))


@functools.cache
def compiled(name):
    """Returns a defense in the middle of its training, one for all tests: what it remembers is not what it began with.

    Tests may train it further.
    """
    model = made(name)
    model.on_epoch_begin(1)
    for _ in range(2):
        model.train_step(tuple(map(tf.constant, linear.batch())))
    return model


def state(model):
    """Returns the values of all variables, and what else the model has as attributes."""
    return [variable.numpy() for variable in model.variables], dict(vars(model))


@EVERY_DEFENSE
def test_perturb_and_objective_change_nothing(name):
    """The network has no BatchNorm, whose moving statistics a forward in training mode moves."""
    model = compiled(name)
    x, y = map(tf.constant, linear.batch())
    variables, attributes = state(model)
    losses = []
    for _ in range(2):
        x_adv = model.perturb(x, y)
        losses.append(float(model.objective(x, x_adv, y)[0]))
    assert losses[0] == losses[1]
    after, attributes_after = state(model)
    assert attributes_after == attributes
    for variable, before in zip(after, variables):
        np.testing.assert_array_equal(variable, before)


@EVERY_DEFENSE
def test_a_step_is_made_of_the_hooks(name):
    """What `prepare` gives leaves images and loss as they are without it; the step descends along that loss."""
    model = compiled(name)
    x, y = map(tf.constant, linear.batch())
    shared = model.prepare(x, y)
    x_adv = model.perturb(x, y)
    np.testing.assert_array_equal(model.perturb(x, y, **shared), x_adv)
    loss, logits, *facts = model.objective(x, x_adv, y)
    assert float(model.objective(x, x_adv, y, **shared)[0]) == pytest.approx(float(loss), rel=1e-6)
    assert logits.shape == (len(x), linear.CLASSES) and len(facts) <= 1
    if isinstance(model, WeightPerturbation):
        return  # its loss is that at other weights
    found = model.gradients(x, x_adv, y, **shared)
    assert float(found.loss) == pytest.approx(float(loss), rel=1e-6)
    before = model.trained_network.get_weights()
    model.train_step((x, y))
    for weight, old, gradient in zip(model.trained_network.get_weights(), before, found.gradients):
        np.testing.assert_allclose(weight, old - linear.LEARNING_RATE * gradient.numpy(), atol=1e-6)


@EVERY_DEFENSE
def test_the_signature_has_every_argument(name):
    """Each argument that is shown is taken; none that is taken is hidden behind `**options`."""
    defense = tf_nuat.DEFENSES[name]
    parameters = inspect.signature(defense).parameters
    assert not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    assert {"network", "epsilon", "norm", "ema_decay", "seed", "name", *defense.NEEDS} <= set(parameters)
    required = inspect.Parameter.empty
    given = {argument: each.default for argument, each in parameters.items() if each.default is not required}
    model = defense(linear.network(), epsilon=0.1, **needed(name), **given)
    assert model.ema_decay == given["ema_decay"]
    with pytest.raises(TypeError, match="unheard_of"):
        defense(linear.network(), epsilon=0.1, **needed(name), unheard_of=1)


def test_signatures_of_classes_and_not_of_instances():
    assert list(inspect.signature(tf_nuat.AWP).parameters)[:6] == [
        "network",
        "awp_gamma",
        "epsilon",
        "steps",
        "step_size",
        "random_start",
    ]
    averaged = inspect.signature(tf_nuat.NuAT2WA).parameters
    assert (averaged["ema_decay"].default, averaged["attack_ema_decay"].default) == (0.9998, 0.99)
    assert averaged["nuclear_weight"].default == 1.0
    model = linear.compiled(tf_nuat.NuAT)
    assert "epsilon" not in inspect.signature(model).parameters


DEFAULTS = {
    **{name: {"ema_decay": 0.9998} for name in tf_nuat.DEFENSES if "_wa" in name},
    "trades": {"beta": 6.0},
    "mart": {"beta": 6.0},
    "gat": {"guidance_weight": 10.0, "alternate": True},
    "sat_r1": {"regularizer_weight": 0.2, "pairs": 1, "steps": 10},
    "sat_r2": {"regularizer_weight": 5.0},
    "sat_r3": {"regularizer_weight": 1.0, "tau": 0.4, "alpha": 0.0},
    "n_fgsm": {"noise_scale": 2.0},
    "grad_align": {"alignment_weight": 0.2},
    "elle": {"linearity_weight": 1000.0},
    "elle_a": {"linearity_weight": 4000.0, "sensitivity": 2.0, "decay": 0.99},
    "free_at": {"replays": 8},
    "bat": {"label": "main", "beta": 9.0, "gamma": 0.01},
    "awp": {"awp_gamma": 0.01},
    "awp_trades": {"awp_gamma": 0.005, "beta": 6.0},
}


def defaults(function, arguments):
    parameters = inspect.signature(function).parameters
    return {argument: parameters[argument].default for argument in arguments}


@pytest.mark.parametrize("name, published", DEFAULTS.items())
def test_defaults_are_those_of_the_papers(name, published):
    """Those of SAT are for MNIST."""
    assert defaults(tf_nuat.DEFENSES[name], published) == published


def test_the_optimizer_has_the_papers_momentum_and_weight_decay_by_default():
    published = {"momentum": 0.9, "weight_decay": 5e-4}
    assert defaults(tf_nuat.optimizers.CoupledSGD, published) == published


@pytest.mark.parametrize(
    "name, argument, share",
    [
        ("nuat", "alpha", 1 / 2),
        ("gat", "alpha", 1 / 2),
        ("rfgsm_at", "alpha", 1 / 2),
        ("sat_r2", "alpha", 1 / 30),
        ("sat_r3", "epsilon_low", 1 / 2),
        ("fbf", "step_size", 1.25),
        ("pgd_at", "step_size", 1 / 4),
        ("trades", "step_size", 1 / 4),
    ],
)
def test_a_length_that_is_not_given_is_a_share_of_epsilon(name, argument, share):
    model = tf_nuat.DEFENSES[name](linear.network(), epsilon=0.3)
    assert getattr(model, argument) == pytest.approx(0.3 * share)


def test_hooks():
    """Each has a default, and those that differ are known."""
    different = {
        name: (defense.NEEDS, defense.CHOSEN_BY, defense.MASKING_ALARM)
        for name, defense in tf_nuat.DEFENSES.items()
        if (defense.NEEDS, defense.CHOSEN_BY, defense.MASKING_ALARM) != ((), "val_robust_accuracy", True)
    }
    assert different == {
        "standard": ((), "val_accuracy", False),
        "eat": (("sources",), "val_robust_accuracy", True),
        "free_at": (("batch_size",), "val_robust_accuracy", True),
    }
    for name in tf_nuat.DEFENSES:
        model = made(name)
        replays = name == "free_at"
        assert model.fit_options() == ({"is_replayed": True} if replays else {}), name
        facts = {"extra_epochs"} if name.endswith("_h") else {"linearity_weight_jumps"} if name == "elle_a" else set()
        assert set(model.card_facts()) == facts, name
        assert model.replays == (8 if replays else 1), name
        assert len(model.replayed(tf.data.Dataset.range(2))) == 2 * model.replays, name
