"""`recipes.demo`: it says which of its promises is not kept. `make demo` runs it."""

import pytest

from recipes import demo
from sanity import verdict


@pytest.mark.parametrize(
    "gain, standard, nuat, missed",
    [
        (0.7, verdict.NOT, verdict.ROBUST, ""),
        (0.7, verdict.NOT, verdict.PARTLY, "nuat is judged partly robust (promised: genuinely robust)"),
        (0.5, verdict.NOT, verdict.ROBUST, "50.0% more accuracy under PGD-40 (promised: 60%)"),
        (
            0.5,
            verdict.UNDECIDED,
            verdict.ROBUST,
            "50.0% more accuracy under PGD-40 (promised: 60%); standard is judged undecided (promised: not robust)",
        ),
    ],
)
def test_what_is_not_as_promised_is_named(gain, standard, nuat, missed):
    assert demo.not_as_promised(gain, {"standard": standard, "nuat": nuat}) == missed
