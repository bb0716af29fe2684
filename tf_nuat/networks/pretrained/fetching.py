"""Files of pre-trained networks, in a folder, in the cache or at a URL: only files with the right checksum are used."""

import hashlib
import os
import pathlib
import typing
import urllib.request

from tf_nuat.core import files

if typing.TYPE_CHECKING:
    from tf_nuat.networks.pretrained import Entry

Found = tuple[pathlib.Path, pathlib.Path]  # a network's file and its card
CACHE = "TF_NUAT_CACHE"  # the variable that names the folder of the cache
MOST_CARD = 2**20  # bytes
PATIENCE = 60  # seconds without an answer


def cache() -> pathlib.Path:
    """Returns the folder of the cache: TF_NUAT_CACHE, else tf_nuat in the folder of the user's caches."""
    return pathlib.Path(os.environ.get(CACHE) or files.user_cache())


def checked(entry: "Entry", path: pathlib.Path) -> pathlib.Path:
    """Returns `path` if it is the file of the entry.

    Raises:
        ValueError: it is missing, or has another checksum.
    """
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"{entry.name} is in {str(path)!r}, which cannot be read ({files.reason(error)})") from error
    if found != entry.sha256:
        raise ValueError(
            f"{entry.name} is in {str(path)!r}, whose SHA-256 begins with {found[:12]}; allowed: {entry.sha256[:12]}: "
            "the file is damaged or of another version; remove it, and fetch it again"
        )
    return path


def from_cache(entry: "Entry") -> Found:
    """Returns what was fetched before.

    Raises:
        ValueError: nothing was, or it is damaged.
    """
    path, card = _cached(entry)
    if not path.exists():
        raise ValueError(
            f"{entry.name} is not in the package; allowed: with source= (--source), a folder or URL that has "
            f"{entry.path}, as results of the project's repository"
        )
    return checked(entry, path), card


def fetched(entry: "Entry", source: str) -> Found:
    """Returns a network's file and card in the folder `source` or, copied into the cache, from the URL `source`.

    Raises:
        ValueError: they are not there, or the checksum is wrong.
    """
    if not _is_url(source):
        path = pathlib.Path(source) / entry.path
        return checked(entry, path), path.with_name("card.json")
    path, card = _cached(entry)
    if not path.exists():
        where = f"{source.rstrip('/')}/{entry.path}"
        content = _read(entry, where, most=entry.size)
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise ValueError(f"{entry.name} at {where} has another SHA-256 than {entry.sha256[:12]}...; it is not used")
        beside = _read(entry, where.rpartition("/")[0] + "/card.json", most=MOST_CARD)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.save_bytes(beside, card)
            files.save_bytes(content, path)
        except OSError as error:
            raise ValueError(
                f"{CACHE} is {str(path.parent)!r}, which cannot be written ({files.reason(error)})"
            ) from error
    return checked(entry, path), card


def _cached(entry: "Entry") -> Found:
    """Returns the paths in the cache; the checksum in their name tells apart files of different package versions."""
    path = cache() / f"{entry.name}-{entry.sha256[:12]}.keras"
    return path, path.with_suffix(".json")


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _read(entry: "Entry", url: str, *, most: int) -> bytes:
    """Returns what is at a URL.

    Raises:
        ValueError: nothing is, it does not answer, or it is larger than `most` bytes.
    """
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            content = answer.read(most + 1)
    except (OSError, ValueError) as error:  # no network, no such place, no such URL
        reason = files.line(str(getattr(error, "reason", error)))
        raise ValueError(f"{entry.name} cannot be read from {url} ({reason}); allowed: another source") from error
    if len(content) > most:
        raise ValueError(f"{entry.name} at {url} has more than {most:,} bytes; it is not used")
    return content
