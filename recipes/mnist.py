"""MNIST, epsilon 0.3: LeNet+ for 20 epochs.

    python -m recipes.mnist --defense nuat --out runs/mnist_nuat

Needs MNIST (TensorFlow Datasets downloads it, or finds it in TFDS_DATA_DIR). On two processor cores an epoch of NuAT
takes about 45 seconds. What to expect stands in results/README.md.

The NuAT paper does not publish lambda for MNIST; the value here was chosen on the validation split.
"""

from recipes import command
from tf_nuat.training import Recipe

EPOCHS = 20


def _recipe(defense, *, learning_rate=("triangle", {"peak": 0.05, "up": 8, "down": 12}), settings=None, **options):
    return Recipe(
        dataset="mnist",
        network="lenet_plus",
        defense=defense,
        epsilon=0.3,
        epochs=EPOCHS,
        learning_rate=learning_rate,
        defense_options=options,
        selection={"attack": "pgd", "steps": 20, "step_size": 0.03},
        selection_images=1000,
        measures={"pgd_100": {"attack": "pgd", "steps": 100, "step_size": 0.01}},
        **{"source": "papers: Sriramanan et al. 2021 (defense), Vivek and Babu 2020 (LeNet+)", **(settings or {})},
    )


def _sat(defense, clean, pgd_100, **options):
    """Settings and claims of Vivek and Babu (2020)."""
    return _recipe(
        defense,
        learning_rate=("divide", {"start": 0.01, "factor": 5, "epochs": [5, 10, 15]}),
        settings={
            "batch_size": 32,
            "claimed": {"clean": clean, "pgd_100": pgd_100},
            "source": "Vivek and Babu 2020, section 5 and table 3",
        },
        **options,
    )


_NUAT = {"alpha": 0.3, "nuclear_weight": ("ramp", {"peak": 1.0, "epochs": EPOCHS})}

RECIPES = {
    **{name: _recipe(name, **_NUAT) for name in ("nuat", "nuat_wa", "nuat2", "nuat2_wa", "nuat_h", "nuat_wa_h")},
    "sat_r1": _sat("sat_r1", 0.9815, 0.8876, regularizer_weight=0.2, pairs=1, steps=10),
    "sat_r2": _sat("sat_r2", 0.9823, 0.9003, regularizer_weight=5.0, alpha=0.01),
    "sat_r3": _sat("sat_r3", 0.9879, 0.8288, regularizer_weight=1.0, tau=0.4),
    "standard": _recipe("standard"),
}

if __name__ == "__main__":
    command.main(RECIPES, __doc__)
