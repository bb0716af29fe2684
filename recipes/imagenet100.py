"""ImageNet-100, 100 classes of ImageNet at 224x224, epsilon 8/255: ResNet-18 with the settings of the papers.

    python -m recipes.imagenet100 --defense nuat --data_dir /data/imagenet --out runs/imagenet100_nuat

`--data_dir` is a folder with the folders train and val, which have a folder of images per class, named by its WordNet
id. Or it is the folder of TensorFlow Datasets, with imagenet2012 prepared. The recipe takes the classes that it needs
from all 1,000. 120 epochs need a GPU. The card shows the papers' claims (Sriramanan et al. 2021, table 2, under
PGD-500; Vivek and Babu 2020, table 5, under PGD-20, on 100 classes of their own) beside the measured accuracies.
"""

from recipes import command, large_images
from tf_nuat.training import AttackSpec

RECIPES = large_images.recipes(
    "imagenet100",
    "resnet18",
    8 / 255,
    measures={
        "pgd_20": AttackSpec("pgd", steps=20, step_size=2 / 255),
        "pgd_500": AttackSpec("pgd", steps=500, step_size=2 / 255),
    },
    claimed={
        "nuat": {"clean": 0.6900, "pgd_500": 0.3760},
        "nuat_wa": {"clean": 0.6840, "pgd_500": 0.3868},
        "gat": {"clean": 0.6798, "pgd_500": 0.3746},
        "gat_wa": {"clean": 0.6802, "pgd_500": 0.3802},
        "fbf": {"clean": 0.5732, "pgd_500": 0.2722},
        "rfgsm_at": {"clean": 0.7846, "pgd_500": 0.1388},
        "sat_r1": {"clean": 0.6160, "pgd_20": 0.3052},
        "sat_r2": {"clean": 0.6156, "pgd_20": 0.3035},
        "sat_r3": {"clean": 0.6787, "pgd_20": 0.2767},
        "pgd_at": {"clean": 0.6862, "pgd_500": 0.3656},
        "trades": {"clean": 0.6288, "pgd_500": 0.3724},
        "awp": {"clean": 0.6484, "pgd_500": 0.3604},
        "standard": {"clean": 0.8144, "pgd_500": 0.0},
    },
)

if __name__ == "__main__":
    command.main(RECIPES, __doc__)
