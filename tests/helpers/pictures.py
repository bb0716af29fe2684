"""Image files for tests."""

import io

import numpy as np
from PIL import Image


def encoded(pixels, kind="PNG", **options):
    """Returns the bytes of an image file of `pixels`, uint8 (H, W, C) or (H, W); `options` are Pillow's."""
    file = io.BytesIO()
    pixels = np.asarray(pixels)
    Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels).save(file, kind, **options)
    return file.getvalue()


def save_folder(path, images):
    """Writes a folder of class folders: `images` is a dict of class to a list of pixels, or of bytes."""
    for name, each in images.items():
        (path / name).mkdir(parents=True)
        for number, image in enumerate(each):
            contents = image if isinstance(image, bytes) else encoded(image)
            (path / name / f"{number:04}.png").write_bytes(contents)
    return path


def flat(level, shape=(4, 4, 3)):
    """Returns an image whose pixels all have the value `level`, uint8."""
    return np.full(shape, level, np.uint8)
