"""How many images a judgement takes where nobody says it, and which surrogates."""

import re

import numpy as np
import pytest

from sanity import inputs, run
from sanity.settings import BUDGETS
from tests.helpers import small
from tf_nuat import command_line


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "network.keras"
    small.undefended().save(path)
    return path


def collected(checkpoint, out, *more):
    values = run.flag_values()
    given = ["--checkpoint", str(checkpoint), "--dataset", "digits", "--epsilon", "0.2", "--out", str(out), *more]
    command_line.parse(values, [*given, "--checks", "network_is_deterministic"], "")
    return inputs.collect(values, "")


def test_there_is_an_image_for_each_class_whatever_the_budget_says(checkpoint, tmp_path, monkeypatch):
    for samples, images in ((4, 10), (40, 40)):
        monkeypatch.setitem(BUDGETS, "quick", BUDGETS["quick"]._replace(samples=samples))
        assert collected(checkpoint, tmp_path, "--budget", "quick").subject.sample_size == images


@pytest.mark.parametrize(
    ("flags", "said"), [([], "--dataset gives 7 images; allowed"), (["--samples", "9"], "--samples leaves 9 images;")]
)
def test_too_few_images_are_no_fault_of_a_flag_that_is_not_given(checkpoint, tmp_path, monkeypatch, flags, said):
    sample = inputs.sampling.sample

    def fewer(*arguments, samples, **options):
        return sample(*arguments, **{**options, "samples": samples if flags else 7})

    monkeypatch.setattr(inputs.sampling, "sample", fewer)
    with pytest.raises(ValueError, match=re.escape(said)):
        collected(checkpoint, tmp_path, *flags)


def test_a_surrogate_that_has_learned_nothing_is_left_out(checkpoint, tmp_path, caplog):
    """Nothing transfers from it; the judgement goes on, with the other one."""
    always = small.dense(0, hidden=0)
    always.set_weights([np.zeros((64, 10)), 10.0 * np.eye(10)[3]])
    always.save(tmp_path / "always.keras")
    given = ["--surrogate", str(tmp_path / "always.keras"), "--surrogate", str(checkpoint), "--samples", "100"]
    found = collected(checkpoint, tmp_path / "out", *given)
    assert found.provenance["surrogates"] == [str(checkpoint)]
    assert f"--surrogate {tmp_path / 'always.keras'} is left out: it is right on " in caplog.text
    assert "gives one class, 3, for every image" in caplog.text and "--pixels is of" not in caplog.text
