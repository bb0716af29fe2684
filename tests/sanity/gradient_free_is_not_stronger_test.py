"""Square against PGD: an attack without gradients must not find what the gradients hide."""

import numpy as np
import pytest
import scipy.stats

from sanity import Verdict, measure
from sanity.checks.gradient_free_is_not_stronger import gradient_free_is_not_stronger
from sanity.settings import BUDGETS, Settings
from sanity.subject import Subject
from tests.helpers import linear, small

EPSILON = 0.1
QUICK = BUDGETS["quick"].settings


@pytest.fixture(scope="module")
def sample():
    return small.sample(200)


@pytest.fixture(scope="module")
def undefended():
    return small.undefended()


def judge(network, sample, epsilon=EPSILON):
    return gradient_free_is_not_stronger(Subject(network, *sample, epsilon=epsilon), QUICK)


def test_hidden_gradients_are_seen(undefended, sample):
    result = judge(small.quantised(undefended), sample)
    assert result.verdict is Verdict.FAIL
    assert result.value > 0.1 and result.interval[0] > result.threshold == 0.005
    assert "do not lead" in result.explanation and result.remedy and result.reference


def test_what_other_gradients_lead_to_is_not_hidden(undefended, sample, monkeypatch):
    """Saturated logits, whose margin has a gradient; and a weak PGD: adversaries that a better attack finds."""
    assert judge(small.saturated(undefended), sample).verdict is Verdict.PASS
    monkeypatch.setattr(Settings, "pgd", lambda self, epsilon: {"epsilon": epsilon / 4, "steps": 5})
    assert judge(undefended, sample).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("square", "apgd", "margin", "targeted", "expected", "share"),
    [
        (20, 20, 0, 0, Verdict.PASS, 0.0),  # SAT-R2 on MNIST: APGD finds what Square does
        (20, 0, 0, 0, Verdict.FAIL, 0.02),
        (20, 2, 18, 0, Verdict.PASS, 0.0),  # an undefended network
        (14, 0, 0, 0, Verdict.FAIL, 0.014),
        (20, 2, 3, 15, Verdict.PASS, 0.0),  # small dense networks of PGD-AT
        (20, 2, 2, 2, Verdict.FAIL, 0.014),
        (11, 0, 0, 0, Verdict.PASS, 0.011),  # 1.3 % by chance
        (12, 0, 0, 0, Verdict.FAIL, 0.012),  # 0.5 %
        (90, 90, 0, 0, Verdict.PASS, 0.0),  # PGD is too weak
        (60, 60, 0, 0, Verdict.PASS, 0.0),
    ],
)
def test_what_gradients_lead_to_is_not_hidden(square, apgd, margin, targeted, expected, share):
    """With prescribed outcomes for 1,000 images, of which PGD leaves 900."""

    class Prescribed:
        epsilon, num_classes, chance = EPSILON, 10, 0.1

        def __len__(self):
            return 1000

        def correct(self, attack=None, *, among=None, **settings):
            if among is None:
                assert attack in (None, "pgd")
                return np.arange(1000) < (1000 if attack is None else 900)
            # APGD looks at what Square found, PGD on the margin at what APGD did not, and so on.
            left = {"square": 900, "apgd_ce": square, "pgd": square - apgd, "apgd_t": square - apgd - margin}
            assert among.sum() == left[attack]
            assert settings.get("loss") == ("margin" if attack == "pgd" else None)
            found = {"square": square, "apgd_ce": apgd, "pgd": margin, "apgd_t": targeted}[attack]
            left = among.copy()
            left[np.flatnonzero(among)[:found]] = False
            return left

    result = gradient_free_is_not_stronger(Prescribed(), Settings())
    assert (result.verdict, result.value) == (expected, share)
    expected_bars = [1.0, 0.9, 0.9 - square / 1000, 0.9 - (apgd + margin + targeted) / 1000]
    assert [bar.y for bar in result.series.bars] == pytest.approx(expected_bars)


@pytest.mark.parametrize("epsilon", [0.03, 0.3])
def test_an_undefended_network_passes_and_keeps_its_weights(epsilon, undefended, sample):
    before = [weight.copy() for weight in undefended.get_weights()]
    assert judge(undefended, sample, epsilon).verdict is Verdict.PASS
    for one, other in zip(before, undefended.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_a_robust_network_passes(sample):
    result = judge(small.robust(EPSILON), sample)
    assert result.verdict is Verdict.PASS
    assert result.series.bars[1].y > 0.5  # there was something to find


def test_a_linear_network_passes_and_square_finds_nothing():
    """Along a linear network's gradients lies the worst point of the ball: nothing is left for any other attack."""
    network, images = linear.shared(), linear.batch(300)[0]
    labels = network(images).numpy().argmax(axis=1)
    result = judge(network, (images, labels), 0.02)
    assert result.verdict is Verdict.PASS and result.value <= 1 / 300
    assert 0.3 < result.series.bars[1].y < 0.95


def test_a_small_sample_says_how_many_images_would_decide(undefended, sample):
    result = judge(undefended, tuple(part[:20] for part in sample))
    assert result.verdict is Verdict.INCONCLUSIVE and result.value == 0.0
    number = int("".join(filter(str.isdigit, result.remedy)))
    assert high(0, number) < 0.055 <= high(0, number - 10)


def high(successes, images):
    """Returns Wilson's upper limit, in closed form."""
    z, share = scipy.stats.norm.ppf(0.975), successes / images
    middle = share + z**2 / (2 * images)
    half = z * np.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    return (middle + half) / (1 + z**2 / images)


@pytest.mark.parametrize(
    ("left", "fooled", "images", "expected"),
    [
        (900, 0, 1000, Verdict.PASS),
        (900, 11, 1000, Verdict.PASS),  # 11 and more of 1,000 by chance: 1.3 %
        (900, 12, 1000, Verdict.FAIL),  # 0.5 %
        (5, 5, 1000, Verdict.PASS),  # all that is left, and next to nothing
        (0, 0, 1000, Verdict.PASS),
        (90, 1, 100, Verdict.PASS),
        (90, 6, 100, Verdict.FAIL),
        (40, 0, 50, Verdict.INCONCLUSIVE),
        (40, 1, 50, Verdict.INCONCLUSIVE),
    ],
)
def test_the_verdict_is_that_of_the_exact_test(left, fooled, images, expected):
    before, after = np.arange(images) < left, np.arange(images) < left - fooled
    loss = measure.survivors.loss(before, after, Settings(), tolerance=0.005)
    assert loss.verdict is expected
    chance = scipy.stats.binom.sf(fooled - 1, images, 0.005)
    assert (loss.verdict is Verdict.FAIL) == (chance < 0.01)
    assert (loss.value, loss.left, loss.fooled) == (fooled / images, left, fooled)
    assert loss.high == pytest.approx(high(fooled, images))
    assert (loss.decisive is not None) == (expected is Verdict.INCONCLUSIVE)


def test_several_comparisons_share_alpha():
    before, after = np.ones(1000, bool), np.arange(1000) >= 12
    assert measure.survivors.loss(before, after, Settings(), tolerance=0.005).verdict is Verdict.FAIL
    assert measure.survivors.loss(before, after, Settings(), tolerance=0.005, tests=2).verdict is Verdict.PASS
