"""SVHN, house numbers, epsilon 8/255: the settings of the paper that has them, and those of CIFAR-10 for the others.

    python -m recipes.svhn --defense nuat --out runs/svhn_nuat
    python -m recipes.svhn --defense pgd_at --out runs/svhn_pgd_at

Needs SVHN (TensorFlow Datasets downloads it, or finds `svhn_cropped` in TFDS_DATA_DIR). 200 epochs of PGD adversarial
training take many hours on a GPU; for a first look, `--epochs 5`, and on a processor `--network resnet18 --width 16`.
Images are not augmented: a mirrored digit is none, and a shifted one may leave the image.

Standard training, PGD-AT, TRADES and MART are as Xing et al. (2022) train them; below the epsilon of 4.9/255 that they
find, adversarial training of PreAct-ResNet-18 is like standard training. No paper here has settings for the rest, nor
accuracies: they are those of CIFAR-10 at a tenth of its learning rates, as the rates of Xing et al. are, tuned nowhere.
"""

from recipes import command
from recipes.small_images import as_on_cifar10, phase_transition
from tf_nuat.training import AttackSpec

MEASURES = {
    "pgd_20": AttackSpec("pgd", steps=20, step_size=2 / 255),
    "pgd_100": AttackSpec("pgd", steps=100, step_size=2 / 255),
}

RECIPES = {
    **as_on_cifar10("svhn", MEASURES, slower=10),
    **phase_transition("svhn", MEASURES, start=0.01),
}

if __name__ == "__main__":
    command.main(RECIPES, __doc__)
