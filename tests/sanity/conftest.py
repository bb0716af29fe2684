"""The adaptive stage of a judgement is cut short: its own tests let it go on."""

import pytest

from sanity import judgement


@pytest.fixture(autouse=True)
def short_adaptive_stage(monkeypatch):
    monkeypatch.setattr(judgement, "ADAPTIVE_SECONDS", 2.0)
