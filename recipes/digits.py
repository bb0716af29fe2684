"""The handwritten digits that scikit-learn ships (8x8 pixels), epsilon 0.2: no download, half a minute.

python -m recipes.digits --defense nuat --out runs/digits_nuat
"""

from recipes import command
from tf_nuat.training import AttackSpec, Recipe, ScheduleSpec, Stage

EPOCHS = 30


def _recipe(defense, *, settings=None, **defense_options):
    return Recipe(
        dataset="digits",
        network="mnist_cnn",
        defense=defense,
        epsilon=0.2,
        epochs=EPOCHS,
        batch_size=32,
        learning_rate=ScheduleSpec("triangle", peak=0.05, up=10, down=20),
        defense_options=defense_options,
        measures={"pgd_40": AttackSpec("pgd", steps=40)},
        **(settings or {}),
    )


def _stages(names, epochs):
    stages = tuple(Stage(name, length, _SAT[name]) for name, length in zip(names, epochs))
    return _recipe("+".join(names), settings={"stages": stages})


_NUAT = {"nuclear_weight": ScheduleSpec("ramp", peak=4.0, epochs=EPOCHS)}

_SAT = {
    "sat_r1": {"regularizer_weight": 0.2},
    "sat_r2": {"regularizer_weight": 5.0},
    "sat_r3": {"regularizer_weight": 1.0, "tau": 0.4},
}
_TO_THE_END = {"chosen_by": "last"}

RECIPES = {
    **{name: _recipe(name, **_NUAT) for name in ("nuat", "nuat_wa", "nuat2", "nuat2_wa", "nuat_h", "nuat_wa_h")},
    **{name: _recipe(name, **options) for name, options in _SAT.items()},
    "sat_r1+sat_r3": _stages(("sat_r1", "sat_r3"), (10, 20)),
    "sat_r3+sat_r2": _stages(("sat_r3", "sat_r2"), (20, 10)),
    "eat": _recipe("eat", settings={**_TO_THE_END, "sources": ("lenet_plus", "ensemble_d")}),
    "fgsm_at": _recipe("fgsm_at", settings=_TO_THE_END),
    "rfgsm_at": _recipe("rfgsm_at"),
    "free_at": _recipe("free_at", replays=4),
    **{
        name: _recipe(name)
        for name in (
            "fbf",
            "n_fgsm",
            "grad_align",
            "elle",
            "elle_a",
            "gat",
            "gat_wa",
            "pgd_at",
            "trades",
            "trades_wa",
            "mart",
            "awp",
            "awp_trades",
            "bat",
            "standard",
        )
    },
}

if __name__ == "__main__":
    command.main(RECIPES, __doc__)
