"""The handwritten digits that scikit-learn ships (8x8 pixels), epsilon 0.2: no download, half a minute.

python -m recipes.digits --defense nuat --out runs/digits_nuat
"""

from recipes import command
from tf_nuat.training import Recipe

EPOCHS = 30


def _recipe(defense, **defense_options):
    return Recipe(
        dataset="digits",
        network="mnist_cnn",
        defense=defense,
        epsilon=0.2,
        epochs=EPOCHS,
        batch_size=32,
        learning_rate=("triangle", {"peak": 0.05, "up": 10, "down": 20}),
        defense_options=defense_options,
        measures={"pgd_40": {"attack": "pgd", "steps": 40}},
    )


_NUAT = {"nuclear_weight": ("ramp", {"peak": 4.0, "epochs": EPOCHS})}

RECIPES = {
    **{name: _recipe(name, **_NUAT) for name in ("nuat", "nuat_wa", "nuat2", "nuat2_wa", "nuat_h", "nuat_wa_h")},
    "standard": _recipe("standard"),
}

if __name__ == "__main__":
    command.main(RECIPES, __doc__)
