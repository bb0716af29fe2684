"""The flags that describe a network's file, and functions that read a network with them."""

import hashlib
import os
import pathlib
from collections.abc import Callable
from typing import Any

from absl import flags

from tf_nuat.networks import Adapted, adapt, by_name
from tf_nuat.networks.outputs import AUTO
from tf_nuat.networks.pixels import FORMS

FILE = "a file that Keras saved (.keras, .h5), or the folder of a SavedModel"


def define(values: flags.FlagValues) -> None:
    """Adds the flags to `values`."""

    def flag(define: Callable[..., Any], name: str, default: Any, help_text: str) -> None:
        define(name, default, help_text, flag_values=values)

    flag(
        flags.DEFINE_string,
        "pixels",
        "0..1",
        f"what the checkpoint takes: {', '.join(FORMS)} (as preprocess_input of keras.applications makes them), or "
        "MEAN/DEVIATION of pixels in [0, 1], as 0.5,0.5,0.5/0.25,0.25,0.25. The threat model is in [0, 1] in any case",
    )
    flag(flags.DEFINE_string, "output", AUTO, "name of the output of the classes, where a network has several")
    flag(
        flags.DEFINE_string,
        "network",
        None,
        "architecture of a checkpoint that is a file of weights: the .json of model.to_json(), another checkpoint, or "
        "module:function, which is called without arguments",
    )
    flag(flags.DEFINE_list, "import", [], "modules to import first, where layers of your own are, with commas between")
    flag(
        flags.DEFINE_bool,
        "trust",
        False,
        "run code that a network's file has: Lambda layers, graphs that reach for files. It may do whatever you may "
        "do: only for files whose maker you know",
    )


def read(argument: str, path: str | os.PathLike, values: Any, *, say: Callable[[str], None] = print) -> Adapted:
    """Returns the checkpoint at `path` as a classifier of images in [0, 1] that returns logits, and what was changed.

    Args:
        argument: what to call it in an error.
        path: a file or a folder.
        values: flags, those of `define` among them.
        say: gets a line for each change.

    Raises:
        ValueError: as `tf_nuat.networks.adapt`.
    """
    architecture = values.network
    if architecture is not None:
        modules = getattr(values, "import")
        architecture = by_name.architecture("--network", architecture, modules=modules, trust=values.trust)
    return _adapted(argument, path, values, say, pixels=values.pixels, outputs=values.output, architecture=architecture)


def read_other(argument: str, path: str | os.PathLike, values: Any, *, say: Callable[[str], None] = print) -> Adapted:
    """Returns a network other than the checkpoint, a surrogate: the flags of pixels and outputs are not for it."""
    return _adapted(argument, path, values, say)


def made_of(path: str | os.PathLike, values: Any) -> list[str | None]:
    """Returns what distinguishes the network that `read` makes of a checkpoint from others with the same weights."""
    given = values.network
    architecture = sha256(given) if given and pathlib.Path(given).exists() else given
    return [sha256(path), values.pixels, values.output, architecture]


def sha256(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file or, for the folder of a SavedModel, of its files in the order of their names."""
    path = pathlib.Path(path)
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    return hashlib.sha256(b"".join(each.read_bytes() for each in files)).hexdigest()


def _adapted(
    argument: str, path: str | os.PathLike, values: Any, say: Callable[[str], None], **options: Any
) -> Adapted:
    adapted = adapt(path, modules=getattr(values, "import"), trust=values.trust, argument=argument, **options)
    for change in adapted.changes:
        say(f"{pathlib.Path(path).name}: {change}")
    return adapted
