"""ImageNet, 1,000 classes at 224x224, epsilon 4/255: ResNet-50.

    python -m recipes.imagenet --defense nuat_wa --data_dir /data/imagenet --out runs/imagenet_nuat_wa
    python -m recipes.imagenet --defense nuat_wa --epochs 30 --batch_size 256 --data_dir /data/imagenet --out runs/short

`--data_dir` is a folder with the folders train and val, which have a folder of images per class, named by its WordNet
id. Or it is the folder of TensorFlow Datasets, with imagenet2012 prepared. 120 epochs of 1.2 million images need
several GPUs (`--strategy mirrored`) and days.

For ImageNet, the NuAT paper only gives network, epsilon and accuracies (Sriramanan et al. 2021, section 6.1: clean and
under GAMA-PGD, of NuAT-WA and FBF). The card shows these claims beside the measured accuracies. All other settings are
those of ImageNet-100, without tuning. No paper claims accuracies of SAT on ImageNet.
"""

from recipes import command, large_images
from tf_nuat.training import AttackSpec

RECIPES = large_images.recipes(
    "imagenet2012",
    "resnet50",
    4 / 255,
    measures={
        "pgd_20": AttackSpec("pgd", steps=20, step_size=1 / 255),
        "gama_pgd_100": AttackSpec("gama_pgd", steps=100),
    },
    claimed={
        "nuat_wa": {"clean": 0.5965, "gama_pgd_100": 0.3542},
        "fbf": {"clean": 0.5670, "gama_pgd_100": 0.2744},
    },
)

if __name__ == "__main__":
    command.main(RECIPES, __doc__)
