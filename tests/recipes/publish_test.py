"""`recipes.publish`: the package has all of the published runs, or what it had before."""

import hashlib
import json

import pytest

from recipes import publish
from tests.recipes.compare_test import card_of
from tests.recipes.leaderboard_test import evaluated, write


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder of two runs, the first of which is for the package, and the folder of the package."""
    package = tmp_path / "package"
    package.mkdir()
    for name in ("index.json", "first.keras", "first.json"):
        (package / name).write_text("before")
    for name in ("first", "second"):
        path = write(tmp_path / "runs" / name, card_of("nuat", 0.98, 0.9))
        path.with_name("network.keras").write_bytes(name.encode())
        evaluated(path, 0.7)
    monkeypatch.setattr(publish, "PUBLISHED", {"first": "first", "second": "second"})
    monkeypatch.setattr(publish, "IN_PACKAGE", ("first",))
    monkeypatch.setattr(publish, "PACKAGE", package)
    monkeypatch.setattr(publish, "INDEX", package / "index.json")
    return tmp_path / "runs", package


def test_the_package_gets_its_networks_and_the_index_has_all(published):
    runs, package = published
    evaluated(runs / "first" / "card.json", 0.8, name="another", attacks=[["autoattack", {}]], images=1001)
    assert publish.command([f"--runs={runs}"]) == 0
    index = json.loads((package / "index.json").read_text())
    assert list(index) == ["first", "second"] and index["second"]["sha256"] == hashlib.sha256(b"second").hexdigest()
    assert (index["first"]["is_in_package"], index["second"]["is_in_package"]) == (True, False)
    assert (index["first"]["clean"], index["first"]["robust"], index["first"]["attacked"]) == (0.98, 0.7, 1000)
    assert (package / "first.keras").read_bytes() == b"first" and not (package / "second.keras").exists()
    assert (package / "first.json").read_bytes() == (runs / "first" / "card.json").read_bytes()


@pytest.mark.parametrize("missing", ["network.keras", "card.json", "evaluation/autoattack/results.json"])
def test_where_a_run_is_not_finished_the_package_stays_as_it_is(missing, published):
    runs, package = published
    (runs / "second" / missing).unlink()
    with pytest.raises(ValueError, match=f"which lacks second/{missing}; allowed: finished, evaluated runs"):
        publish.command([f"--runs={runs}"])
    assert {each.read_text() for each in package.iterdir()} == {"before"}


def test_where_a_card_cannot_be_read_the_package_stays_as_it_is(published):
    runs, package = published
    (runs / "second" / "card.json").write_text("{")
    with pytest.raises(ValueError, match="second/card.json', which is not JSON"):
        publish.command([f"--runs={runs}"])
    assert {each.read_text() for each in package.iterdir()} == {"before"}


@pytest.mark.parametrize(
    "change",
    [{"attacks": [["pgd", {"steps": 40}]]}, {"epsilon": 0.1}, {"norm": "l2"}, {"split": "validation"}],
    ids=["attack", "epsilon", "norm", "split"],
)
def test_what_is_not_autoattack_on_test_images_at_the_run_s_epsilon_is_not_published(change, published):
    runs, package = published
    path = runs / "second" / "evaluation" / "autoattack" / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match="second/evaluation/autoattack', which is of another .*; allowed: autoattack"):
        publish.command([f"--runs={runs}"])
    assert {each.read_text() for each in package.iterdir()} == {"before"}
