"""Is a network fed as it was trained? If it is not, no accuracy means anything, clean or under attack.

A network that takes pixels in [0, 255] and gets them in [0, 1], or whose classes are in another order than the data's,
runs without an error. Only its accuracy shows the mistake: it has to be significantly above chance. Chance means the
share of the commonest class throughout, which a network reaches if it always answers that class.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import scipy.optimize
import tensorflow as tf

from tf_nuat import losses
from tf_nuat.evaluate.outcomes import exceeds, predict
from tf_nuat.models.inference import Logits, compiled_for, graph_of
from tf_nuat.networks.pixels import PixelForm

LOOKED_AT = 1000  # largest number of images: a share of them is known to 3 %
TRIED_ON = 250  # of them, to try changes on if the network is right on many: that takes eight times as long
SIGNIFICANCE = 0.05
FAR = 0.8  # share of the way from chance to 1 at which a network is surely fed as it was trained
DARK = 1 / 8  # a sample whose highest pixel is below it does not have the range [0, 1]
_BATCH = 250
# The end of an error, if --pixels is not only for the network that is fed wrongly.
_SAVE = "save tf_nuat.networks.adapt(FILE, pixels=FORM).network"
OF_SURROGATE = f"; --pixels is of --checkpoint alone; for --surrogate {_SAVE}"
OF_SEVERAL = f"; --pixels is of every --checkpoint; for one alone {_SAVE}"


@dataclasses.dataclass(frozen=True)
class Wiring:
    """What `look` has found about a network and a sample.

    Attributes:
        accuracy: share of the images that it is right on, in [0, 1].
        chance: share of the commonest class, in [0, 1].
        images: number of images that were looked at.
        is_right: whether there is something to judge. The accuracy is `FAR` of the way from chance to 1; or it is half
            of that way or significantly above chance, and no change that is tried makes the network right on many more
            images.
        only_answer: the class that it gives for every image; None where it gives several.
        hints: the changes that make it right on many more images, the best first.
    """

    accuracy: float
    chance: float
    images: int
    is_right: bool
    only_answer: str | None = None
    hints: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What was found, in one line."""
        found = f"it is right on {self.accuracy:.1%} of {self.images} images, "
        if self.only_answer is not None:
            found += f"gives one class, {self.only_answer}, for every image, "
        found += f"and always answering the commonest class is on {self.chance:.1%}"
        hints = "; ".join(self.hints) or "no other range of pixels, colours or order of the classes makes it right"
        return f"{found}: no accuracy to measure robustness by; {hints}"


def look(
    network: Logits,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str] | None = None,
    *,
    pixels: PixelForm = "0..1",
) -> Wiring:
    """Returns the `Wiring` of a network and a sample.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        images, labels: (N, H, W, C) in [0, 1], and integers (N,); at most `LOOKED_AT` of them are used.
        class_names: names of the K classes; None for their numbers.
        pixels: the form of pixels that `tf_nuat.networks.adapt` was given. With "0..255", images whose highest pixel is
            below `DARK` are refused: for pixels that were divided once too often, any epsilon is large.
    """
    found, highest = _looked(network, images, labels, class_names), float(images.max())
    if found.is_right and pixels == "0..255" and highest < DARK:
        asked = "give images in [0, 1], without --pixels 0..255"
        hint = f"the highest pixel is {highest:.2g}: were the images divided by 255 twice? {asked}"
        return dataclasses.replace(found, is_right=False, hints=(hint,))
    return found


def check(
    argument: str,
    network: Logits,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str] | None = None,
    *,
    pixels: PixelForm = "0..1",
    remedy: str = "",
) -> None:
    """Raises a `ValueError` where `look` finds that a network is fed wrongly, or has learned nothing.

    Args:
        argument: beginning of the error, which names the network.
        network, images, labels, class_names, pixels: as in `look`.
        remedy: end of the error where a change makes the network right.
    """
    found = look(network, images, labels, class_names, pixels=pixels)
    if not found.is_right:
        raise ValueError(f"{argument}: {found.sentence}{remedy if found.hints else ''}")


def _looked(network: Logits, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str] | None) -> Wiring:
    if len(labels) > LOOKED_AT:
        chosen = np.sort(np.random.default_rng(0).choice(len(labels), LOOKED_AT, replace=False))
        images, labels = images[chosen], labels[chosen]
    size, names = len(labels), list(class_names or ())
    answers, chance = _answers(network, images), float(np.bincount(labels).max() / size)
    accuracy = float(np.mean(answers == labels))
    if accuracy >= chance + FAR * (1.0 - chance):
        return Wiring(accuracy, chance, size, is_right=True)
    is_half = accuracy >= (1.0 + chance) / 2.0
    few = np.sort(np.random.default_rng(0).choice(size, min(TRIED_ON, size), replace=False)) if is_half else slice(None)
    hints = tuple(_hints(network, images[few], labels[few], names, max(accuracy, chance)))
    is_better = is_half  # of a handful of images, nothing is significant
    is_better = is_better or exceeds(int(np.sum(answers == labels)), size, chance) < SIGNIFICANCE
    only = _named(int(answers[0]), names) if np.all(answers == answers[0]) else None
    return Wiring(accuracy, chance, size, is_right=is_better and not hints, only_answer=only, hints=hints)


def _named(number: int, names: Sequence[str]) -> str:
    return names[number] if number < len(names) else str(number)


def _answers(network: Logits, images: np.ndarray) -> np.ndarray:
    """Returns the classes that a network gives, integers (N,)."""
    return _of_all(network, predict, images)


def _mean_loss(network: Logits, images: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean cross-entropy of a network on images with these labels, as a multiple of that of guessing."""
    logits = _of_all(network, _outputs, images)
    return float(np.mean(losses.cross_entropy(logits, tf.constant(labels))) / np.log(logits.shape[1]))


def _outputs(network: Logits, x: tf.Tensor) -> tf.Tensor:
    return tf.cast(graph_of(network)(x), tf.float32)


def _of_all(network: Logits, function: Callable[[Logits, tf.Tensor], tf.Tensor], images: np.ndarray) -> np.ndarray:
    """Returns what a function of a network and a batch returns, for all images. All batches have one shape."""
    size = min(_BATCH, len(images))
    compiled, found = compiled_for(network, function), []
    for first in range(0, len(images), size):
        batch = images[np.resize(np.arange(first, min(first + size, len(images))), size)]
        found.append(compiled(keras.ops.convert_to_tensor(batch, "float32")).numpy()[: len(images) - first])
    return np.concatenate(found)


# The changes to try, by what to type or what seems to be wrong: functions of images.
Changes = dict[str, Callable[[np.ndarray], np.ndarray]]


def _as_imagenet(mode: str) -> Callable[[np.ndarray], np.ndarray]:
    prepare = keras.applications.imagenet_utils.preprocess_input
    return lambda images: np.asarray(prepare(255.0 * images, mode=mode), np.float32)


_OF_PIXELS: Changes = {
    "with --pixels 0..255": lambda images: 255.0 * images,
    "with --pixels -1..1": lambda images: 2.0 * images - 1.0,
    "with black and white exchanged": lambda images: 1.0 - images,
}
_OF_COLOURS: Changes = {
    "with --pixels caffe": _as_imagenet("caffe"),
    "with --pixels torch": _as_imagenet("torch"),
    "with colours in the order blue, green, red": lambda images: images[..., ::-1],
    "with --pixels 0..255, and colours in the order blue, green, red,": lambda images: 255.0 * images[..., ::-1],
}
_OF_SQUARES: Changes = {"with height and width exchanged": lambda images: images.transpose(0, 2, 1, 3)}
# The share of the way from chance to 1 that a change has to gain to be named. A fitted change has to gain more.
CLEARLY, CLEARLY_FITTED = 0.25, 0.5
LOST = 4.0  # mean loss, as a multiple of that of guessing, above which a network was hardly trained on such pixels


def _hints(
    network: Logits, images: np.ndarray, labels: np.ndarray, names: Sequence[str], at_least: float
) -> Iterator[str]:
    """Yields the best two changes that make a network right on clearly more than a share `at_least` of the images."""
    changes: Changes = {"": lambda images: images, **_OF_PIXELS}
    if images.shape[3] == 3:
        changes |= _OF_COLOURS
    if images.shape[1] == images.shape[2]:
        changes |= _OF_SQUARES
    if images.max() < DARK:
        brighter = f"with 255 times these pixels (the highest is {images.max():.2g}: divided by 255 twice?)"
        changes = {what.replace("with --pixels 0..255", brighter): change for what, change in changes.items()}
    found: list[tuple[float, str]] = []

    def add(right: np.ndarray, what: str) -> None:
        """Adds a change by which the answers are right, bool (N,), on significantly more images."""
        if exceeds(int(np.sum(right)), len(right), at_least) < SIGNIFICANCE / len(changes):
            found.append((float(np.mean(right)), what))

    for what, change in changes.items():
        answers = _answers(network, change(images))
        share = np.mean(answers == labels)
        if share > at_least + CLEARLY * (1.0 - at_least):
            is_certain = share >= at_least + FAR * (1.0 - at_least)
            if is_certain or not _is_blown_up(network, images, change(images), labels):
                add(answers == labels, what)
        else:
            for right, order in _orders(answers, labels, names, at_least):
                add(right, " and ".join(filter(None, (what, order))))
    best: dict[float, tuple[float, str]] = {}  # of several that do the same, the shortest
    for share, what in sorted(found, key=lambda each: (-round(each[0], 2), len(each[1]))):
        best.setdefault(round(share, 2), (share, what))
    for share, what in list(best.values())[:2]:
        yield f"{what} it is right on {share:.1%}"


def _is_blown_up(network: Logits, images: np.ndarray, changed: np.ndarray, labels: np.ndarray) -> bool:
    """Returns whether `changed` images are so large that a network is right on more of them without being fed rightly.

    Next to large pixels the biases of a network count for nothing. One that was trained on unequal numbers of images of
    each class may then be right on more images. But its logits are large where it is wrong, too: unlike on pixels that
    it was trained on, its loss is far above that of guessing, and above that on the images as they are.
    """
    loss = _mean_loss(network, changed, labels)
    return loss > LOST and loss > _mean_loss(network, images, labels)


def _orders(
    answers: np.ndarray, labels: np.ndarray, names: Sequence[str], at_least: float
) -> Iterator[tuple[np.ndarray, str]]:
    """Yields which answers are right, bool (n,), if clearly more are in another order of the classes; and that order.

    A fitted order is tried on the images that it was not fitted on; any other on all.
    """
    if names and all(name.isdecimal() for name in names):
        for of, key in (("numbers", int), ("names", str)):
            ordered = sorted(names, key=key)
            right = _right(answers, labels, np.array([names.index(name) for name in ordered]))
            if np.mean(right) > at_least + CLEARLY * (1.0 - at_least):
                yield right, _order(ordered, of)
                return
    fitted = np.arange(len(labels)) % 2 == 0  # on one half a permutation is fitted, on the other it is tried
    size = int(labels.max()) + 1
    if answers.max() >= size or fitted.all():  # outputs that stand for no class, or one image
        return
    seen = np.zeros((size, size))
    np.add.at(seen, (answers[fitted], labels[fitted]), 1)
    permutation = scipy.optimize.linear_sum_assignment(seen, maximize=True)[1]
    right = _right(answers[~fitted], labels[~fitted], permutation)
    if np.mean(right) > at_least + CLEARLY_FITTED * (1.0 - at_least):
        yield right, _order([_named(each, names) for each in permutation], "outputs")


def _right(answers: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns which answers are right, bool (N,), if output k stands for the class `classes[k]`."""
    known = answers < len(classes)
    return known & (classes[np.where(known, answers, 0)] == labels)


def _order(names: Sequence[str], of: str) -> str:
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    # A file of names orders class folders; labels that are numbers have to be changed themselves.
    return f"with class folders (--class_names FILE) or labels in the order of the {of} ({shown}),"
