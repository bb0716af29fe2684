"""CIFAR-10 on two processor cores: defenses side by side, with a shortened version of the papers' protocol.

    python -m recipes.cifar10_small --defense nuat --out runs/cifar10_small/nuat
    python -m recipes.cifar10_small --defense fbf --out runs/cifar10_small/fbf
    python -m tf_nuat.evaluate --checkpoint runs/cifar10_small/nuat/network.keras --samples 1000
    python -m recipes.orderings --cards runs/cifar10_small --out runs/cifar10_small

The third command runs AutoAttack. The last compares the runs of at least two defenses with table 1a of Sriramanan et
al. (2021).

The settings are those of `recipes.cifar10`, with these changes for every defense: ResNet-18 with 16 channels in its
first stage (the paper: 64; wide networks for NuAT2-WA and SAT-R2), the first 2,000 training images of each class (the
paper: 4,900), 8 epochs of batches of 64 (the paper: 100 epochs; FBF 30 of batches of 128, NuAT2-WA 80), all schedules
shortened in proportion, and training in bfloat16. Learning rates, weights of regularizers, noise and the steps of
attacks are unchanged, and not tuned for the shorter training. No paper claims accuracies for it.

The runs in results/ use a copy of CIFAR-10 whose images were stored as JPEG. They compare the defenses with each other;
their accuracies are not those on the original images. The `source` of the recipes, and so the pages, say this.

On two idle cores that multiply bfloat16, training takes from 5 minutes (standard) to about 25 (TRADES), estimated from
the time of single steps. On cores that do not, add `--precision float32`.
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
