"""Pre-trained networks: the index, the files of the package, and what is wrong with files from elsewhere."""

import hashlib
import http.server
import json
import pathlib
import re
import sys
import threading

import keras
import numpy as np
import pytest

from tests.helpers.small import dense
from tf_nuat import card, networks
from tf_nuat.networks import __main__ as main
from tf_nuat.networks.pretrained import Entry, fetching, files, index

RESULTS = pathlib.Path(__file__).parents[2] / "results"
ELSEWHERE = "cifar10_small_trades"
IN_PACKAGE = [name for name, entry in index().items() if entry.is_in_package]


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A folder with a network under the name of one that the package does not have; the cache is another folder."""
    entry = index()[ELSEWHERE]
    path = tmp_path / "source" / entry.path
    path.parent.mkdir(parents=True)
    dense(0).save(path)
    path.with_name("card.json").write_text("{}")
    changed = entry._replace(sha256=hashlib.sha256(path.read_bytes()).hexdigest(), size=path.stat().st_size)
    # By its full name: as an attribute of the package, `pretrained` is the function.
    module = sys.modules["tf_nuat.networks.pretrained"]
    known = {**index(), ELSEWHERE: changed}
    monkeypatch.setattr(module, "index", lambda: known)
    monkeypatch.setenv(fetching.CACHE, str(tmp_path / "cache"))
    return tmp_path / "source"


@pytest.fixture
def url(source):
    """The URL of `source`."""
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *arguments: None})
    with http.server.ThreadingHTTPServer(("localhost", 0), lambda *given: handler(*given, directory=source)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", IN_PACKAGE)
def test_the_package_has_networks_with_their_cards(name):
    entry = index()[name]
    network = networks.pretrained(name)
    path, beside = files(name)
    found = card.read(beside)
    assert network.count_params() == found.parameters and path.stat().st_size == entry.size
    assert (found.dataset, found.norm, found.epsilon) == (entry.dataset, entry.norm, entry.epsilon)
    assert found.measured["clean"].accuracy == entry.clean > entry.robust > 0.0


@pytest.mark.parametrize("name", index())
def test_the_index_is_that_of_the_results(name):
    """The repository's results are a source."""
    entry = index()[name]
    if not (RESULTS / entry.path).exists():
        pytest.skip("the results have no networks here")
    path, beside = files(name, source=RESULTS)
    evaluated = json.loads(
        (RESULTS / entry.path).with_name("evaluation").joinpath("autoattack/results.json").read_text()
    )
    assert evaluated["stages"][-1]["accuracy"] == entry.robust and evaluated["images"] == entry.attacked
    assert path.stat().st_size == entry.size and card.read(beside).defense == entry.defense


def test_a_network_comes_from_a_folder(source):
    assert networks.pretrained(ELSEWHERE, source=source).output_shape == (None, 10)


def test_a_network_comes_from_a_url_once(url, source, tmp_path):
    first = networks.pretrained(ELSEWHERE, source=url)
    for path in source.rglob("*.*"):
        path.unlink()
    for options in ({"source": url}, {}):
        again = networks.pretrained(ELSEWHERE, **options)
        np.testing.assert_array_equal(again.get_weights()[0], first.get_weights()[0])
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".json", ".keras"]


def test_an_unknown_name_lists_them():
    with pytest.raises(ValueError, match=r"name is 'resnet'; allowed: .*mnist_nuat, "):
        networks.pretrained("resnet")


def test_without_a_source_the_line_says_what_to_give(source):
    with pytest.raises(ValueError, match=rf"{ELSEWHERE} is not in the package; allowed: with source= \(--source\)"):
        networks.pretrained(ELSEWHERE)


def test_a_checksum_that_does_not_fit_is_a_line(url, source, tmp_path):
    path = source / index()[ELSEWHERE].path
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"x")
    for given, words in ((source, "whose SHA-256 begins with"), (url, "has another SHA-256")):
        with pytest.raises(ValueError, match=words):
            networks.pretrained(ELSEWHERE, source=given)
    assert not (tmp_path / "cache").exists()
    path.write_bytes(good + b"and more")
    with pytest.raises(ValueError, match="has more than"):
        networks.pretrained(ELSEWHERE, source=url)


def test_a_damaged_cache_is_named_and_an_old_one_is_not_used(url, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{ELSEWHERE}-000000000000.keras").write_bytes(b"of an earlier version")
    networks.pretrained(ELSEWHERE, source=url)
    (current,) = (path for path in (tmp_path / "cache").glob("*.keras") if "000000000000" not in path.name)
    current.write_bytes(b"cut")
    with pytest.raises(ValueError, match=rf"{re.escape(str(current))}.*remove it, and fetch it again"):
        networks.pretrained(ELSEWHERE)


@pytest.mark.parametrize("wrong", ["http://localhost:9/nothing", "http://", "https://["])
def test_no_network_is_a_line(wrong, source):
    with pytest.raises(ValueError) as raised:
        networks.pretrained(ELSEWHERE, source=wrong)
    assert "cannot be read" in str(raised.value) and "\n" not in str(raised.value)


def test_the_command_lists_and_writes(tmp_path, capsys):
    assert main.command([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in index()) and max(map(len, shown.splitlines())) <= 100
    out = tmp_path / "network"
    assert main.command(["--name=mnist_nuat", f"--out={out}"]) == 0
    assert keras.saving.load_model(out / "network.keras").name == "mnist_cnn"
    assert card.read(out / "card.json").dataset == "mnist"
    with pytest.raises(ValueError, match=r"which has network\.keras; allowed"):
        main.command(["--name=mnist_nuat", f"--out={out}"])


def test_an_entry_has_what_the_index_says():
    assert all(isinstance(entry, Entry) and re.fullmatch(r"[0-9a-f]{64}", entry.sha256) for entry in index().values())
