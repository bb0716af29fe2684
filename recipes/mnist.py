"""MNIST, epsilon 0.3: LeNet+ for 20 epochs.

    python -m recipes.mnist --defense nuat --out runs/mnist_nuat

Needs MNIST (TensorFlow Datasets downloads it, or finds it in TFDS_DATA_DIR). On two processor cores an epoch of NuAT
takes about 45 seconds. What to expect stands in results/README.md.

The NuAT paper does not publish lambda for MNIST; the value here was chosen on the validation split.
"""

from recipes import command
from tf_nuat.training import Recipe

EPOCHS = 20


def _recipe(defense, **defense_options):
    return Recipe(
        dataset="mnist",
        network="lenet_plus",
        defense=defense,
        epsilon=0.3,
        epochs=EPOCHS,
        learning_rate=("triangle", {"peak": 0.05, "up": 8, "down": 12}),
        defense_options=defense_options,
        selection={"attack": "pgd", "steps": 20, "step_size": 0.03},
        selection_images=1000,
        measures={"pgd_100": {"attack": "pgd", "steps": 100, "step_size": 0.01}},
        source="papers: Sriramanan et al. 2021 (defense), Vivek and Babu 2020 (LeNet+)",
    )


_NUAT = {"alpha": 0.3, "nuclear_weight": ("ramp", {"peak": 1.0, "epochs": EPOCHS})}

RECIPES = {
    **{name: _recipe(name, **_NUAT) for name in ("nuat", "nuat_wa", "nuat2", "nuat2_wa", "nuat_h", "nuat_wa_h")},
    "standard": _recipe("standard"),
}

if __name__ == "__main__":
    command.main(RECIPES, __doc__)
