"""CIFAR-10 at the scale of two processor cores: defenses side by side, the papers' protocol shortened.

    python -m recipes.cifar10_small --defense nuat --out runs/cifar10_small/nuat
    python -m recipes.cifar10_small --defense fbf --out runs/cifar10_small/fbf
    python -m tf_nuat.evaluate --checkpoint runs/cifar10_small/nuat/network.keras --samples 1000
    python -m recipes.orderings --cards runs/cifar10_small --out runs/cifar10_small

The third command is AutoAttack. The last compares all runs, of two defenses at least, with table 1a of Sriramanan et
al. (2021).

Settings are those of `recipes.cifar10`, but for these, which are the same for every defense: ResNet-18 with 16 channels
in its first stage (64 in the paper; NuAT2-WA and SAT-R2 have wide networks there), the first 2,000 training images of
each class (4,900), 8 epochs of batches of 64 (100 epochs; FBF 30, of batches of 128, NuAT2-WA 80), with the times of
all schedules in proportion, and training in bfloat16. Learning rates, weights of regularizers, noise, and the steps of
attacks are as they are there, not tuned for the shorter training. No paper claims accuracies for it.

The runs in results/ read a copy of CIFAR-10 whose images were stored as JPEG: they compare the defenses with one
another, and are not figures on the original images. Their pages say so, by what a recipe here has as its source.

On two cores that multiply bfloat16 and do nothing else, training takes from 5 minutes (standard) to about 25 (TRADES),
by the time of single steps.
"""

import dataclasses

from recipes import cifar10, command
from tf_nuat.training import AttackSpec

NAMES = (
    "standard",
    "fgsm_at",
    "rfgsm_at",
    "fbf",
    "gat",
    "nuat",
    "nuat_wa",
    "nuat2_wa",
    "sat_r2",
    "pgd_at",
    "trades",
)

RECIPES = {
    name: dataclasses.replace(
        cifar10.RECIPES[name],
        network="resnet18",
        network_options={"width": 16},
        images_per_class=2000,
        epochs=8,
        batch_size=64,
        precision="mixed_bfloat16",
        measures={"pgd_50": AttackSpec("pgd", steps=50, step_size=2 / 255)},
        claimed={},
        source="recipes.cifar10, shortened; runs in results/ are on a copy of CIFAR-10 in JPEG, not on the original",
    )
    for name in NAMES
}

if __name__ == "__main__":
    command.main(RECIPES, __doc__)
