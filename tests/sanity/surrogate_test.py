"""The surrogate that is trained on the spot: how long that may take."""

import pytest

from sanity.clock import Clock
from sanity.measure import surrogate
from sanity.subject import Subject
from tests.helpers import linear


@pytest.mark.parametrize(("options", "steps"), [({}, 3), ({"seconds": 600.0}, 3), ({"seconds": 0.0}, 1)])
def test_its_training_ends_with_the_steps_or_the_seconds(options, steps, monkeypatch):
    monkeypatch.setattr(surrogate, "STEPS", 3)
    images, labels = linear.batch(100)
    trained = surrogate.train(images, labels, num_classes=linear.CLASSES, **options)
    assert trained.optimizer.iterations.numpy() == steps
    assert trained.stop_training is (steps == 1)  # which says that the time ended it


def test_a_judgement_gives_it_a_share_of_the_time_that_is_left(monkeypatch):
    asked = []

    def train(images, labels, **options):
        asked.append(options["seconds"])
        return linear.network(seed=1)

    monkeypatch.setattr(surrogate, "train", train)
    images, labels = linear.batch(20)
    for clock in (Clock(100.0), Clock()):
        subject = Subject(linear.shared(), images, labels, epsilon=0.1, training_data=(images, labels), clock=clock)
        assert len(subject.surrogates()) == 1
    assert asked == [pytest.approx(25.0, abs=1.0), float("inf")]
