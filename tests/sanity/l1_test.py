"""What a judgement and the figures do in L1, where steps of PGD are longer, and which FGSM has no version for."""

import numpy as np
import pytest

from sanity.checks.step_count_saturates import step_count_saturates, step_size
from sanity.figures import FIGURES, Model, NotShownError, Options
from sanity.settings import Settings
from sanity.subject import Subject
from tests.helpers import linear
from tf_nuat import norms


def subject_of(norm):
    return Subject(linear.shared(), *linear.batch(40), epsilon=0.5, norm=norm)


@pytest.mark.parametrize(("norm", "size"), [("linf", 0.0625), ("l2", 0.0625), ("l1", 0.25)])
def test_more_steps_are_as_long_as_those_of_the_pgd_that_is_reported(norm, size):
    settings = Settings(steps=20, most_steps=20, way=norms.of(norm).way)
    subject = subject_of(norm)
    step_count_saturates(subject, settings)
    steps = {each.settings["steps"]: each.settings["step_size"] for each in subject.evaluations() if each.attack}
    assert steps[20] == settings.pgd(0.5)["step_size"] == size
    assert steps[1] == step_size(0.5, 1, settings) == 0.5  # no longer than the ball is wide
    np.testing.assert_allclose(steps[10], min(2.0 * size, 0.5))


def test_the_figure_of_steps_says_how_long_they_are():
    kind = FIGURES["accuracy_steps"]
    models = [Model("linear", subject_of("l1"))]
    data = kind.measure(models, Options(settings=Settings(steps=5, most_steps=5, way=10.0)))
    for way, found in (("10", data), ("2.5", {name: value for name, value in data.items() if name != "way"})):
        (axes,) = kind.draw(found).axes
        assert f"step size {way} epsilon / steps" in axes.get_xlabel()


def test_there_is_no_loss_trend_in_l1():
    kind = FIGURES["loss_trend"]
    for norm in ("linf", "l2"):
        kind.check([Model("linear", subject_of(norm))], Options())
    with pytest.raises(NotShownError, match="FGSM has no version for L1"):
        kind.check([Model("linear", subject_of("l1"))], Options())
