"""CIFAR-10, epsilon 8/255: the settings of the NuAT paper, ResNet-18 (NuAT, NuAT-WA) and WRN-34-10 (NuAT2).

    python -m recipes.cifar10 --defense nuat --out runs/cifar10_nuat

Needs CIFAR-10 (TensorFlow Datasets downloads it, or finds it in TFDS_DATA_DIR). 100 epochs of ResNet-18 take hours on a
GPU and weeks on a processor; for a first look there, `--width 16 --epochs 5`. The paper's accuracies under PGD-500
(Sriramanan et al. 2021, tables 1 and 2) stand in the card beside what was measured.
"""

from recipes import command
from tf_nuat.training import Recipe

EPSILON = 8 / 255
_MEASURES = {
    "pgd_20": {"attack": "pgd", "steps": 20, "step_size": 2 / 255},
    "pgd_500": {"attack": "pgd", "steps": 500, "step_size": 2 / 255},
}


def _recipe(defense, epochs, learning_rate, *, network="resnet18", claimed=None, **defense_options):
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
        source="Sriramanan et al. 2021; schedules from its supplement",
    )


def _nuat(peak, epochs):
    return {"alpha": 4 / 255, "nuclear_weight": ("ramp", {"peak": peak, "epochs": epochs})}


_CYCLIC_STEP_100 = ("cyclic_step", {"peak": 0.1, "up": 40, "down": 50, "freeze": 80, "drops": [85, 90]})
_CYCLIC_STEP_55 = ("cyclic_step", {"peak": 0.1, "up": 20, "down": 20, "freeze": 35, "drops": [40, 45]})
_TRIANGLE_100 = ("triangle", {"peak": 0.1, "up": 25, "down": 75})
_TRIANGLE_80 = ("triangle", {"peak": 0.1, "up": 20, "down": 60})

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
    "standard": _recipe("standard", 100, _TRIANGLE_100, claimed={"clean": 0.9230, "pgd_20": 0.0, "pgd_500": 0.0}),
}

if __name__ == "__main__":
    command.main(RECIPES, __doc__)
