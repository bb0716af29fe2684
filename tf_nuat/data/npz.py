"""Datasets in one `.npz` file of arrays, which are held in memory."""

from tf_nuat.core import files, npz_input
from tf_nuat.core.files import PathLike
from tf_nuat.data import classes
from tf_nuat.data.arrays import Arrays, checked

CLASS_NAMES = "class_names"
# Names of images and labels in each split: our own, those of MedMNIST, those of `keras.datasets`.
SPELLINGS = {
    "train": (("train_images", "train_labels"), ("x_train", "y_train")),
    "validation": (
        ("validation_images", "validation_labels"),
        ("val_images", "val_labels"),
        ("x_val", "y_val"),
        ("x_validation", "y_validation"),
    ),
    "test": (("test_images", "test_labels"), ("x_test", "y_test"), ("images", "labels")),
}
ALLOWED = (
    "images and labels, for testing; or train_images and train_labels (or x_train and y_train), and the same of "
    "validation (or val) and test where there are such; class_names where they have some"
)


def read(argument: str, path: PathLike) -> tuple[dict[str, Arrays], list[str]]:
    """Returns the images of a file of arrays and the names of their classes.

    Its arrays are `images` and `labels`, which are a test split, or those of splits: `train_images`, `train_labels`,
    `validation_images` (or `val_images`) and so on, as MedMNIST has them, or `x_train`, `y_train`, `x_val`, `x_test`
    and so on, as `keras.datasets` has them. Images are (N, H, W, C), or (N, H, W) where they are grey, uint8 or
    floating point in [0, 1], all of one size and type; labels are whole numbers from 0, (N,) or (N, 1), or one-hot
    rows. The optional array `class_names` names the classes; without it, they are the numbers from 0 to the highest
    label. Any other array is refused, since its meaning is unknown.

    Returns:
        (dict of the splits that are there to `Arrays`, names of the classes).

    Raises:
        ValueError: the file or an array is not of this kind.
    """
    where = f"{argument} is {str(path)!r}"
    with npz_input.opened(f"{where}, which", path) as archive:
        wanted = _wanted(where, archive.names)
        arrays = archive.read([*(name for pair in wanted.values() for name in pair), CLASS_NAMES])
    given = {split: ((images, arrays[images]), (labels, arrays[labels])) for split, (images, labels) in wanted.items()}
    return checked(where, given, classes.of_array(f"{where}: {CLASS_NAMES}", arrays.get(CLASS_NAMES)))


def _wanted(where: str, names: list[str]) -> dict[str, tuple[str, str]]:
    """Returns the names of images and labels in a file with arrays of these names, a dict of the splits to pairs."""
    there = {split: [pair for pair in pairs if set(pair) & set(names)] for split, pairs in SPELLINGS.items()}
    there = {split: pairs for split, pairs in there.items() if pairs}
    lacking = [name for pairs in there.values() for pair in pairs for name in pair if name not in names]
    twice = [pairs for pairs in there.values() if len(pairs) > 1]
    unknown = set(names).difference([CLASS_NAMES], *(pair for pairs in there.values() for pair in pairs))
    if lacking or not there:
        wrong = f"lacks {lacking[0] if lacking else 'images'}"
    elif twice:
        wrong = f"has both {twice[0][0][0]} and {twice[0][1][0]}"
    elif unknown:
        wrong = f"has {min(unknown)[:100]!r}, which is not understood"
    elif "images" in names and len(there) > 1:
        wrong = "has images, for testing alone, beside those of other splits"
    else:
        return {split: pairs[0] for split, pairs in there.items()}
    has = files.in_one_line(", ".join(sorted(names))) or "nothing"
    raise ValueError(f"{where}, which {wrong} (it has {has}); allowed: {ALLOWED}")
