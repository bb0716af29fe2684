"""`passes` of each defense is what its training step does, counted as it runs."""

import numpy as np
import pytest

import tf_nuat
from tests.helpers import counting
from tf_nuat.models import averaging

NEEDS = {"eat": lambda network: {"sources": [averaging.copy_of(network)]}}

# What these do depends on the size of the batch.
SHARES = ("fgsm_at", "rfgsm_at", "eat", "sat_r1")
# All but those that are another one but for the default of `ema_decay`: the average takes no pass.
NAMES = [name for name in tf_nuat.DEFENSES if name not in ("gat_wa", "trades_wa", "nuat_wa", "nuat_wa_h")]


@pytest.mark.parametrize("name, size", [*((name, 5) for name in NAMES), *((name, 8) for name in SHARES)])
def test_passes_are_those_of_a_step(name, size):
    measured, claimed = measured_and_claimed(name, size)
    np.testing.assert_allclose(measured, claimed, atol=1e-6)


@pytest.mark.parametrize("name, gradients", [("nuat", 1.0), ("nuat2", 2.0), ("nuat_h", 1.0)])
def test_without_the_nuclear_norm_the_attack_does_not_forward_clean_images(name, gradients):
    measured, claimed = measured_and_claimed(name, 8, nuclear_weight=0)
    assert measured == claimed == (gradients, 2.0, 0.0)


def measured_and_claimed(name, size, **options):
    """Returns the passes of a step of a defense on batches of `size` images, as counted and as it says."""
    models = []

    def make_model(network):
        needed = NEEDS.get(name, lambda network: {})(network)
        models.append(tf_nuat.DEFENSES[name](network, epsilon=0.1, **needed, **options))
        models[0].compile(optimizer=tf_nuat.optimizers.CoupledSGD(0.01), metrics=["accuracy"])
        return models[0]

    return counting.passes(make_model, *counting.batch(size)), models[0].passes(size)
