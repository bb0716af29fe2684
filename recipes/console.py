"""Trains robust image classifiers, attacks them, and judges whether the robustness is real.

    tf-nuat train DATASET ...   python -m recipes.DATASET: digits, mnist, mnist_fast, mnist_nuat, cifar10,
                                cifar10_small, cifar100, svhn, imagenet100, imagenet, and custom, for your own images
    tf-nuat evaluate ...        python -m tf_nuat.evaluate: the accuracy of a network under attacks
    tf-nuat judge ...           python -m sanity.run: whether its robustness is real
    tf-nuat figures ...         python -m sanity.figures: several networks side by side
    tf-nuat compare ...         python -m recipes.compare: several defenses, trained and measured alike
    tf-nuat race ...            python -m recipes.race: several defenses, with the same minutes each
    tf-nuat networks ...        python -m tf_nuat.networks: robust networks, trained already

Each command takes the flags of its module; --help after the command lists them.
"""

import importlib.metadata
import os
import runpy
import sys

MODULES = {
    "evaluate": "tf_nuat.evaluate",
    "judge": "sanity.run",
    "figures": "sanity.figures",
    "compare": "recipes.compare",
    "race": "recipes.race",
    "networks": "tf_nuat.networks",
}
TRAINING = (
    "digits",
    "mnist",
    "mnist_fast",
    "mnist_nuat",
    "cifar10",
    "cifar10_small",
    "cifar100",
    "svhn",
    "imagenet100",
    "imagenet",
    "custom",
)


def main() -> None:
    """Runs the command that the first argument names, with the rest, as `python -m` would."""
    arguments = sys.argv[1:]
    first = arguments[1:2] if arguments[:1] == ["train"] else arguments[:1]
    if not arguments or first in (["--help"], ["-h"]):
        print(__doc__.strip())
        return
    if arguments[0] == "--version":
        print(importlib.metadata.version("tf-nuat"))
        return
    try:
        module, rest = module_of(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    _look_in_the_current_folder()
    sys.argv = ["tf-nuat", *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _look_in_the_current_folder() -> None:
    """Makes Python look for modules in the current folder, as `python -m` does, not in the folder of this program."""
    if sys.flags.safe_path:  # python -P and PYTHONSAFEPATH: in neither
        return
    if sys.path[:1] == [os.path.dirname(os.path.realpath(sys.argv[0]))]:
        del sys.path[0]
    sys.path.insert(0, os.getcwd())


def module_of(arguments: list[str]) -> tuple[str, list[str]]:
    """Returns the module that `arguments` name, and the arguments that are left for it.

    Raises:
        ValueError: they name none.
    """
    name, *rest = arguments
    if name == "train":
        if not rest or rest[0] not in TRAINING:
            given = f"is {rest[0]!r}" if rest else "is not given"
            raise ValueError(f"dataset of train {given}; allowed: {', '.join(TRAINING)}")
        return f"recipes.{rest[0]}", rest[1:]
    if name not in MODULES:
        raise ValueError(f"command is {name!r}; allowed: train, {', '.join(MODULES)}")
    return MODULES[name], rest
