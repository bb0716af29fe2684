"""Files of arrays that someone else saved: they are read as they are, or refused before they are unpacked."""

import io
import os
import zipfile

import numpy as np
import pytest

from tf_nuat.core import npz_input
from tf_nuat.core.npz_input import Shape

ARRAYS = {
    "bytes": np.arange(60, dtype=np.uint8).reshape(3, 4, 5),
    "big": np.linspace(0, 1, 7).astype(">f8"),
    "columns": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "text": np.array('{"a": 1}'),
    "none": np.zeros((0, 3), np.int64),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_was_saved_is_read(save, tmp_path):
    save(tmp_path / "arrays.npz", **ARRAYS)
    found = npz_input.load("it", tmp_path / "arrays.npz")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert list(npz_input.load("it", tmp_path / "arrays.npz", ["text"])) == ["text"]


def header(shape, kind="|u1"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue()


def bomb(path, size):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        member.write(header((size - 128,)))
        member.write(bytes(size - 128))


def twice(path):
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for _ in range(2):
            archive.writestr("a.npy", header((0,)))


def archive_of(content):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", content)

    return write


REFUSED = [
    (lambda path: path.write_bytes(b""), "(File is not a zip file)"),
    (lambda path: path.mkdir(), "(it is not a file)"),
    (os.mkfifo, "(it is not a file)"),
    (lambda path: path.symlink_to(path.name), "(it is not a file)"),
    (lambda path: bomb(path, 2**22), "(it would become 4,194,304 bytes, "),
    (twice, "(it has a name twice)"),
    (archive_of(header((2**70,))), "(a says to have 1,180,591,620,717,411,303,552 bytes, and has 128)"),
    (archive_of(header((-1, -4)) + b"1234"), "(a says to have "),
    (archive_of(header((3,)) + b"1234"), "(a says to have 131 bytes, and has 132)"),
    (archive_of(header((2,), "|O") + b"cos\nsystem\n."), "(Object arrays are Python's own, and a is one)"),
    (archive_of(b"\x93NUMPY\x03\x00\x00\x00"), "(a is of version (3, 0) of NumPy's format)"),
    (archive_of(b"\x93NUMPY\x01\x00" + b"\xff\xff" + b"(" * 65535), "("),
    (archive_of(b""), "("),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_is_refused_is_one_line(number, tmp_path, monkeypatch):
    monkeypatch.setattr(npz_input, "LARGE", 2**20)
    write, words = REFUSED[number]
    path = tmp_path / "arrays.npz"
    write(path)
    with pytest.raises(ValueError) as caught:
        npz_input.load(f"it is {str(path)!r}, which", path, allowed="something else")
    assert str(caught.value).startswith(f"it is {str(path)!r}, which cannot be read {words}")
    assert str(caught.value).endswith("; allowed: something else") and "\n" not in str(caught.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_array_of_another_checksum_is_refused(save, tmp_path):
    """As of a disk that has lost a bit: the pixels would be others."""
    path = tmp_path / "arrays.npz"
    save(path, a=np.random.default_rng(0).integers(0, 256, 5000, np.uint8))
    content = bytearray(path.read_bytes())
    content[4000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read "):
        npz_input.load("it", path)


def test_more_than_memory_is_refused(tmp_path, monkeypatch):
    np.savez(tmp_path / "arrays.npz", a=np.zeros(1000))
    monkeypatch.setattr(npz_input.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1}.get)
    with pytest.raises(ValueError, match=r"it would become 8,128 bytes, more than this machine's memory, 4,096\)"):
        npz_input.load("it", tmp_path / "arrays.npz")


def test_names_types_and_shapes_are_checked(tmp_path):
    np.savez(tmp_path / "arrays.npz", **ARRAYS)
    with pytest.raises(ValueError, match="^it lacks other; allowed: "):
        npz_input.load("it", tmp_path / "arrays.npz", ["text", "other"])
    npz_input.check("it", ARRAYS, {"bytes": Shape("iu", (3, None, 5)), "text": Shape("U", ())})
    for name, wanted in (("bytes", Shape("f", (3, 4, 5))), ("bytes", Shape("u", (3, 4))), ("lost", Shape("u", ()))):
        with pytest.raises(ValueError, match=f"^it .*{name}.*; allowed: "):
            npz_input.check("it", ARRAYS, {name: wanted})
