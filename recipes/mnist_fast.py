"""MNIST, epsilon 0.3, in four minutes of two processor cores that multiply bfloat16: NuAT-WA on LeNet+.

    python -m recipes.mnist_fast --out runs/mnist_fast

The minutes include reading the data, training and validation. `--minutes 2` sets another budget. On a processor
without bfloat16 use `--precision float32`, which is several times faster there.

On two cores that take 40 to 45 ms for a step, four minutes are enough for six epochs. `results/mnist.md` has the
results of three seeds, and how the settings were chosen.
"""

import dataclasses

from recipes import command, mnist
from recipes.cifar10 import departures
from tf_nuat.training import ScheduleSpec

EPOCHS = 5  # for which the schedules below are written

RECIPES = {
    "nuat_wa": dataclasses.replace(
        mnist.RECIPES["nuat_wa"],
        minutes=4.0,
        epochs=EPOCHS,
        schedule_epochs=EPOCHS,
        precision="mixed_bfloat16",
        learning_rate=ScheduleSpec("triangle", peak=0.1, up=1.5, down=3.5),
        chosen_by="last",
        claimed={},
        source=f"ours, for this budget; {departures('nuat_wa')}",
    ).with_options(nuclear_weight=ScheduleSpec("ramp", peak=2.0, epochs=EPOCHS))
}

if __name__ == "__main__":
    command.main(RECIPES, __doc__)
