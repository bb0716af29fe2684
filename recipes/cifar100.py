"""CIFAR-100, epsilon 8/255: the settings of the papers that have it, and those of CIFAR-10 for the other defenses.

    python -m recipes.cifar100 --defense nuat --out runs/cifar100_nuat
    python -m recipes.cifar100 --defense pgd_at --epsilon 0.0039 --options step_size=0.001 --out runs/cifar100_1
    python -m recipes.cifar100 --defense bat --options top=9 --epochs 200 --out runs/cifar100_bat9

Needs CIFAR-100 (TensorFlow Datasets downloads it, or finds it in TFDS_DATA_DIR). 200 epochs of PGD adversarial training
take many hours on a GPU. For a first look, add `--epochs 5`, and on a processor `--network resnet18 --width 16`.

Standard training, PGD-AT, TRADES and MART have the settings of Xing et al. (2022). They find that adversarial training
of PreAct-ResNet-18 is like standard training below an epsilon of 1/255. Bilateral training has the settings of Wang and
Zhang (2019). The card shows their claims (table 3 of the supplement): their CE is pgd here, their CW pgd_cw. `--options
top=9` gives their R-MC-LA9, `--epochs 200` their longer training "+". For both together they claim 68.2 %, and 26.7 %
under 20 steps. No paper has settings for the other defenses; they use those of CIFAR-10, without tuning.
"""

from recipes import cifar10, command
from recipes.small_images import as_on_cifar10, phase_transition
from tf_nuat.training import AttackSpec, Recipe, ScheduleSpec

MEASURES = {
    "fgsm": AttackSpec("fgsm"),
    "pgd_20": AttackSpec("pgd", steps=20, step_size=2 / 255),
    "pgd_100": AttackSpec("pgd", steps=100, step_size=2 / 255),
    "pgd_cw_100": AttackSpec("pgd_cw", steps=100, step_size=2 / 255),
}

RECIPES = {
    **as_on_cifar10("cifar100", MEASURES),
    **phase_transition("cifar100", MEASURES, start=0.1),
    "bat": Recipe(
        dataset="cifar100",
        network="wrn_28_10",
        defense="bat",
        epsilon=cifar10.EPSILON,
        epochs=100,
        learning_rate=ScheduleSpec("triangle", peak=0.1, up=25, down=75),
        defense_options={"beta": 11.0},
        measures=MEASURES,
        claimed={"clean": 0.687, "fgsm": 0.305, "pgd_20": 0.232, "pgd_100": 0.227, "pgd_cw_100": 0.206},
        source="Wang and Zhang 2019, supplement, table 3 (WRN-28-10); the schedule is our choice",
    ),
}

if __name__ == "__main__":
    command.main(RECIPES, __doc__)
