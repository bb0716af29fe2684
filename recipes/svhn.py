"""SVHN, house numbers, epsilon 8/255: the settings of the paper that has them, and those of CIFAR-10 for the others.

    python -m recipes.svhn --defense nuat --out runs/svhn_nuat
    python -m recipes.svhn --defense pgd_at --out runs/svhn_pgd_at

Needs SVHN (TensorFlow Datasets downloads it, or finds `svhn_cropped` in TFDS_DATA_DIR). 200 epochs of PGD adversarial
training take many hours on a GPU. For a first look, add `--epochs 5`; on a processor, `--network resnet18 --width 16`.
Images are not augmented: a mirrored digit is not a digit, and a shifted one may leave the image.

Standard training, PGD-AT, TRADES and MART have the settings of Xing et al. (2022). They find that adversarial training
of PreAct-ResNet-18 is like standard training below an epsilon of 4.9/255. No paper here has settings or accuracies for
the other defenses. They use the settings of CIFAR-10, without tuning, at a tenth of the learning rates, as Xing et al.
do. N-FGSM, GradAlign and ELLE have the schedule of their papers: 15 epochs, with a warm-up of epsilon over the first 5
(GradAlign: 4, where the step of its authors' code, 1.25 epsilon, is cut to epsilon). GradAlign has the weight of that
code, ELLE the weights of CIFAR-10.
"""

import dataclasses

from recipes import command
from recipes.small_images import as_on_cifar10, phase_transition
from tf_nuat.training import AttackSpec, ScheduleSpec

MEASURES = {
    "pgd_20": AttackSpec("pgd", steps=20, step_size=2 / 255),
    "pgd_100": AttackSpec("pgd", steps=100, step_size=2 / 255),
}

_ON_CIFAR10 = as_on_cifar10("svhn", MEASURES, slower=10)


def _single_step(defense, *, warm=5, **defense_options):
    """PreAct-ResNet-18 for 15 epochs; the learning rate peaks at two fifths, and epsilon grows for `warm` epochs."""
    recipe = dataclasses.replace(
        _ON_CIFAR10[defense],
        epochs=15,
        schedule_epochs=15,
        learning_rate=ScheduleSpec("triangle", peak=0.05, up=6, down=9),
        source="the authors' code of Andriushchenko and Flammarion 2020, whose schedule N-FGSM and ELLE take; "
        "they crop images, here none is augmented",
    )
    return recipe.with_options(epsilon_share=ScheduleSpec("ramp", peak=1.0, epochs=warm), **defense_options)


RECIPES = {
    **_ON_CIFAR10,
    "n_fgsm": _single_step("n_fgsm"),
    "grad_align": _single_step("grad_align", warm=4, alignment_weight=2.5),
    "elle": _single_step("elle"),
    "elle_a": _single_step("elle_a"),
    **phase_transition("svhn", MEASURES, start=0.01),
}

if __name__ == "__main__":
    command.main(RECIPES, __doc__)
