"""CIFAR-10, epsilon 8/255: the settings of the papers.

    python -m recipes.cifar10 --defense nuat --out runs/cifar10_nuat

Needs CIFAR-10 (TensorFlow Datasets downloads it, or finds it in TFDS_DATA_DIR). 100 epochs of ResNet-18 take hours on a
GPU and weeks on a processor; for a first look on a processor, add `--width 16 --epochs 5`. The card shows the claims of
the papers (Sriramanan et al. 2021, tables 1 and 2, under PGD; Vivek and Babu 2020, table 4) beside the measured
accuracies, if network and epsilon are those of the claim.

The `source` of each recipe lists how it departs from the authors' code. One departure is common to all: attacks run the
network in inference mode. The code of N-FGSM, GradAlign and ELLE uses training mode, as does that of NuAT and GAT for
f(x), the clean side of their attack.
"""

import dataclasses

from recipes import command
from tf_nuat.training import AttackSpec, Recipe, ScheduleSpec

EPSILON = 8 / 255
CLEAN_SIDE = "f(x) in the attack is taken in inference mode, the authors' in training mode"
LAMBDA = "lambda grows from step to step, the authors' from epoch to epoch"
AVERAGE = "the decay of the average is smaller while it is young, the authors' is 0.9998 from the first step"
_MEASURES = {
    "pgd_20": AttackSpec("pgd", steps=20, step_size=2 / 255),
    "pgd_500": AttackSpec("pgd", steps=500, step_size=2 / 255),
}


def _recipe(defense, epochs, learning_rate, *, network="resnet18", claimed=None, settings=None, **defense_options):
    return Recipe(
        dataset="cifar10",
        network=network,
        defense=defense,
        epsilon=EPSILON,
        epochs=epochs,
        learning_rate=learning_rate,
        defense_options=defense_options,
        measures=_MEASURES,
        claimed=claimed or {},
        **{"source": "Sriramanan et al. 2021", **(settings or {})},
    )


def _baseline(defense, clean=None, pgd_20=None, pgd_500=None, *, settings=None, **defense_options):
    """ResNet-18 for 100 epochs, with the claims of table 1a of Sriramanan et al.; its schedules are not published."""
    claimed = {"clean": clean, "pgd_20": pgd_20, "pgd_500": pgd_500}
    return _recipe(
        defense,
        100,
        _TRIANGLE_100,
        claimed={name: claim for name, claim in claimed.items() if claim is not None},
        settings={"source": "Sriramanan et al. 2021, table 1a; the schedule is our choice", **(settings or {})},
        **defense_options,
    )


_SAT = {
    "sat_r1": {"regularizer_weight": 0.2, "pairs": 1, "steps": 7},
    "sat_r2": {"regularizer_weight": 25.0, "alpha": 2 / 255},
    "sat_r3": {"regularizer_weight": 1.0, "tau": 0.6, "epsilon_low": 2 / 255, "alpha": 2 / 255},
}


def _sat(defense, clean=None, pgd_20=None, *, departs="", settings=None, **defense_options):
    """WRN-28-10 for 100 epochs, with the claims of table 4 of Vivek and Babu; the first learning rate is their code's.

    Their code divides it after epochs 25, 50 and 75, counted from 0: one epoch later than the paper says.
    """
    claimed = {"clean": clean, "pgd_20": pgd_20}
    return _recipe(
        defense,
        100,
        ScheduleSpec("divide", start=0.1, factor=5, epochs=[26, 51, 76]),
        network="wrn_28_10",
        claimed={name: claim for name, claim in claimed.items() if claim is not None},
        settings={
            "source": "; ".join(filter(None, ["Vivek and Babu 2020, section 5, table 4, and their code", departs])),
            **(settings or {}),
        },
        **defense_options,
    )


def _single_step(defense, source, *, peak=0.2, up=15, **defense_options):
    """PreAct-ResNet-18 for 30 epochs; the learning rate peaks after `up` of them."""
    return _recipe(
        defense,
        30,
        ScheduleSpec("triangle", peak=peak, up=up, down=30 - up),
        network="preact_resnet18",
        settings={"batch_size": 128, "source": source},
        **defense_options,
    )


_ELLE = (
    "Abad Rocamora et al. 2024, schedule of de Jorge et al. 2022; the authors' code takes two optimizer steps with "
    "each gradient, here one, and does not cut the FGSM image to [0, 1]"
)


def departures(defense):
    """Returns how a recipe of NuAT or GAT departs from the code of its authors, as text for `source`."""
    departs = {
        CLEAN_SIDE: not defense.startswith("nuat2"),
        LAMBDA: defense.startswith("nuat"),
        AVERAGE: "_wa" in defense,
    }
    return "; ".join(text for text, is_so in departs.items() if is_so)


def _nuat(defense, epochs, learning_rate, ramp, **options):
    """`ramp` is the pair (highest lambda, epoch at which it is reached)."""
    peak, reached = ramp
    return _recipe(
        defense,
        epochs,
        learning_rate,
        settings={"source": f"Sriramanan et al. 2021; schedules from its supplement; {departures(defense)}"},
        alpha=4 / 255,
        nuclear_weight=ScheduleSpec("ramp", peak=peak, epochs=reached),
        **options,
    )


# The authors name the last epoch before a drop; `drops` has the epoch after it.
_CYCLIC_STEP_100 = ScheduleSpec("cyclic_step", peak=0.1, up=40, down=50, freeze=80, drops=[86, 91])
_CYCLIC_STEP_55 = ScheduleSpec("cyclic_step", peak=0.1, up=20, down=20, freeze=35, drops=[41, 46])
_TRIANGLE_100 = ScheduleSpec("triangle", peak=0.1, up=25, down=75)
_TRIANGLE_80 = ScheduleSpec("triangle", peak=0.1, up=20, down=60)

_PGD_10 = {"steps": 10, "step_size": 2 / 255}
_TO_THE_END = {"chosen_by": "last"}


def _gat(defense, clean, pgd_20, pgd_500):
    """The published schedule divides the learning rate after epochs 70 and 85, and quadruples lambda after epoch 85."""
    return _recipe(
        defense,
        100,
        ScheduleSpec("divide", start=0.1, factor=10, epochs=[71, 86]),
        claimed={"clean": clean, "pgd_20": pgd_20, "pgd_500": pgd_500},
        settings={"source": f"Sriramanan et al. 2020; claims of 2021, table 1a; {departures(defense)}"},
        alpha=4 / 255,
        guidance_weight=ScheduleSpec("divide", start=10, factor=1 / 4, epochs=[86]),
    )


# The authors' settings for ResNet-18; those for WRN-34-10 differ.
_MART = {
    "batch_size": 128,
    "epochs": 120,
    "schedule_epochs": 120,
    "learning_rate": ScheduleSpec("divide", start=0.01, factor=10, epochs=[74, 89, 99]),
    "weight_decay": 3.5e-3,
    "source": "Wang et al. 2020, their code for ResNet-18; its steps are of 0.007 at 0.031, here of 2/255 at 8/255",
}

RECIPES = {
    "nuat": _nuat(
        "nuat", 100, _CYCLIC_STEP_100, (4.5, 90), claimed={"clean": 0.8101, "pgd_20": 0.5330, "pgd_500": 0.5297}
    ),
    "nuat_wa": _nuat(
        "nuat_wa", 100, _TRIANGLE_100, (4.0, 100), claimed={"clean": 0.8221, "pgd_20": 0.5414, "pgd_500": 0.5395}
    ),
    "nuat2": _nuat("nuat2", 55, _CYCLIC_STEP_55, (4.0, 55), network="wrn_34_10", claimed={"clean": 0.8476}),
    "nuat2_wa": _nuat("nuat2_wa", 80, _TRIANGLE_80, (4.0, 80), network="wrn_34_10", claimed={"clean": 0.8632}),
    # The paper has hybrids on WRN-34-10 only, and does not publish the threshold of the switch.
    "nuat_h": _nuat("nuat_h", 100, _CYCLIC_STEP_100, (4.5, 90)),
    "nuat_wa_h": _nuat("nuat_wa_h", 100, _TRIANGLE_100, (4.0, 100)),
    "sat_r1": _sat("sat_r1", 0.8468, 0.4681, departs="7 I-FGSM steps of table 8, 3 in the code", **_SAT["sat_r1"]),
    "sat_r2": _sat(
        "sat_r2", 0.8351, 0.4907, departs="R-FGSM ends within epsilon, in the code 2/255 beyond", **_SAT["sat_r2"]
    ),
    "sat_r3": _sat("sat_r3", 0.8095, 0.4013, **_SAT["sat_r3"]),
    "eat": _sat("eat", 0.9292, 0.0711, settings={**_TO_THE_END, "sources": ("wrn_28_10", "resnet34")}),
    "fgsm_at": _baseline("fgsm_at", 0.9289, 0.0, 0.0, settings=_TO_THE_END),
    "rfgsm_at": _baseline("rfgsm_at", 0.8924, 0.3502, 0.3417),
    "fbf": _recipe(
        "fbf",
        30,
        ScheduleSpec("triangle", peak=0.2, up=15, down=15),
        claimed={"clean": 0.8283, "pgd_20": 0.4641, "pgd_500": 0.4603},
        settings={"batch_size": 128, "source": "Wong et al. 2020; claims of Sriramanan et al. 2021, table 1a"},
    ),
    "n_fgsm": _single_step("n_fgsm", "de Jorge et al. 2022", noise_scale=2.0),
    "grad_align": _single_step(
        "grad_align",
        "the authors' code of Andriushchenko and Flammarion 2020",
        peak=0.3,
        up=12,
        alignment_weight=0.2,
    ),
    "elle": _single_step("elle", _ELLE, linearity_weight=1000.0),
    "elle_a": _single_step("elle_a", _ELLE, linearity_weight=4000.0),
    "free_at": _baseline("free_at", replays=8),
    "gat": _gat("gat", 0.8049, 0.5313, 0.5308),
    "gat_wa": _gat("gat_wa", 0.7947, 0.5440, 0.5437),
    "pgd_at": _baseline("pgd_at", 0.8112, 0.5308, 0.5289, **_PGD_10),
    "trades": _baseline("trades", 0.8147, 0.5273, 0.5261, **_PGD_10),
    "trades_wa": _baseline("trades_wa", 0.8019, 0.5298, 0.5288, **_PGD_10),
    "mart": dataclasses.replace(_baseline("mart", beta=5.0, **_PGD_10), **_MART),
    "awp": _baseline("awp", 0.8199, 0.5560, 0.5552, **_PGD_10),
    "awp_trades": _baseline(
        "awp_trades",
        settings={"source": "Wu et al. 2020, whose weights move from epoch 10 on, here from the first; schedule ours"},
        **_PGD_10,
    ),
    # This is R-MC-LA. `--epochs 200` gives R-MC-LA+, the longer training; `--options label=null` gives R-MC.
    "bat": _baseline(
        "bat",
        settings={"source": "Wang and Zhang 2019, whose claims are of WRN-28-10; network and schedule are our choice"},
        beta=9.0,
    ),
    "standard": _recipe("standard", 100, _TRIANGLE_100, claimed={"clean": 0.9230, "pgd_20": 0.0, "pgd_500": 0.0}),
}

if __name__ == "__main__":
    command.main(RECIPES, __doc__)
