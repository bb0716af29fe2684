"""ImageNet-100, 100 classes of ImageNet at 224x224, epsilon 8/255: ResNet-18 with the settings of the papers.

    python -m recipes.imagenet100 --defense nuat --data_dir /data/imagenet --out runs/imagenet100_nuat

DIR of `--data_dir` holds the folders train and val, in them a folder of images per class, named by its WordNet id; or
it is the folder of TensorFlow Datasets, in which imagenet2012 was prepared. Of all 1,000 classes those that are needed
are taken. 120 epochs need a GPU. The accuracies that the papers claim (Sriramanan et al. 2021, table 2, under PGD-500;
Vivek and Babu 2020, table 5, under PGD-20, on 100 classes of their own) stand in the card beside what was measured.
"""

from recipes import command
from tf_nuat.training import Recipe

EPOCHS = 120


def _recipe(defense, clean=None, pgd_500=None, *, settings=None, **defense_options):
    """120 epochs at 0.1, divided by 10 at 60 and 90, as published for GAT; claims of table 2 of Sriramanan et al."""
    claimed = {"clean": clean, "pgd_500": pgd_500}
    return Recipe(
        dataset="imagenet100",
        network="resnet18",
        network_options={"stem": "imagenet"},
        defense=defense,
        epsilon=8 / 255,
        defense_options=defense_options,
        measures={
            "pgd_20": {"attack": "pgd", "steps": 20, "step_size": 2 / 255},
            "pgd_500": {"attack": "pgd", "steps": 500, "step_size": 2 / 255},
        },
        selection_images=500,  # they stay in memory: 0.3 GB
        **{
            "epochs": EPOCHS,
            "learning_rate": ("divide", {"start": 0.1, "factor": 10, "epochs": [60, 90]}),
            "weight_decay": 1e-4,
            "claimed": {name: claim for name, claim in claimed.items() if claim is not None},
            "source": "Sriramanan et al. 2020 (schedule, GAT) and 2021 (NuAT, claims)",
            **(settings or {}),
        },
    )


def _sat(defense, clean, pgd_20, **defense_options):
    """100 epochs, with the claims of table 5 of Vivek and Babu; the first learning rate is not stated."""
    settings = {
        "epochs": 100,
        "learning_rate": ("divide", {"start": 0.1, "factor": 5, "epochs": [25, 50, 75]}),
        "weight_decay": 5e-4,
        "claimed": {"clean": clean, "pgd_20": pgd_20},
        "source": "Vivek and Babu 2020, section 5 and table 5",
    }
    return _recipe(defense, settings=settings, **defense_options)


# The peak of lambda is not published for ImageNet-100: it is that of CIFAR-10, and was tuned nowhere.
_NUAT = {"alpha": 4 / 255, "nuclear_weight": ("ramp", {"peak": 4.5, "epochs": 108})}
_NUAT_WA = {"alpha": 4 / 255, "nuclear_weight": ("ramp", {"peak": 4.0, "epochs": EPOCHS})}
# Lambda is seven times as large after epoch 90.
_GAT = {"alpha": 4 / 255, "guidance_weight": ("divide", {"start": 20, "factor": 1 / 7, "epochs": [90]})}
# Neither steps nor their size are published for ImageNet-100: they are those of CIFAR-10.
_PGD_10 = {"steps": 10, "step_size": 2 / 255}

RECIPES = {
    "nuat": _recipe("nuat", 0.6900, 0.3760, **_NUAT),
    "nuat_wa": _recipe("nuat_wa", 0.6840, 0.3868, **_NUAT_WA),
    "gat": _recipe("gat", 0.6798, 0.3746, **_GAT),
    "gat_wa": _recipe("gat_wa", 0.6802, 0.3802, **_GAT),
    # The schedule of FBF is that of CIFAR-10.
    "fbf": _recipe(
        "fbf",
        0.5732,
        0.2722,
        settings={
            "epochs": 30,
            "learning_rate": ("triangle", {"peak": 0.2, "up": 12, "down": 18}),
            "weight_decay": 5e-4,
            "source": "Wong et al. 2020 (CIFAR-10); claims of Sriramanan et al. 2021, table 2",
        },
    ),
    "rfgsm_at": _recipe("rfgsm_at", 0.7846, 0.1388),
    "sat_r1": _sat("sat_r1", 0.6160, 0.3052, regularizer_weight=0.05, pairs=1, steps=7),
    "sat_r2": _sat("sat_r2", 0.6156, 0.3035, regularizer_weight=3.0),
    "sat_r3": _sat("sat_r3", 0.6787, 0.2767, regularizer_weight=1.0, tau=0.6),
    "pgd_at": _recipe("pgd_at", 0.6862, 0.3656, **_PGD_10),
    "trades": _recipe("trades", 0.6288, 0.3724, **_PGD_10),
    "awp": _recipe("awp", 0.6484, 0.3604, **_PGD_10),
    "standard": _recipe("standard", 0.8144, 0.0),
}

if __name__ == "__main__":
    command.main(RECIPES, __doc__)
