import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import sanity
from sanity import Verdict, report
from sanity.checks import CHECKS
from sanity.checks.larger_epsilon_is_stronger import epsilons
from sanity.judgement import checked_names, in_order, judge_subject
from sanity.settings import BUDGETS, Settings
from sanity.subject import Subject, Surrogate
from tests.helpers import small
from tf_nuat import data, evaluate
from tf_nuat.attacks import ATTACKS

QUICK = BUDGETS["quick"].settings
STEP_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def undefended():
    return small.undefended()


@pytest.fixture(scope="module")
def surrogate():
    return small.undefended(seed=1)


class Prescribed:
    """A subject whose outcomes are prescribed: `accuracy(attack, source, settings)` of `size` images are correct.

    The images that stay correct are the same ones as far as they can be, as for attacks of which one is stronger.
    """

    def __init__(self, accuracy, size=1000, surrogates=()):
        self.accuracy, self.size, self.epsilon, self.chance = accuracy, size, 0.25, 0.1
        self.names = surrogates
        self.largest, self.radius_label = 1.0, "epsilon"

    def __len__(self):
        return self.size

    def correct(self, attack=None, *, source=None, **settings):
        if attack is None or settings.get("epsilon") == 0:
            return np.ones(self.size, bool)
        return np.arange(self.size) < round(self.accuracy(attack, source, settings) * self.size)

    def surrogates(self):
        return tuple(Surrogate(name, None, np.ones(self.size, bool)) for name in self.names)


def verdict(check, accuracy, size=1000, surrogates=()):
    return CHECKS[check](Prescribed(accuracy, size, surrogates), Settings()).verdict


def by_steps(accuracies):
    table = dict(zip(STEP_COUNTS, accuracies))
    return lambda attack, source, settings: table[settings["steps"]]


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.5, 0.5, 0.5], Verdict.PASS),
        ([0.9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], Verdict.PASS),  # another check's to see
        ([0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.5, 0.5, 0.498], Verdict.PASS),
        ([0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.5, 0.5, 0.45], Verdict.PASS),  # PGD is weak, and nothing is masked
        ([0.9, 0.01, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05], Verdict.PASS),  # no more than chance is left
        ([0.5, 0.5, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6], Verdict.FAIL),
        ([0.9, 0.5, 0.52, 0.54, 0.54, 0.54, 0.54, 0.54, 0.54], Verdict.FAIL),
    ],
)
def test_step_count(accuracies, expected):
    assert verdict("step_count_saturates", by_steps(accuracies)) is expected


def test_step_count_says_what_it_saw():
    rising = CHECKS["step_count_saturates"](Prescribed(by_steps([0.2] * 8 + [0.9])), Settings())
    falling = CHECKS["step_count_saturates"](Prescribed(by_steps([0.9] * 8 + [0.2])), Settings())
    assert "rise" in rising.quantity and rising.value == pytest.approx(0.7) and rising.remedy
    assert "still falls, by 70.0%" in falling.explanation and "to 500 steps" in falling.explanation
    for result in (rising, falling):
        assert result.reference and result.interval[0] <= result.value <= result.interval[1] + 1e-9


@pytest.mark.parametrize("check", ["step_count_saturates", "larger_epsilon_is_stronger", "white_box_beats_black_box"])
def test_a_small_sample_is_inconclusive(check):
    assert verdict(check, lambda *_: 0.5, size=20, surrogates=["other"]) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("check", "accuracy", "seen"),
    [
        ("step_count_saturates", by_steps([0.02] + [0.135] * 8), "Accuracy rises by 11.5% from 1 to 2 steps."),
        (
            "larger_epsilon_is_stronger",
            lambda attack, source, settings: 0.02 if settings["epsilon"] == 0.0625 else 0.135,
            "The success rate of PGD drops by 11.5% from epsilon 0.0625 to 0.125.",
        ),
        (
            "white_box_beats_black_box",
            lambda attack, source, settings: 0.135 if source is None else 0.02,
            "With PGD from other instead of PGD on the network itself, 11.5% more images are fooled.",
        ),
    ],
)
def test_a_sign_is_told_where_only_what_the_attack_leaves_is_open(check, accuracy, seen):
    """27 of 200 images are left, where chance is 20."""
    result = CHECKS[check](Prescribed(accuracy, 200, ["other"]), Settings())
    left = "The weaker attack leaves 13.5% of the images, and they are too few to tell that from chance (10.0%)."
    assert result.verdict is Verdict.INCONCLUSIVE and result.explanation == f"{seen} {left}"


@pytest.mark.parametrize(
    ("multiples", "expected"),
    [
        ({0.25: 0.9, 0.5: 0.7, 1.0: 0.4, 2.0: 0.1, 4.0: 0.0}, Verdict.PASS),
        ({0.25: 0.0, 0.5: 0.0, 1.0: 0.0, 2.0: 0.0, 4.0: 0.0}, Verdict.PASS),
        ({0.25: 0.9, 0.5: 0.7, 1.0: 0.4, 2.0: 0.1, 4.0: 0.3}, Verdict.FAIL),
        ({0.25: 0.5, 0.5: 0.53, 1.0: 0.2, 2.0: 0.1, 4.0: 0.0}, Verdict.FAIL),
    ],
)
def test_larger_epsilon(multiples, expected):
    assert verdict("larger_epsilon_is_stronger", lambda a, s, k: multiples[k["epsilon"] / 0.25]) is expected


def test_epsilons_stay_within_the_images():
    assert epsilons(0.125, 1.0) == (0.0, 0.03125, 0.0625, 0.125, 0.25, 0.5, 1.0)
    assert epsilons(0.25, 1.0) == (0.0, 0.0625, 0.125, 0.25, 0.5, 1.0)
    assert epsilons(1.0, 1.0) == (0.0, 0.25, 0.5, 1.0)
    assert epsilons(2.0, 4.0) == (0.0, 0.5, 1.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("accuracy", "size", "expected"),
    [
        (0.0, 1000, Verdict.PASS),
        (0.1, 1000, Verdict.PASS),
        (0.2, 1000, Verdict.FAIL),
        (0.1, 50, Verdict.INCONCLUSIVE),
        (0.0, 10, Verdict.INCONCLUSIVE),
    ],
)
def test_large_epsilon(accuracy, size, expected):
    assert (
        verdict("large_epsilon_reaches_chance", lambda a, s, k: {0.25: 0.9, 1.0: accuracy}[k["epsilon"]], size)
        is expected
    )


def test_without_a_limit_any_image_is_allowed_whatever_epsilon_is():
    subject = Prescribed(lambda attack, source, settings: {0.1: 0.9, 1.0: 0.0}[settings["epsilon"]])
    subject.epsilon = 0.1
    assert CHECKS["large_epsilon_reaches_chance"](subject, Settings()).verdict is Verdict.PASS


def test_without_a_limit_nothing_is_overrated_where_pgd_leaves_no_more_than_chance():
    result = CHECKS["large_epsilon_reaches_chance"](
        Prescribed(lambda a, s, k: {0.25: 0.1, 1.0: 0.3}[k["epsilon"]]), Settings()
    )
    assert result.verdict is Verdict.PASS and result.p_value == 1.0 and "nothing that masked" in result.explanation


@pytest.mark.parametrize(
    ("own", "transferred", "expected"),
    [
        ({"pgd": 0.5, "fgsm": 0.6}, {"pgd": 0.6, "fgsm": 0.7}, Verdict.PASS),
        ({"pgd": 0.5, "fgsm": 0.5}, {"pgd": 0.5, "fgsm": 0.5}, Verdict.PASS),
        ({"pgd": 0.5, "fgsm": 0.6}, {"pgd": 0.4, "fgsm": 0.7}, Verdict.FAIL),
        ({"pgd": 0.5, "fgsm": 0.3}, {"pgd": 0.7, "fgsm": 0.4}, Verdict.FAIL),
        ({"pgd": 0.5, "fgsm": 0.6}, {"pgd": 0.6, "fgsm": 0.7, "mifgsm": 0.4}, Verdict.FAIL),
        ({"pgd": 0.5, "fgsm": 0.6}, {"pgd": 0.6, "fgsm": 0.7, "mifgsm": 0.5}, Verdict.PASS),
        ({"pgd": 0.0, "fgsm": 0.8}, {"pgd": 0.2, "fgsm": 0.2}, Verdict.FAIL),  # catastrophic overfitting
        ({"pgd": 0.0, "fgsm": 0.1}, {"pgd": 0.0, "fgsm": 0.02}, Verdict.PASS),  # an honest network, a large epsilon
    ],
)
def test_white_box(own, transferred, expected):
    def accuracy(attack, source, settings):
        return own[attack] if source is None else transferred.get(attack, transferred["pgd"])

    assert verdict("white_box_beats_black_box", accuracy, surrogates=["a", "b"]) is expected


def test_white_box_needs_a_surrogate_that_learned_something(monkeypatch):
    """Of 1,000 images in 10 classes 100 are chance: what transfers from such a network says nothing."""
    for right, expected in ((100, Verdict.INCONCLUSIVE), (200, Verdict.PASS)):
        monkeypatch.setattr(
            Prescribed, "surrogates", lambda self, right=right: (Surrogate("a", None, np.arange(1000) < right),)
        )
        result = CHECKS["white_box_beats_black_box"](Prescribed(lambda *_: 0.5), Settings())
        assert result.verdict is expected
        assert ("better than chance" in result.explanation) is (expected is Verdict.INCONCLUSIVE)


def test_white_box_needs_no_surrogate_that_learned_something_where_nothing_is_overrated(monkeypatch):
    """Otherwise a network that withstands nothing would be undecided wherever a surrogate is hard to train."""
    monkeypatch.setattr(Prescribed, "surrogates", lambda self: (Surrogate("a", None, np.arange(1000) < 100),))
    for fgsm, expected in ((0.05, Verdict.PASS), (0.5, Verdict.INCONCLUSIVE)):
        left = {"pgd": 0.0, "mifgsm": 0.0, "fgsm": fgsm}
        subject = Prescribed(lambda attack, source, settings, left=left: left[attack] if source is None else 0.9)
        assert CHECKS["white_box_beats_black_box"](subject, Settings()).verdict is expected


def test_white_box_is_skipped_without_surrogate():
    result = CHECKS["white_box_beats_black_box"](Prescribed(lambda *_: 0.5), Settings())
    assert result.verdict is Verdict.SKIPPED
    assert "--surrogate" in result.remedy


def linear(size, seed):
    """Returns a linear classifier of 4x4 images with random weights, images, and its classes: 0 of three tenths."""
    inputs = keras.Input((4, 4, 1))
    outputs = keras.layers.Dense(2, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0, seed=seed))
    network = keras.Model(inputs, outputs(keras.layers.Flatten()(inputs)))
    images = np.random.default_rng(seed).random((size, 4, 4, 1)).astype(np.float32)
    outputs.bias.assign([np.quantile(np.diff(network.predict(images, verbose=0)), 0.3), 0.0])
    return network, images, network.predict(images, verbose=0).argmax(axis=1)


def worst(images, weights, epsilon):
    """Returns the images (N, D) within epsilon (L2) and [0, 1] at which `weights . x` is lowest.

    Every pixel moves against its weight by a multiple of it, or as far as [0, 1] allows.
    """
    low, high = np.zeros((len(images), 1)), np.full((len(images), 1), 1e4)
    for _ in range(100):
        middle = (low + high) / 2
        far = np.linalg.norm(np.clip(images - middle * weights, 0.0, 1.0) - images, axis=1, keepdims=True) > epsilon
        low, high = np.where(far, low, middle), np.where(far, middle, high)
    return np.clip(images - low * weights, 0.0, 1.0)


def test_a_linear_network_passes_and_its_robust_accuracy_is_the_closed_form():
    """In L2; in L-infinity `zoo_test` judges one, and `run_test` an undefended network."""
    epsilon = 0.4
    network, images, labels = linear(300, seed=3)
    labels[:15] = 1 - labels[:15]  # some are misclassified
    surrogate = linear(1, seed=4)[0]  # is to the network what another training run is: close to it
    kernel, bias = network.get_weights()
    surrogate.set_weights([kernel + 0.5 * surrogate.get_weights()[0], bias])
    subject = Subject(network, images, labels, epsilon=epsilon, norm="l2", surrogates=[surrogate])
    judgement = judge_subject(subject, settings=QUICK, progress=False)

    kernel, bias = network.layers[-1].get_weights()
    sign = np.where(labels == 1, 1.0, -1.0)[:, None]
    weights = sign * (kernel[:, 1] - kernel[:, 0])[None]  # the margin is weights . x + sign * bias
    flat = images.reshape(len(images), -1).astype(np.float64)
    margin = np.sum(weights * worst(flat, weights, epsilon), axis=1) + sign[:, 0] * (bias[1] - bias[0])
    size = judgement.robust.images
    assert abs(judgement.robust.correct - np.sum(margin[:size] > 0)) <= 1  # a margin of 0 may round either way
    assert 0.1 < judgement.robust.accuracy < 0.8 and judgement.clean.correct == size - 15
    assert judgement.subject["norm"] == "L2" and judgement.masking == "not seen"
    found = {result.verdict for result in judgement.results}
    assert found <= {Verdict.PASS, Verdict.REPORTED, Verdict.SKIPPED}  # of two classes chance is much


def saturated(network):
    return keras.layers.Rescaling(1e4)(network.output)


def rounded_logits(network):
    return keras.ops.round(network.output * 1e4)


@pytest.mark.parametrize("layer", [saturated, rounded_logits])
def test_masked_logits_are_caught_by_transfer(digits, undefended, surrogate, layer):
    masked = keras.Model(undefended.input, layer(undefended))
    assert caught(digits, masked, surrogate)


def test_quantised_images_are_caught_by_transfer(digits, undefended, surrogate):
    inputs = keras.Input(digits.input_shape)
    masked = keras.Model(inputs, undefended(keras.ops.round(inputs * 16) / 16))
    assert caught(digits, masked, surrogate)


def caught(digits, masked, surrogate):
    judgement = sanity.judge(
        masked,
        *digits.arrays("test"),
        epsilon=0.2,
        surrogates=[surrogate],
        checks=["white_box_beats_black_box"],
        progress=False,
    )
    (result,) = judgement.results
    assert judgement.verdict == "masked gradients suspected"
    assert result.remedy and result.reference
    return result.verdict is Verdict.FAIL


def test_nothing_is_evaluated_twice(digits, undefended, monkeypatch):
    calls = []
    original = evaluate.correct
    monkeypatch.setattr(evaluate, "correct", lambda *a, **k: calls.append(k) or original(*a, **k))
    subject = Subject(undefended, *digits.arrays("test"), epsilon=0.2)
    first = subject.correct("pgd", **Settings(steps=3).pgd(0.2))
    again = subject.correct("pgd", **Settings(steps=3).pgd(0.2))
    np.testing.assert_array_equal(first, again)
    assert len(calls) == 1
    subject.correct("pgd", **Settings(steps=4).pgd(0.2))
    assert len(calls) == 2


def test_only_the_chosen_images_are_attacked(digits, undefended, monkeypatch):
    """They get what the attack gives them beside all others; of the others the outcome is False."""
    attack = Settings().pgd(0.1)
    everyone = Subject(undefended, *digits.arrays("test"), epsilon=0.1).correct("pgd", **attack)
    subject = Subject(undefended, *digits.arrays("test"), epsilon=0.1)
    clean = subject.correct()
    chosen = np.arange(len(subject)) % 3 == 0
    calls = []
    original = evaluate.correct
    monkeypatch.setattr(evaluate, "correct", lambda *a, **k: calls.append(k.get("among")) or original(*a, **k))
    found = subject.correct("pgd", among=chosen, **attack)
    np.testing.assert_array_equal(found, chosen & everyone)
    assert 0 < found.sum() < (chosen & clean).sum()

    # It is kept, for these images alone.
    np.testing.assert_array_equal(subject.correct("pgd", among=chosen.copy(), **attack), found)
    assert len(calls) == 1
    others = subject.correct("pgd", among=~chosen, **attack)
    assert len(calls) == 2
    np.testing.assert_array_equal(found | others, everyone)

    # The others withstand what they were not attacked with, and what is reported is about the attacked alone.
    subject = Subject(undefended, *digits.arrays("test"), epsilon=0.1)
    subject.correct("pgd", among=chosen, **attack)
    np.testing.assert_array_equal(subject.worst_case(), np.where(chosen, everyone, clean))
    (reported,) = [each for each in subject.evaluations() if each.attack == "pgd"]
    np.testing.assert_array_equal(reported.among, chosen & clean)
    judged = judge_subject(subject, checks=["large_epsilon_reaches_chance"], progress=False).evaluations
    (of_all,) = [each for each in judged if each["settings"].get("epsilon") == 0.1]
    assert of_all["images"] == len(subject)  # every judgement runs PGD, on all of them
    assert of_all["accuracy"] == of_all["left"] == everyone[: len(subject)].mean()


def test_a_sample_that_grows_is_attacked_where_it_is_new(digits, undefended, monkeypatch):
    """What becomes of an image depends on no other, and a subject that saw all at once says the same."""
    images, labels = digits.arrays("test")
    attack, sample = Settings(steps=5).pgd(0.1), in_order(images, labels)
    whole = Subject(undefended, *sample, epsilon=0.1)
    growing, attacked = Subject(undefended, *sample, epsilon=0.1), []
    original = evaluate.correct

    def counted(network, sample, attack=None, *, among=None, **options):
        if attack is not None:
            attacked.append(int(among.sum()))
        return original(network, sample, attack, among=among, **options)

    monkeypatch.setattr(evaluate, "correct", counted)
    for size in (100, 200, 353):
        growing.look_at(size)
        assert len(growing) == len(growing.images) == len(growing.labels) == size
        np.testing.assert_array_equal(growing.correct("pgd", **attack), whole.correct("pgd", **attack)[:size])
        np.testing.assert_allclose(growing.trace(**attack).losses, whole.trace(**attack).losses[:, :size], atol=1e-4)
    assert attacked == [100, 353, 100, 153]
    few = np.bincount(sample[1][:100], minlength=10)
    assert few.max() - few.min() <= 2  # each class in proportion


def test_where_nothing_is_chosen_nothing_is_attacked(digits, undefended, monkeypatch):
    subject = Subject(undefended, *digits.arrays("test"), epsilon=0.1)
    wrong = ~subject.correct()
    assert wrong.any()
    monkeypatch.setattr(evaluate, "correct", None)
    for nobody in (np.zeros(len(subject), bool), wrong):
        outcome = subject.correct("square", epsilon=0.1, queries=100, among=nobody)
        assert outcome.dtype == bool and outcome.shape == (len(subject),) and not outcome.any()
    assert [each.attack for each in subject.evaluations()] == [None]


def test_random_draws_follow_from_the_subjects_seed():
    """A network that is fooled where its one pixel is below a half, and one random point of a ball that reaches it."""
    inputs = keras.Input((1, 1, 1))
    pixel = keras.layers.Flatten()(inputs)
    network = keras.Model(inputs, keras.layers.Concatenate()([pixel, 0.5 + 0.0 * pixel]))
    images, labels = np.full((200, 1, 1, 1), 0.55, np.float32), np.zeros(200, np.int64)

    def found(seed):
        subject = Subject(network, images, labels, epsilon=0.1, seed=seed)
        return subject.correct("random_search", among=np.ones(200, bool), epsilon=0.1, queries=1)

    np.testing.assert_array_equal(found(1), found(1))
    assert np.any(found(1) != found(2))
    assert abs(np.mean(found(1)) - 0.75) < 0.1  # uniform in [0.45, 0.65], fooled below 0.5


def test_batches_have_the_size_that_the_subject_says(digits, undefended):
    """Whatever looks at the network, also in the checks that run it themselves."""

    class Largest(keras.layers.Layer):
        seen = 0

        def call(self, x):
            tf.numpy_function(self.note, [tf.shape(x)[0]], [])
            return x

        def note(self, size):
            self.seen = max(self.seen, int(size))

    largest, inputs = Largest(), keras.Input(digits.input_shape)
    network = keras.Model(inputs, undefended(largest(inputs)))
    images, labels = (part[:60] for part in digits.arrays("test"))
    subject = Subject(network, images, labels, epsilon=0.1, surrogates=[network], batch_size=20)
    settings = Settings(steps=2, most_steps=2, restarts=1, queries=2, points=2)
    largest.seen = 0  # from here on
    for name, check in CHECKS.items():
        check(subject, settings)
        assert largest.seen <= 20, name
    assert largest.seen == 20


@pytest.mark.parametrize(
    "attributes",
    [
        *({name: 0} for name in ("steps", "restarts", "fab_targets", "queries", "points", "slow_images")),
        {"planted_images": 1},
        {"queries": 1.5},
        {"points": True},
        {"most_steps": 39},
        {"steps": 1, "most_steps": 1},
        *({name: value} for name in ("alpha", "confidence", "detectable") for value in (0.0, 1.0, float("nan"))),
    ],
)
def test_settings_out_of_range_are_named(attributes):
    name = list(attributes)[-1]
    with pytest.raises(ValueError, match=f"^{name} is {attributes[name]}; allowed: ") as raised:
        Settings(**attributes)
    assert "\n" not in str(raised.value)


def test_a_larger_budget_is_harder_in_every_respect():
    names = ("steps", "most_steps", "restarts", "fab_targets", "queries", "points", "slow_images", "planted_images")
    budgets = [([getattr(each.settings, name) for name in names], each) for each in BUDGETS.values()]
    assert list(BUDGETS) == ["quick", "standard", "thorough"] and BUDGETS["standard"].settings == Settings()
    for (less, one), (more, other) in itertools.pairwise(budgets):
        assert one.samples < other.samples and one.minutes < other.minutes
        assert all(a <= b for a, b in zip(less, more)) and less != more


def test_worst_case_joins_the_attacks_within_epsilon(digits, undefended):
    subject = Subject(undefended, *digits.arrays("test"), epsilon=0.1)
    inside = subject.correct("fgsm", epsilon=0.1) & subject.correct("pgd", **Settings(steps=2).pgd(0.05))
    subject.correct("pgd", **Settings(steps=2).pgd(0.4))
    np.testing.assert_array_equal(subject.worst_case(), inside & subject.correct())


def test_the_sample_is_stratified_and_seeded():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    chosen = data.stratified(labels, 100, seed=5)
    assert np.bincount(labels[chosen]).tolist() == [60, 30, 10]
    np.testing.assert_array_equal(chosen, data.stratified(labels, 100, seed=5))
    assert set(chosen) != set(data.stratified(labels, 100, seed=6))
    np.testing.assert_array_equal(data.stratified(labels, 5000), np.arange(1000))


def test_a_check_is_skipped_where_an_attack_that_it_needs_has_no_version_for_the_norm(digits, undefended, monkeypatch):
    monkeypatch.setattr(ATTACKS["fgsm"], "norms", ("linf",))
    names = ["iterative_beats_single_step", "loss_rises_with_epsilon", "loss_surface_is_smooth"]
    images, labels = (part[:100] for part in digits.arrays("test"))
    options = {"epsilon": 0.5, "norm": "l2", "progress": False}
    judgement = sanity.judge(undefended, images, labels, checks=[*names, "large_epsilon_reaches_chance"], **options)
    *skipped, other = judgement.results
    for name, result in zip(names, skipped):
        assert (result.name, result.verdict, result.sample_size) == (name, Verdict.SKIPPED, 100)
        assert result.explanation == "It needs the attack fgsm, which has no version for L2."
        assert result.remedy and result.reference
    assert other.verdict is not Verdict.SKIPPED
    assert "no version for L2" in report.render(judgement, {})


def test_a_network_that_is_fed_wrongly_is_not_judged(digits, undefended):
    images, labels = (part[:100] for part in digits.arrays("test"))
    dark = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), undefended])
    judgement = sanity.judge(dark, images, labels, epsilon=0.1, progress=False)
    assert judgement.verdict == "not judged" and "with --pixels 0..255 it is right on" in judgement.sentence
    assert [result.name for result in judgement.results] == list(CHECKS)
    assert {result.verdict for result in judgement.results} == {Verdict.SKIPPED} and not judgement.failed
    assert "Not judged: it is right on" in report.render(judgement, {})
    assert [each["attack"] for each in judgement.evaluations] == [None]


def test_an_attack_is_told_of_the_norm_where_it_has_another_by_itself(digits, undefended):
    images, labels = (part[:20] for part in digits.arrays("test"))
    subjects = {norm: Subject(undefended, images, labels, epsilon=0.5, norm=norm) for norm in ("linf", "l2")}
    assert subjects["linf"].threat("pgd") == {} and subjects["l2"].threat("pgd") == {"norm": "l2"}
    assert subjects["linf"].threat(None) == subjects["l2"].threat(None) == {}
    assert subjects["linf"].has("rfgsm") and not subjects["l2"].has("rfgsm")
    with pytest.raises(ValueError, match="It needs the attack rfgsm, which has no version for L2"):
        subjects["l2"].correct("rfgsm", epsilon=0.5, alpha=0.1)


def test_names_of_checks_come_in_the_order_of_all():
    assert checked_names(None) == checked_names([]) == checked_names(["all"]) == tuple(CHECKS)
    two = ("gradient_magnitude", "step_count_saturates")
    assert checked_names(two[::-1]) == two
    with pytest.raises(ValueError, match="checks is 'all'"):
        checked_names(["all", "gradient_magnitude"])


def test_judge_refuses_probabilities_and_names_arguments(digits, undefended):
    images, labels = digits.arrays("test")
    softmax = keras.Model(undefended.input, keras.ops.softmax(undefended.output))
    no_gradient = small.before(undefended, small.Remainder())
    for network, options, message in [
        (softmax, {}, "network ends in softmax"),
        (no_gradient, {}, "^network uses Mod, for which TensorFlow has no gradient; allowed: .*tf.stop_gradient"),
        (undefended, {"surrogates": [no_gradient]}, "^surrogate 1 uses Mod, for which"),
        (undefended, {"epsilon": 0.0}, "epsilon is 0.0"),
        (undefended, {"checks": ["no_such_check"]}, "checks is 'no_such_check'.*step_count_saturates"),
        (undefended, {"seed": -1}, "seed is -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            sanity.judge(network, images, labels, **{"epsilon": 0.1, "progress": False, **options})
