"""Encoded images that stay in their files, and are read and decoded as they are needed.

Only names, places, labels and a few batches are held in memory, so a large dataset takes hardly more than a small one.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import io
import math
import os
from collections.abc import Iterator, Sequence
from typing import Self, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from tf_nuat.core import files

Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom, in pixels

THREADS = max(2, min(16, os.cpu_count() or 2))  # images that are decoded at a time

# The decoders of Pillow that are used. None of them starts another program, as the one of EPS starts Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
ALLOWED = "JPEG, PNG, BMP, GIF, PPM, TIFF or WebP"
MOST_BYTES = 2**29  # of a file
MOST_PIXELS = 10**8  # of a decoded image: several are decoded at a time
LOOKED_AT = 100  # images, to know whether a dataset is grey
_ORIENTATION = 0x0112  # the tag of EXIF: how the camera was held
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = [_TURNS[orientation] for orientation in (5, 6, 7, 8)]  # these exchange width and height

# Inception's crops: 8 % to 100 % of the image's area, width to height 3:4 to 4:3, ten attempts to fit one in.
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
ATTEMPTS = 10
MARGIN = 8 / 7  # their evaluation images are resized to 256 for a centre crop of 224


class UnreadableError(ValueError):
    """An image cannot be read; the message is one line that names it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """Encoded images, and the shape to decode them to. A subclass has `name` and `contents`.

    Attributes:
        labels: int64 (N,).
        places: where each image is (N, ...).
        input_shape: (height, width, channels) of a decoded image. The image is resized until it covers this size, and
            its centre is cropped. One channel is the luminance of a coloured image; a grey image gets three equal ones.
        margin: how many times as large as `input_shape` the image is before the crop.
    """

    labels: np.ndarray
    places: np.ndarray
    input_shape: tuple[int, ...] = ()
    margin: float = 1.0

    dtype = np.uint8

    def select(self, indices: np.ndarray) -> Self:
        """Returns the images at `indices`, in that order."""
        return dataclasses.replace(self, labels=self.labels[indices], places=self.places[indices])

    def relabelled(self, number: np.ndarray) -> Self:
        """Returns the images with each label k replaced by `number[k]`; `number` is int64 (K,)."""
        return dataclasses.replace(self, labels=number[self.labels])

    def name(self, index: int) -> str:
        """Returns what to call an image in an error."""
        raise NotImplementedError

    def contents(self, index: int) -> bytes:
        """Returns the bytes of an image."""
        raise NotImplementedError

    def read(
        self, indices: np.ndarray, key: np.ndarray | None = None, first: int = 0
    ) -> tuple[np.ndarray, dict[int, str]]:
        """Returns the pixels of the images at `indices`, and the errors.

        Args:
            indices: whole numbers (M,).
            key: int64 (2,), determines random windows (`window`), half of them flipped; None: centres.
            first: place of the first image in its batch; the windows depend on it, too.

        Returns:
            (uint8 (M, H, W, C), dict of row to one line of text for images that cannot be read, which are black).
        """
        images = np.zeros((len(indices), *self.input_shape), np.uint8)

        def trouble_with(row: int) -> str | None:
            # Every draw follows from the key and the row: the threads may run in any order.
            draws = None if key is None else np.random.default_rng([*key.astype(np.uint64).tolist(), first + row])
            try:
                images[row] = decode(self.contents(indices[row]), self.input_shape, margin=self.margin, draws=draws)
            except Exception as error:  # whatever the readers of many formats raise
                return _message(self.name(indices[row]), error)
            return None

        troubles = enumerate(_threads().map(trouble_with, range(len(indices))))
        return images, {row: trouble for row, trouble in troubles if trouble}

    def first_shape(self, *, skip: bool = False) -> tuple[int, int, int]:
        """Returns the height and width of the first image, or with `skip` of the first that can be read, and channels.

        There is one channel if `LOOKED_AT` images, from first to last, are all grey. Among photographs a few are.

        Raises:
            UnreadableError: that image cannot be read, or none can.
        """
        for index in range(len(self.labels)):
            try:
                height, width, channels = self._shape(index)
            except Exception as error:
                message = _message(self.name(index), error)
                if not skip:
                    raise UnreadableError(message) from error
                continue
            others = np.linspace(index, len(self.labels) - 1, LOOKED_AT).astype(int).tolist() if channels == 1 else []
            return height, width, 3 if any(map(self._is_coloured, dict.fromkeys(others))) else channels
        raise UnreadableError(f"{message}; nor can any other")

    def _shape(self, index: int) -> tuple[int, int, int]:
        with _opened(self.contents(index)) as image:
            width, height = image.size[::-1] if _turn(image) in _LYING else image.size
            return height, width, 1 if image.mode in ("1", "L", "LA") else 3

    def _is_coloured(self, index: int) -> bool:
        try:
            return self._shape(index)[2] == 3
        except Exception:  # it is named when it is read
            return False


class Files(Encoded):
    """Encoded images, each a file of its own; `places` are their paths as bytes."""

    def name(self, index: int) -> str:
        return os.fsdecode(self.places[index])

    def contents(self, index: int) -> bytes:
        with open(self.places[index], "rb") as file:
            contents = file.read(MOST_BYTES + 1)
        if len(contents) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        return contents


def decode(
    contents: bytes, input_shape: Sequence[int], *, margin: float = 1.0, draws: np.random.Generator | None = None
) -> np.ndarray:
    """Returns the pixels of an encoded image, uint8 `input_shape`; the arguments are those of `Encoded`.

    An image whose EXIF tells how the camera was held is turned upright. With `draws`, a `numpy.random.Generator`, the
    result is a random window of the image, flipped half of the time.

    Raises:
        ValueError, OSError or another error of Pillow: the bytes are not an image, or it has more than 8 bits a channel
            or more than `MOST_PIXELS`.
    """
    height, width, channels = input_shape
    with _opened(contents) as image:
        # A JPEG that is far too large is decoded at a half, a quarter or an eighth of its size: that saves memory.
        turn = _turn(image)
        image.draft(None, (4 * height, 4 * width) if turn in _LYING else (4 * width, 4 * height))
        if math.prod(image.size) > MOST_PIXELS:
            raise ValueError(f"it has {math.prod(image.size):,} pixels, more than {MOST_PIXELS:,}")
        upright = image if turn is None else image.transpose(turn)
        box = window(*upright.size, draws) if draws else centre(*upright.size, width / height, margin)
        converted = upright.convert("L" if channels == 1 else "RGB")
        pixels = np.asarray(converted.resize((width, height), Image.Resampling.BILINEAR, box=box))
    if draws and draws.random() < 0.5:
        pixels = pixels[:, ::-1]
    return pixels.reshape(input_shape)


@contextlib.contextmanager
def _opened(contents: bytes) -> Iterator[Image.Image]:
    """A context with an image that is not decoded yet, the one place where images are opened."""
    with Image.open(io.BytesIO(contents), formats=FORMATS) as image:
        if image.mode[0] in "IF":
            raise ValueError("it has more than 8 bits a channel: save it with 8")
        yield image


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Returns the operation that turns an image upright, by its EXIF orientation; None if none is needed.

    `ImageOps.exif_transpose` also rewrites the EXIF data, which fails for many harmless images.
    """
    if "exif" not in image.info:  # else `getexif` would decode the image; Pillow itself turns TIFF images
        return None
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # whatever damaged EXIF raises; the pixels may be intact
        return None


def centre(width: int, height: int, ratio: float, margin: float = 1.0) -> Box:
    """Returns the box (left, top, right, bottom) of the centre of an image, as large as `ratio` and `margin` allow.

    Args:
        width, height: of the image.
        ratio: width to height of the box.
        margin: how many times as large the largest box of this ratio is as the returned one, at least 1.
    """
    w, h = (min(width, height * ratio) / margin, min(height, width / ratio) / margin)
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


def window(width: int, height: int, draws: np.random.Generator) -> Box:
    """Returns the box (left, top, right, bottom) of a random window of an image, for a random resized crop.

    Takes the first attempt that fits within the image; if none does, the centre at the nearest ratio.

    Source: Szegedy et al., "Going deeper with convolutions", 2015, section 6.
    """
    for _ in range(ATTEMPTS):
        area, ratio = width * height * draws.uniform(*AREA), math.exp(draws.uniform(*np.log(RATIO)))
        w, h = max(1, round(math.sqrt(area * ratio))), max(1, round(math.sqrt(area / ratio)))
        if w <= width and h <= height:
            left, top = int(draws.integers(width - w + 1)), int(draws.integers(height - h + 1))
            return left, top, left + w, top + h
    return centre(width, height, min(max(width / height, RATIO[0]), RATIO[1]))


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(THREADS, thread_name_prefix="decode")


def _message(name: str, error: Exception) -> str:
    unidentified = isinstance(error, UnidentifiedImageError)
    reason = "its bytes are not those of an image" if unidentified else files.reason(error)
    return f"image {name!r} cannot be read ({reason}); allowed: {ALLOWED}"
