"""The nuclear norm of robust and of fooled images: closed forms, and when nothing is reported."""

import functools

import keras
import numpy as np
import pytest

from sanity import Verdict, measure, report
from sanity.checks.nuclear_norm_separates import BATCH, DRAWS, nuclear_norm_separates, per_image
from sanity.settings import Settings
from sanity.subject import Subject
from tests.helpers import linear


@functools.cache
def scaled(scale):
    inputs = keras.Input(linear.SHAPE)
    return keras.Model(inputs, linear.shared()(inputs) * scale)


def subject(size=200, epsilon=0.05, scale=1.0):
    images, _ = linear.batch(size)
    network = scaled(scale)
    labels = network.predict(images, verbose=0).argmax(axis=1)
    return Subject(network, images, labels, epsilon=epsilon)


EPSILON = 0.06  # at which PGD fools about half of the images


def test_the_norm_of_equal_rows_is_that_of_the_row_times_the_root_of_their_number():
    row = np.array([3.0, -4.0, 0.0])
    np.testing.assert_allclose(per_image(np.tile(row, (30, 1)), 25, 0), 5.0 / np.sqrt(25))
    assert per_image(np.tile(row, (30, 1)), 25, 0).shape == (DRAWS,)


def test_the_norm_is_the_sum_of_singular_values():
    rows = np.random.default_rng(0).normal(size=(40, 10))
    found = per_image(rows, 20, 5)
    chosen = rows[np.random.default_rng(5).integers(40, size=(DRAWS, 20))]
    expected = np.sum(np.sqrt(np.maximum(np.linalg.eigvalsh(chosen.transpose(0, 2, 1) @ chosen), 0.0)), axis=1) / 20
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_value_and_groups_are_those_of_the_logits_where_pgd_ends():
    judged, settings = subject(epsilon=EPSILON), Settings()
    result = nuclear_norm_separates(judged, settings)
    robust = judged.correct("pgd", **settings.pgd(EPSILON))
    end = measure.trace.pgd(judged.network, judged.images, judged.labels, **settings.pgd(EPSILON), batch_size=200)
    moved = end.last_logits - end.clean_logits
    size = min(BATCH, robust.sum(), (~robust).sum())
    ratio = per_image(moved[robust], size, (0, 0)).mean() / per_image(moved[~robust], size, (0, 1)).mean()
    assert result.value == pytest.approx(ratio, rel=1e-4) and result.interval[0] <= ratio <= result.interval[1]
    assert result.verdict is Verdict.REPORTED and "no evidence" in result.explanation and result.remedy == ""
    assert [bar.name.split(":")[0] for bar in result.series.bars] == [
        f"robust, {np.sum(robust)} images",
        f"fooled, {np.sum(~robust)} images",
    ]
    assert max(bar.high for bar in result.series.bars) == 1.0
    first, second = result.series.bars
    assert first.y / second.y == pytest.approx(result.value)
    assert report.figures.png(result).startswith(b"\x89PNG")


def test_the_ratio_does_not_change_with_the_scale_of_the_logits():
    one, ten = (nuclear_norm_separates(subject(epsilon=EPSILON, scale=scale), Settings()) for scale in (1.0, 2.0))
    assert ten.value == pytest.approx(one.value, rel=0.05)


@pytest.mark.parametrize(("size", "radius"), [(200, 1e-4), (200, 0.9), (12, None)])
def test_skipped_where_one_kind_is_missing_or_too_few(size, radius):
    result = nuclear_norm_separates(subject(size=size, epsilon=radius or EPSILON), Settings())
    assert result.verdict is Verdict.SKIPPED and result.value is None and "10 of each kind" in result.explanation
