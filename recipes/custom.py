"""Your own network on your own images: any Keras classifier, any dataset, any defense.

    python -m recipes.custom --data images/ --network my_module:build --epsilon 0.03 --out runs/mine
    python -m recipes.custom --data images/ --input_shape 224,224,3 --augmentation resized_crop --network application \\
        --network_options name=MobileNetV2 --epsilon 0.0157 --batch_size 32 --out runs/mobilenet
    python -m recipes.custom --data my_module:splits --network network.keras --epsilon 0.03 --out runs/further

`--data` is a folder of class folders (directly, or in its train, validation and test folders), a folder that TensorFlow
Datasets prepared, a .csv file with a path and a label for each image, an .npz file of arrays (also those of MedMNIST
and `keras.datasets`), the name of a dataset, or `my_module:splits`, a function that returns {"train": ...,
"validation": ..., "test": ...}, `tf.data.Dataset`s of single images and labels. A part of the training images replaces
a missing split. `--class_names` is a file with the names of the classes, for a network whose outputs have another order
than the class folders. `--network` is a name, a file saved by Keras to train further, or `my_module:build`, a function
(input_shape, num_classes) that returns a Keras model from images in [0, 1] to logits, without a softmax. The command
removes the softmax of a network from a file; `--pixels` says what it takes. Modules are found in the current folder.

`application` fine-tunes a network of keras.applications, with its preprocessing. It begins with weights of ImageNet,
which Keras downloads, or with random ones (`--network_options name=MobileNetV2,weights=null`).

Cost: NuAT takes about three times as long per image as ordinary training (`--defense standard`), PGD adversarial
training eight times. On two processor cores, NuAT trains MobileNetV2 on four images of 224x224 a second: more than a
few hundred images need a GPU.

Expect a clean accuracy several points lower than without a defense, and a much lower one under attack: for CIFAR-10 at
0.03 the NuAT paper reports 81 % and 53 % after 100 epochs. Ten epochs are for a first look. If the network answers one
class for all images, lower `--learning_rate`, or begin with a smaller `--epsilon`. If training goes well, try more
`--epochs` and a higher rate. The run keeps the network of the epoch with the highest accuracy under attack on the
validation split, and tests it under 40 steps of PGD.
"""

import dataclasses

from absl import flags

from recipes import command
from tf_nuat import command_line, data, defenses
from tf_nuat.core import validation
from tf_nuat.data import splits
from tf_nuat.networks.pixels import FORMS
from tf_nuat.training import AttackSpec, Recipe, ScheduleSpec

EPOCHS = 10
# The ramp of CIFAR-10 with weight averaging. It grows from 0, so that training can begin.
_NUAT = {"nuclear_weight": ScheduleSpec("ramp", peak=4.0, epochs=EPOCHS)}

REQUIRED = {
    "data": "images to train on (--data images/)",
    "network": "what to train (--network my_module:build)",
    "epsilon": "the radius of the threat model, pixels being in [0, 1] (--epsilon 0.03)",
}


def flag_values():
    """Returns the flags: those of every recipe, and those for settings that a paper's recipe fixes."""
    values = command.with_shared_flags(flags.FlagValues())

    def flag(define, name, default, help_text):
        define(name, default, help_text, flag_values=values)

    flag(
        flags.DEFINE_string,
        "data",
        None,
        "images to train on: a folder, a .csv file of paths and labels, an .npz file, module:function, or "
        f"{', '.join(data.DATASETS)}; required",
    )
    flag(flags.DEFINE_string, "defense", "nuat", f"what to train with: {', '.join(defenses.DEFENSES)}")
    flag(
        flags.DEFINE_string,
        "pixels",
        None,
        f"what a network from a file takes: {', '.join(FORMS)}, or MEAN/DEVIATION of pixels in [0, 1] (default: 0..1)",
    )
    flag(flags.DEFINE_string, "output", None, "name of the output of the classes, where such a network has several")
    flag(flags.DEFINE_list, "import", None, "modules to import before it, where its layers are, with commas between")
    flag(flags.DEFINE_list, "input_shape", None, "height,width,channels of images read from files (default: the first)")
    flag(flags.DEFINE_string, "augmentation", None, f"of training images: {', '.join(splits.AUGMENTATIONS)}")
    order = "one a line, or a JSON list, or a JSON dict of indices and names"
    flag(flags.DEFINE_string, "class_names", None, f"file of the names of the classes in the order of outputs, {order}")
    flag(flags.DEFINE_string, "corrupt", None, f"what an unreadable image does: {', '.join(splits.CORRUPT)}")
    return values


def recipe_of(values):
    """Returns the recipe that the flags describe.

    Raises:
        ValueError: a flag is missing or wrong.
    """
    command_line.require(values, **REQUIRED)
    validation.one_of("defense", values.defense, defenses.DEFENSES)
    given = {name: getattr(values, name) for name in ("augmentation", "class_names", "corrupt")}
    given["input_shape"] = _input_shape(values)
    recipe = Recipe(
        dataset=data.check_name("data", values.data),
        data_options={name: value for name, value in given.items() if value is not None},
        network=values.network,
        defense=values.defense,
        defense_options=_NUAT if values.defense.startswith("nuat") else {},
        epsilon=values.epsilon,
        norm=values.norm or "linf",
        sources=tuple(values.sources or ()),
        epochs=EPOCHS,
        # A tenth of the papers' rate for training from scratch: a pre-trained network keeps what it has learned, and
        # networks of any size begin to learn on adversarial images of any kind.
        learning_rate=ScheduleSpec("triangle", peak=0.01, up=2, down=8),
        measures={"pgd_40": AttackSpec("pgd", steps=40)},  # by default, a step is a sixteenth of epsilon
    )
    recipe = command.with_flags(recipe, values)
    of_file = {"pixels": values.pixels, "outputs": values.output, "modules": getattr(values, "import")}
    of_file = {name: value for name, value in of_file.items() if value is not None}
    return dataclasses.replace(recipe, network_options={**recipe.network_options, **of_file})


def _input_shape(values):
    if values.input_shape is None:
        return None
    try:
        return tuple(map(int, values.input_shape))
    except ValueError:
        given = ",".join(values.input_shape)
        raise ValueError(f"input_shape is {given!r}; allowed: height,width,channels as 224,224,3") from None


def main(arguments):
    """Trains and measures what the flags describe; returns the exit status."""
    values = flag_values()
    command_line.parse(values, arguments, __doc__)
    return command.run(recipe_of(values), values)


if __name__ == "__main__":
    command_line.main(main)
