"""Images that are read out of files when a batch needs them."""

import io
import os

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from tests.helpers.pictures import encoded, flat, save_folder
from tf_nuat import data
from tf_nuat.data import splits
from tf_nuat.data.arrays import Arrays
from tf_nuat.data.encoded import Files, decode, window

RED, GREEN, BLUE = np.eye(3, dtype=np.uint8) * 255


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 images of 6x5 pixels, no two alike, of three classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 6, 5, 3), np.uint8)
    return save_folder(tmp_path_factory.mktemp("images"), {f"class {k}": list(pixels[k]) for k in range(3)})


def batches(dataset, count=None):
    return [(x.numpy(), y.numpy()) for x, y in (dataset if count is None else dataset.take(count))]


def assert_same(left, right):
    assert len(left) == len(right) > 0
    for one, other in zip(left, right):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def decoded(pixels, shape, **options):
    return decode(encoded(pixels), shape, **options).astype(int)


def test_an_image_of_the_right_size_is_what_it_was():
    pixels = np.random.default_rng(1).integers(0, 256, (7, 9, 3), np.uint8)
    np.testing.assert_array_equal(decoded(pixels, (7, 9, 3)), pixels)


def test_the_centre_of_a_wide_and_of_a_high_image_is_kept():
    stripes = np.repeat([[RED, GREEN, BLUE]], 4, axis=1).repeat(4, axis=0)
    np.testing.assert_array_equal(decoded(stripes, (4, 4, 3)), np.broadcast_to(GREEN, (4, 4, 3)))
    np.testing.assert_array_equal(decoded(stripes.swapaxes(0, 1), (4, 4, 3)), np.broadcast_to(GREEN, (4, 4, 3)))


def test_a_margin_is_cut_off():
    framed = np.pad(flat(255, (14, 14)), 1)
    assert decoded(framed, (7, 7, 1))[0, 0, 0] < 255
    np.testing.assert_array_equal(decoded(framed, (14, 14, 1), margin=8 / 7), flat(255, (14, 14, 1)))


def test_a_smaller_image_is_averaged_not_sampled():
    ramp = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8), (64, 64))
    expected = ramp[0].reshape(16, 4).mean(axis=1)  # a linear ramp stays one, except for what the border cuts off
    np.testing.assert_allclose(decoded(ramp, (16, 16, 1))[5, 1:-1, 0], expected[1:-1], atol=0.51)
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    np.testing.assert_allclose(decoded(board.astype(np.uint8), (8, 8, 1)), 127.5, atol=3)


def test_colours_become_luminance_and_grey_becomes_three_channels():
    expected = [round(255 * weight) for weight in (0.299, 0.587, 0.114)]
    found = decoded([[RED, GREEN, BLUE]], (1, 3, 1))[0, :, 0]
    np.testing.assert_allclose(found, expected, atol=1)
    np.testing.assert_array_equal(decoded(flat(9, (2, 2)), (2, 2, 3)), flat(9, (2, 2, 3)))


def test_a_photograph_much_too_large_is_decoded_smaller_and_looks_the_same():
    ramp = np.broadcast_to(np.linspace(0, 255, 3000).astype(np.uint8)[:, None], (3000, 3000))
    found = decode(encoded(ramp, "JPEG"), (8, 8, 1))[:, 4, 0]
    np.testing.assert_allclose(found, np.linspace(0, 255, 3000).reshape(8, -1).mean(axis=1), atol=8)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_dataset_is_grey_where_all_its_images_are(channels, tmp_path):
    """A grey first image among photographs would have taken the colours from all."""
    first, last = [flat(1, (4, 5, 1)), b"no image"], [flat(2, (4, 5, channels))]
    save_folder(tmp_path, {"a": [*first, *first], "b": [*first, *last]})
    assert data.load(tmp_path, batch_size=1, corrupt="skip").input_shape == (4, 5, channels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_exif_says(kind, orientation, tmp_path):
    # Four levels, brightest at the upper left of what the camera saw; `seen` of the EXIF specification, row by row.
    seen = np.kron(np.array([[240, 170], [90, 20], [90, 20]], np.uint8), np.ones((16, 16), np.uint8))
    stored = {
        1: seen,
        2: seen[:, ::-1],
        3: seen[::-1, ::-1],
        4: seen[::-1],
        5: seen.T,
        6: np.rot90(seen, 1),
        7: seen[::-1, ::-1].T,
        8: np.rot90(seen, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    contents = encoded(np.ascontiguousarray(stored), kind, exif=exif)
    source = Files(np.zeros(1, int), np.array([_saved(tmp_path / "image", contents)]))
    assert source.first_shape()[:2] == (48, 32)
    np.testing.assert_allclose(decode(contents, (48, 32, 1))[..., 0].astype(int), seen, atol=3)
    small = decode(contents, (3, 2, 1))[..., 0]  # a JPEG is decoded at a part of its size
    np.testing.assert_allclose(small.astype(int), seen[8::16, 8::16], atol=33)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_leaves_the_pixels_as_they_are():
    pixels = np.random.default_rng(1).integers(0, 256, (7, 9, 3), np.uint8)
    for damaged in (b"Exif\0\0MM\0*", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02"):
        np.testing.assert_array_equal(decode(encoded(pixels, exif=damaged), (7, 9, 3)), pixels)


def test_no_decoder_that_starts_another_program_is_asked(tmp_path, monkeypatch):
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(OSError):
        Image.open(io.BytesIO(page)).load()
    assert (tmp_path / "started").is_file()  # as Pillow does where it is not told otherwise
    (tmp_path / "started").unlink()
    source = Files(np.zeros(1, int), np.array([_saved(tmp_path / "page.jpg", page)]), (8, 8, 3))
    assert "its bytes are not those of an image); allowed: JPEG" in source.read(np.zeros(1, int))[1][0]
    with pytest.raises(ValueError, match="page.jpg' cannot be read"):
        source.first_shape()
    assert not (tmp_path / "started").exists()


def test_an_image_of_too_many_pixels_or_bytes_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    places = np.array([_saved(tmp_path / "large.png", encoded(flat(3, (40, 30))))])
    source = Files(np.zeros(1, int), places, (8, 8, 1))
    assert source.read(np.zeros(1, int))[1] == {}
    monkeypatch.setattr("tf_nuat.data.encoded.MOST_PIXELS", 1199)
    assert "it has 1,200 pixels, more than 1,199" in source.read(np.zeros(1, int))[1][0]
    monkeypatch.setattr("tf_nuat.data.encoded.MOST_BYTES", 50)
    assert "it has more than 50 bytes" in source.read(np.zeros(1, int))[1][0]


def test_windows_are_of_the_published_areas_and_ratios_and_lie_anywhere():
    draws = np.random.default_rng(2)
    boxes = np.array([window(400, 300, draws) for _ in range(4000)])
    left, top, right, bottom = boxes.T
    assert left.min() == top.min() == 0 and right.max() == 400 and bottom.max() == 300
    width, height = right - left, bottom - top
    area, ratio = width * height / (400 * 300), width / height
    assert 0.078 < area.min() < 0.09 and area.max() <= 1.0
    assert 0.74 < ratio.min() < 0.76 and 1.32 < ratio.max() < 1.35
    small = area < 0.4  # which always fit: these are uniform between 0.08 and 0.4
    assert abs(area[small].mean() - 0.24) < 5 * 0.32 / np.sqrt(12 * small.sum())
    assert abs(np.log(ratio[small]).mean()) < 5 * np.log(16 / 9) / np.sqrt(12 * small.sum())


def test_where_no_window_fits_the_centre_at_the_nearest_ratio_is_taken():
    assert window(900, 3, np.random.default_rng(0)) == (448.0, 0.0, 452.0, 3.0)
    assert window(3, 900, np.random.default_rng(0)) == (0.0, 448.0, 3.0, 452.0)


def test_windows_are_a_function_of_the_key_and_half_of_them_are_flipped(tmp_path):
    rising = np.broadcast_to(np.arange(64, dtype=np.uint8), (64, 64)) * 4
    source = Files(np.zeros(1, int), np.array([_saved(tmp_path / "rising.png", encoded(rising))]), (8, 8, 1))
    images, troubles = source.read(np.zeros(400, int), np.array([3, -4]))
    assert not troubles
    again, _ = source.read(np.zeros(400, int), np.array([3, -4]))
    np.testing.assert_array_equal(images, again)
    assert len({image.tobytes() for image in images}) > 200
    other, _ = source.read(np.zeros(400, int), np.array([3, -5]))
    assert not {image.tobytes() for image in other} >= {image.tobytes() for image in images}
    flipped = np.mean(images[:, 4, 0, 0].astype(int) > images[:, 4, 7, 0])
    assert abs(flipped - 0.5) < 5 * 0.5 / np.sqrt(400)


def test_a_window_is_the_same_in_a_share_of_the_batch(tmp_path):
    board = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    source = Files(np.zeros(1, int), np.array([_saved(tmp_path / "board.png", encoded(board))]), (8, 8, 1))
    whole, _ = source.read(np.zeros(8, int), np.array([3, 4]))
    share, _ = source.read(np.zeros(4, int), np.array([3, 4]), first=4)
    np.testing.assert_array_equal(share, whole[4:])
    assert not np.array_equal(share, whole[:4])


def _saved(path, contents):
    path.write_bytes(contents)
    return str(path).encode()


@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
def test_files_give_the_batches_that_arrays_give(folder, augmentation):
    streamed = data.load(folder, batch_size=8, seed=5, augmentation=augmentation)
    assert streamed.input_shape == (6, 5, 3)
    examples = {}
    for split in splits.NAMES:
        images, labels = streamed.arrays(split)
        examples[split] = Arrays((images * 255).round().astype(np.uint8), labels)
    held = data.Splits("held", streamed.class_names, 8, 5, examples, augmentation)
    assert streamed.steps_per_epoch == 6
    assert_same(batches(streamed.train_from(1), 12), batches(held.train_from(1), 12))
    for split in ("validation", "test"):
        assert_same(batches(getattr(streamed, split)), batches(getattr(held, split)))


def test_random_windows_too_follow_seed_and_epoch_alone_and_a_resumed_run_sees_them(folder):
    load = {"batch_size": 8, "augmentation": "resized_crop", "input_shape": (4, 4, None)}
    streamed = data.load(folder, seed=5, **load)
    assert streamed.input_shape == (4, 4, 3)
    undisturbed = batches(streamed.train_from(0), 18)
    assert_same(undisturbed[12:], batches(data.load(folder, seed=5, **load).train_from(2), 6))
    other = batches(data.load(folder, seed=6, **load).train_from(0), 6)
    assert not np.array_equal(other[0][0], undisturbed[0][0])
    whole = {image.tobytes() for image in streamed.arrays("train")[0]}
    assert not whole & {image.tobytes() for image in undisturbed[0][0]}


def test_no_more_than_a_few_batches_are_read_ahead(folder, monkeypatch):
    read = []
    contents = Files.contents
    monkeypatch.setattr(Files, "contents", lambda self, index: read.append(index) or contents(self, index))
    streamed = data.load(folder, batch_size=4, input_shape=(6, 5, 3))
    assert not read  # nothing is decoded to know what there is
    batches(streamed.train_from(0), 1)
    assert 4 <= len(read) <= 4 * (1 + splits.BATCHES_AHEAD + 2)


def test_chunks_are_the_split_in_its_order(folder, monkeypatch):
    streamed = data.load(folder, batch_size=8)
    images, labels = streamed.arrays("train")
    assert len(list(streamed.chunks("train"))) == 1
    monkeypatch.setattr(splits, "CHUNK_BYTES", 10 * 6 * 5 * 3 * 4)
    monkeypatch.setattr(splits, "EVALUATED", 4)
    chunks = list(streamed.chunks("train", 42))
    assert [len(part) for part, _ in chunks] == [8, 8, 8, 8, 8, 2]
    np.testing.assert_array_equal(np.concatenate([part for part, _ in chunks]), images[:42])
    np.testing.assert_array_equal(np.concatenate([part for _, part in chunks]), labels[:42])


def test_more_than_memory_holds_is_refused(folder, monkeypatch):
    streamed = data.load(folder, batch_size=8)
    monkeypatch.setattr(splits, "MOST_BYTES", 20 * 6 * 5 * 3 * 4)
    assert len(streamed.take("train", np.arange(20))[0]) == 20
    with pytest.raises(ValueError, match=r"gives 48 images of \(6, 5, 3\), .*allowed: at most 20"):
        streamed.arrays("train")


def test_of_a_number_that_is_a_default_a_sample_has_as_many_as_memory_holds(folder, monkeypatch):
    assert len(data.sample(folder, samples=6, at_most=True)[0]) == 6
    monkeypatch.setattr(splits, "MOST_BYTES", 4 * 6 * 5 * 3 * 4)
    images, labels, _ = data.sample(folder, samples=6, at_most=True)
    assert len(images) == len(labels) == 4 and set(labels) == {0, 1, 2}
    for samples in (None, 6, 1000):
        with pytest.raises(ValueError, match=r"gives 6 images of \(6, 5, 3\), .*allowed: at most 4, --samples 4 "):
            data.sample(folder, samples=samples)
    assert len(data.sample("digits", samples=50)[0]) == 50  # what is in memory fits


def corrupt_folder(path, bad, good=8):
    """A folder of two classes of 4x4 images with levels of their own, of which the first `bad` cannot be read."""
    whole = encoded(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8))
    images = [flat(10 * level) for level in range(2 * good)]
    for split in ("train", "validation", "test"):
        save_folder(path / split, {"a": [whole[:60]] * bad + images[:good], "b": images[good:]})
    return path


BROKEN = {
    "truncated": encoded(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8), "JPEG")[:-900],
    "text": b"not an image",
    "empty": b"",
    "two bytes a channel": encoded(np.full((4, 4), 1000, np.uint16)),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_an_image_that_cannot_be_decoded_is_named_in_one_line(kind, tmp_path):
    streamed = data.load(save_folder(tmp_path, {name: [flat(3)] * 3 for name in "abc"}), batch_size=2)
    source = streamed.examples["train"]
    with open(source.places[0], "wb") as file:
        file.write(BROKEN[kind])
    with pytest.raises(ValueError) as caught:
        streamed.arrays("train")
    message = str(caught.value)
    assert f"image {source.name(0)!r} cannot be read (" in message and "allowed: JPEG, PNG" in message
    assert "\n" not in message and " at 0x" not in message


def test_a_pipeline_names_the_image_too(tmp_path):
    streamed = data.load(corrupt_folder(tmp_path, bad=1), batch_size=4, input_shape=(4, 4, 3))
    for dataset in (streamed.validation, streamed.train):
        with (
            pytest.raises(ValueError, match=r"^image '.*0000\.png' cannot be read \(.*or WebP$"),
            streamed.readable(),
        ):
            batches(dataset)


def test_skipped_images_are_named_left_out_of_evaluation_and_stood_in_for_in_training(tmp_path, caplog):
    streamed = data.load(corrupt_folder(tmp_path, bad=3), batch_size=4, corrupt="skip")
    assert streamed.input_shape == (4, 4, 3)
    with caplog.at_level("WARNING"):
        found = batches(streamed.test)
    assert "0002.png" in caplog.text and "skipped" in caplog.text
    levels = np.concatenate([x[:, 0, 0, 0] for x, _ in found])
    np.testing.assert_allclose(levels, np.arange(16) * 10 / 255, atol=1e-6)
    np.testing.assert_array_equal(np.concatenate([y for _, y in found]), np.repeat([0, 1], 8))
    np.testing.assert_allclose(streamed.arrays("test")[0][:, 0, 0, 0], levels)
    steps = streamed.steps_per_epoch
    assert steps == 19 // 4
    for x, y in batches(streamed.train_from(0), 2 * steps):
        level = (x[:, 0, 0, 0] * 255).round() / 10
        assert len(x) == 4 and len(set(level)) < 5
        np.testing.assert_array_equal(y, level >= 8)  # a stand-in brings its own label


def test_a_batch_without_one_readable_image_is_an_error_in_training_only(tmp_path):
    streamed = data.load(corrupt_folder(tmp_path, bad=40, good=4), batch_size=4, corrupt="skip")
    assert sum(len(y) for _, y in batches(streamed.test)) == 8
    assert all(len(y) for _, y in batches(streamed.test))
    with pytest.raises(ValueError, match="nor can any other image of its batch"), streamed.readable():
        batches(streamed.train)


def test_nothing_readable_and_an_unreadable_first_image_are_errors_of_load(tmp_path):
    with pytest.raises(ValueError, match="'.*0000.png' cannot be read"):
        data.load(save_folder(tmp_path / "one", {"a": [b"no", *[flat(1)] * 3], "b": [flat(2)] * 3}), batch_size=2)
    save_folder(tmp_path / "none", {"a": [b""] * 3, "b": [b"no"] * 3})
    with pytest.raises(ValueError, match="cannot be read .*; nor can any other"):
        data.load(tmp_path / "none", batch_size=2, corrupt="skip")
