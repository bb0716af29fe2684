"""CIFAR-10, epsilon 8/255: the settings of the papers.

    python -m recipes.cifar10 --defense nuat --out runs/cifar10_nuat

Needs CIFAR-10 (TensorFlow Datasets downloads it, or finds it in TFDS_DATA_DIR). 100 epochs of ResNet-18 take hours on a
GPU and weeks on a processor; for a first look there, `--width 16 --epochs 5`. The accuracies that the papers claim
(Sriramanan et al. 2021, tables 1 and 2, under PGD; Vivek and Babu 2020, table 4; Wang and Zhang 2019, table 5 of the
supplement) stand in the card beside what was measured.
"""

from recipes import command
from tf_nuat.training import AttackSpec, Recipe, ScheduleSpec

EPSILON = 8 / 255
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
        **{"source": "Sriramanan et al. 2021; schedules from its supplement", **(settings or {})},
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


def _sat(defense, clean=None, pgd_20=None, *, settings=None, **defense_options):
    """WRN-28-10 for 100 epochs, with the claims of table 4 of Vivek and Babu; the first learning rate is not stated."""
    claimed = {"clean": clean, "pgd_20": pgd_20}
    return _recipe(
        defense,
        100,
        ScheduleSpec("divide", start=0.1, factor=5, epochs=[25, 50, 75]),
        network="wrn_28_10",
        claimed={name: claim for name, claim in claimed.items() if claim is not None},
        settings={"source": "Vivek and Babu 2020, section 5 and table 4", **(settings or {})},
        **defense_options,
    )


def _single_step(defense, peak=0.2, source="de Jorge et al. 2022, whose schedule ELLE takes", **defense_options):
    """PreAct-ResNet-18 for 30 epochs; the learning rate peaks in the middle."""
    return _recipe(
        defense,
        30,
        ScheduleSpec("triangle", peak=peak, up=15, down=15),
        network="preact_resnet18",
        settings={"batch_size": 128, "source": source},
        **defense_options,
    )


def _nuat(peak, epochs):
    return {"alpha": 4 / 255, "nuclear_weight": ScheduleSpec("ramp", peak=peak, epochs=epochs)}


_CYCLIC_STEP_100 = ScheduleSpec("cyclic_step", peak=0.1, up=40, down=50, freeze=80, drops=[85, 90])
_CYCLIC_STEP_55 = ScheduleSpec("cyclic_step", peak=0.1, up=20, down=20, freeze=35, drops=[40, 45])
_TRIANGLE_100 = ScheduleSpec("triangle", peak=0.1, up=25, down=75)
_TRIANGLE_80 = ScheduleSpec("triangle", peak=0.1, up=20, down=60)

# Lambda is four times as large after epoch 85 (Sriramanan et al. 2020).
_GAT = {"alpha": 4 / 255, "guidance_weight": ScheduleSpec("divide", start=10, factor=1 / 4, epochs=[85])}
_PGD_10 = {"steps": 10, "step_size": 2 / 255}
_TO_THE_END = {"chosen_by": "last"}

RECIPES = {
    "nuat": _recipe(
        "nuat",
        100,
        _CYCLIC_STEP_100,
        claimed={"clean": 0.8101, "pgd_20": 0.5330, "pgd_500": 0.5297},
        **_nuat(4.5, 90),
    ),
    "nuat_wa": _recipe(
        "nuat_wa",
        100,
        _TRIANGLE_100,
        claimed={"clean": 0.8221, "pgd_20": 0.5414, "pgd_500": 0.5395},
        **_nuat(4.0, 100),
    ),
    "nuat2": _recipe("nuat2", 55, _CYCLIC_STEP_55, network="wrn_34_10", claimed={"clean": 0.8476}, **_nuat(4.0, 55)),
    "nuat2_wa": _recipe("nuat2_wa", 80, _TRIANGLE_80, network="wrn_34_10", claimed={"clean": 0.8632}, **_nuat(4.0, 80)),
    # The paper has hybrids on WRN-34-10 only, with the switch's threshold unpublished.
    "nuat_h": _recipe("nuat_h", 100, _CYCLIC_STEP_100, **_nuat(4.5, 90)),
    "nuat_wa_h": _recipe("nuat_wa_h", 100, _TRIANGLE_100, **_nuat(4.0, 100)),
    "sat_r1": _sat("sat_r1", 0.8468, 0.4681, regularizer_weight=0.2, pairs=1, steps=7),
    "sat_r2": _sat("sat_r2", 0.8351, 0.4907, regularizer_weight=25.0),
    "sat_r3": _sat("sat_r3", 0.8095, 0.4013, regularizer_weight=1.0, tau=0.6),
    "eat": _sat("eat", 0.9292, 0.0711, settings={**_TO_THE_END, "sources": ("wrn_28_10", "resnet34")}),
    "fgsm_at": _baseline("fgsm_at", 0.9289, 0.0, 0.0, settings=_TO_THE_END),
    "rfgsm_at": _baseline("rfgsm_at", 0.8924, 0.3502, 0.3417),
    "fbf": _recipe(
        "fbf",
        30,
        ScheduleSpec("triangle", peak=0.2, up=12, down=18),
        claimed={"clean": 0.8283, "pgd_20": 0.4641, "pgd_500": 0.4603},
        settings={"source": "Wong et al. 2020; claims of Sriramanan et al. 2021, table 1a"},
    ),
    "n_fgsm": _single_step("n_fgsm", noise_scale=2.0),
    "grad_align": _single_step(
        "grad_align", 0.3, "the authors' code of Andriushchenko and Flammarion 2020", alignment_weight=0.2
    ),
    "elle": _single_step("elle", linearity_weight=1000.0),
    "elle_a": _single_step("elle_a", linearity_weight=4000.0),
    "free_at": _baseline("free_at", replays=8),
    "gat": _baseline("gat", 0.8049, 0.5313, 0.5308, **_GAT),
    "gat_wa": _baseline("gat_wa", 0.7947, 0.5440, 0.5437, **_GAT),
    "pgd_at": _baseline("pgd_at", 0.8112, 0.5308, 0.5289, **_PGD_10),
    "trades": _baseline("trades", 0.8147, 0.5273, 0.5261, **_PGD_10),
    "trades_wa": _baseline("trades_wa", 0.8019, 0.5298, 0.5288, **_PGD_10),
    "mart": _baseline("mart", **_PGD_10),
    "awp": _baseline("awp", 0.8199, 0.5560, 0.5552, **_PGD_10),
    "awp_trades": _baseline("awp_trades", **_PGD_10),
    # R-MC-LA; `--epochs 200` for R-MC-LA+, the longer training, and `--options label=null` for R-MC.
    "bat": _baseline(
        "bat",
        0.908,
        0.546,
        settings={"source": "Wang and Zhang 2019, supplement, table 5 (WRN-28-10); the schedule is our choice"},
        beta=9.0,
    ),
    "standard": _recipe("standard", 100, _TRIANGLE_100, claimed={"clean": 0.9230, "pgd_20": 0.0, "pgd_500": 0.0}),
}

if __name__ == "__main__":
    command.main(RECIPES, __doc__)
