"""What CIFAR-100 and SVHN share: the settings of Xing et al. (2022), and those of CIFAR-10."""

import dataclasses

from recipes import cifar10
from tf_nuat.training import Recipe, ScheduleSpec

_PGD_10 = {"steps": 10, "step_size": 2 / 255}


def phase_transition(dataset, measures, *, start):
    """Returns the recipes of Xing et al., section 5.1, a dict: PreAct-ResNet-18, 200 epochs, batches of 128 images.

    The learning rate begins at `start` and is divided by 10 after epochs 100 and 150. What the section leaves open is
    as in Rice et al.: SGD with momentum 0.9 and weight decay 5e-4, and the attack on CIFAR, 10 steps of 2/255.
    """

    def recipe(defense, **defense_options):
        return Recipe(
            dataset=dataset,
            network="preact_resnet18",
            defense=defense,
            epsilon=cifar10.EPSILON,
            epochs=200,
            learning_rate=ScheduleSpec("divide", start=start, factor=10, epochs=[100, 150]),
            defense_options=defense_options,
            batch_size=128,
            measures=measures,
            source="Xing et al. 2022, section 5.1, which trains with the code of Rice et al. 2020",
        )

    return {"standard": recipe("standard"), **{name: recipe(name, **_PGD_10) for name in ("pgd_at", "trades", "mart")}}


def as_on_cifar10(dataset, measures, *, slower=1):
    """Returns the recipes of CIFAR-10 for another dataset, a dict of defense to `Recipe`: not tuned, without claims.

    Args:
        dataset, measures: as in `Recipe`.
        slower: divisor of the learning rates.
    """

    def recipe(original):
        schedule = original.learning_rate
        return dataclasses.replace(
            original,
            dataset=dataset,
            learning_rate=schedule.with_peak(schedule.peak / slower),
            measures=measures,
            claimed={},
            source=f"the settings of CIFAR-10 ({original.source})",
        )

    return {name: recipe(original) for name, original in cifar10.RECIPES.items()}
