"""What `fit` is given: labels of every kind, and batches of a generator that are wrong."""

import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_nuat
from tests.helpers import small, tuning

CLASSES = 10


@pytest.fixture(scope="module")
def examples():
    return small.sample(64)


class Batches(keras.utils.PyDataset):
    """Batches of 32 from a generator, which Keras asks for one at a time."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return len(self.arrays[0]) // 32

    def __getitem__(self, index):
        return tuple(array[32 * index :][:32] for array in self.arrays)


def compiled(defense=tf_nuat.FGSMAT, optimizer=None, **options):
    model = defense(small.dense(0), epsilon=0.1, **options)
    model.compile(optimizer or keras.optimizers.SGD(0.1), metrics=["accuracy"])
    return model


def trained(model, *data, **options):
    """Returns the weights after one epoch in batches of 32, in order."""
    model.fit(*data, batch_size=None if len(data) == 1 else 32, shuffle=False, verbose=0, **options)
    return model.network.get_weights()


KINDS = {
    "uint8": lambda y: y.astype("uint8"),
    "int32": lambda y: y.astype("int32"),
    "uint64": lambda y: y.astype("uint64"),
    "float32": lambda y: y.astype("float32"),
    "column of uint8": lambda y: y[:, None].astype("uint8"),
    "one-hot": lambda y: np.eye(CLASSES)[y],
}


@pytest.fixture(scope="module")
def after_both(examples):
    """The weights after both batches of the examples."""
    return [np.array(weight) for weight in trained(compiled(), *examples)]


@pytest.fixture(scope="module")
def after_one(examples):
    """The weights after the first batch alone."""
    return [np.array(weight) for weight in trained(compiled(), *(array[:32] for array in examples))]


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_every_kind_train_the_same_network(kind, examples, after_both):
    x, y = examples
    given = KINDS[kind](y)
    for data in ((x, given), (Batches(x, given),)):
        for weight, other in zip(trained(compiled(), *data), after_both):
            np.testing.assert_allclose(weight, other, atol=1e-6)


def _fails_in_second(array, value):
    return np.concatenate([array[:32], np.full_like(array[32:], value)])


@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda x, y: (_fails_in_second(x, 255), y),
            r"x has values from 255 to 255 in batch 2 of training; allowed: \[",
        ),
        (lambda x, y: (_fails_in_second(x, np.nan), y), "x has values from .*nan.* in batch 2 of training"),
        (lambda x, y: (x, _fails_in_second(y, 10)), "y has values from 10 to 10 in batch 2 of training; .* 0 to 9"),
        (lambda x, y: (x, _fails_in_second(y, -1)), "y has values from -1 to -1 in batch 2"),
        (lambda x, y: (x, _fails_in_second(y.astype("float32"), 0.5)), "y has values from 0.5 to 0.5 in batch 2"),
        (lambda x, y: (x[:, :7], y), r"x has images of shape \(7, 8, 1\) in batch 1 of training; the network takes"),
        (lambda x, y: (x, y, np.zeros((64, 3))), r"sample_weight has shape .* allowed: one number for each image"),
    ],
)
@pytest.mark.parametrize("eagerly", [False, True])
def test_a_wrong_batch_of_a_generator_stops_training_in_one_line(change, words, eagerly, examples, after_one):
    model = compiled()
    model.run_eagerly = eagerly
    before = [np.array(weight) for weight in model.network.get_weights()]
    with pytest.raises(ValueError, match=words) as raised:
        trained(model, Batches(*change(*examples)))
    assert "\n" not in str(raised.value)
    expected = after_one if "batch 2" in words else before
    for weight, other in zip(model.network.get_weights(), expected):
        np.testing.assert_allclose(weight, other, atol=1e-6)


def test_pixels_beyond_by_rounding_train_as_those_within(examples, after_both):
    """They are clipped, in training and in an evaluation; what is further beyond is shown with enough digits."""
    x, y = examples
    beyond = np.where(x == 0.0, np.float32(-5e-7), np.where(x == 1.0, np.float32(1 + 5e-7), x))
    assert beyond.min() < 0.0 and beyond.max() > 1.0
    for weight, other in zip(trained(compiled(), beyond, y, validation_data=(beyond, y)), after_both):
        np.testing.assert_allclose(weight, other, atol=1e-6)
    found, expected = (compiled().evaluate(each, y, verbose=0, return_dict=True) for each in (beyond, x))
    assert found == pytest.approx(expected)
    model = compiled()
    model.run_eagerly = True
    with pytest.raises(ValueError, match=r"x has values from 1\.000002 to 1\.000002 in batch 2 of training"):
        trained(model, Batches(_fails_in_second(x, 1.000002), y))


def test_a_wrong_batch_stops_evaluation_too(examples):
    x, y = examples
    model = compiled()
    for evaluates in (
        lambda: model.evaluate(255 * x, y, verbose=0),
        lambda: model.test_on_batch(255 * x, y),
        lambda: model.fit(Batches(x, y), validation_data=Batches(255 * x, y), verbose=0),
    ):
        with pytest.raises(ValueError, match=r"x has values from 0 to 255 in batch 1 of evaluation; allowed: \[0, 1\]"):
            evaluates()
    with pytest.raises(ValueError, match="in batch 3 of training"):
        model.train_on_batch(255 * x, y)


def test_a_pydataset_can_be_sent_to_processes_that_are_not_forked(examples, monkeypatch):
    """Keras sends it there with `use_multiprocessing`, on macOS and Windows always."""
    given = []
    monkeypatch.setattr(
        keras.Model, "fit", lambda self, x, *_, validation_data, **__: given.extend([x, validation_data])
    )
    compiled().fit(Batches(*examples), validation_data=Batches(*examples))
    for received in pickle.loads(pickle.dumps(given)):
        np.testing.assert_array_equal(received[1][0], examples[0][32:])


class List(keras.utils.PyDataset):
    """Batches of a list."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def _pipeline(batches):
    """A dataset that knows no more of its batches than their rank."""
    spec = tuple(tf.TensorSpec((None,) * each.ndim, each.dtype) for each in batches[0])
    return tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec)


SOURCES = {"PyDataset": List, "generator": lambda batches: (each for each in batches), "tf.data": _pipeline}
ROWS = np.eye(CLASSES, dtype=np.float32)
# The third batch is wrong; of a generator Keras looks at two before it begins.
LATER = {
    "image size": (lambda x, y: (x[:, :7], y), r"x has images of shape \(7, 8, 1\) .*; the network takes \(8, 8, 1\)"),
    "channels": (lambda x, y: (np.repeat(x, 3, -1), y), r"x has images of shape \(8, 8, 3\)"),
    "no image": (lambda x, y: (x[:0], y[:0]), "x is empty .*; allowed: at least one image"),
    "fewer labels": (lambda x, y: (x, y[:7]), "y has 7 entries for 8 images"),
    "sums": (lambda x, y: (x, 2 * ROWS[y]), "y has rows with entries from 0 and sums from 2 to 2"),
    "negative": (
        lambda x, y: (x, ROWS[y] + 0.2 * (ROWS[1] - ROWS[0])),
        "y has rows with entries from -0.2 and sums from 1",
    ),
}
# What a pipeline cannot have, whose batches are of one kind.
OF_PYTHON = {
    "width": (lambda x, y: (x, ROWS[y][:, :7]), r"y has shape \(8, 7\)"),
    "no labels": (lambda x, y: (x, None), "y is not given"),
    "text": (lambda x, y: (x, y.astype(str)), r"y has dtype str\d+ .*; allowed: numbers"),
    "other kind": (lambda x, y: (x, ROWS[y][:, :1]), "y comes as labels .*; allowed: as in the first batch"),
    "weights": (lambda x, y: (x, y, np.ones(8)), "sample_weight comes as with sample_weight"),
}


def _in_third(change, x, y):
    """Returns three batches of 8, of which the third is changed; labels are rows where those of the third are."""
    batches = [(x[start:][:8], y[start:][:8]) for start in (0, 8, 16)]
    wrong = change(*batches[2])
    if getattr(wrong[1], "ndim", 1) == 2 and wrong[1].shape[1] > 1:
        batches = [(images, ROWS[labels]) for images, labels in batches]
    return [*batches[:2], wrong]


@pytest.mark.parametrize(
    "source, kind", [*((s, k) for s in SOURCES for k in LATER), *(("generator", k) for k in OF_PYTHON)]
)
def test_a_later_batch_of_another_form_is_named(source, kind, examples):
    change, words = {**LATER, **OF_PYTHON}[kind]
    x, y = examples
    model = compiled(tf_nuat.Standard)
    wrong = _in_third(change, x, y)
    for calls, place in (
        (lambda: model.evaluate(SOURCES[source](wrong), verbose=0), "batch 3 of evaluation"),
        (lambda: model.fit(SOURCES[source](wrong), verbose=0, shuffle=False), "batch 3 of training"),
    ):
        with pytest.raises(ValueError, match=words) as raised:
            calls()
        assert "\n" not in str(raised.value) and place in str(raised.value)


def test_images_for_labels_and_text_are_refused_before_training(examples):
    """As `ImageDataGenerator(class_mode="input")` gives them."""
    x, y = examples
    for wrong, words in ((x, r"y has shape \(8, 8, 8, 1\) in batch 1 of .*"), (y.astype(str), "y has dtype str")):
        batches = [(x[:8], wrong[:8])]
        for calls in (compiled().fit, compiled().evaluate):
            with pytest.raises(ValueError, match=words):
                calls(List(batches), verbose=0)
    with pytest.raises(ValueError, match="y has dtype str.* in batch 1 of evaluation"):
        compiled().fit(x, y, validation_data=List([(x[:8], y[:8].astype(str))]), verbose=0)
    with pytest.raises(ValueError, match=r"y has dtype str\d+; allowed: numbers"):
        compiled().evaluate(x, y.astype(str))


WRONG_KINDS = {
    "no images": (lambda x, y: ((), {}), "x is None; allowed: images"),
    "a list of images": (lambda x, y: ((list(x), y), {}), "x is a list; allowed: an array"),
    "a list of labels": (lambda x, y: ((x, y.tolist()), {}), "y is a list; allowed: an array"),
    "a list of weights": (lambda x, y: ((x, y), {"sample_weight": [1.0] * 8}), "sample_weight is a list; allowed"),
    "no labels to validate": (lambda x, y: ((x, y), {"validation_data": x}), "validation_data has images alone"),
    "one part": (lambda x, y: ((x, y), {"validation_data": (x,)}), "validation_data has 1 parts; allowed: .images"),
    "four parts": (lambda x, y: ((x, y), {"validation_data": (x, y, y, y)}), "validation_data has 4 parts"),
    "a list to validate": (
        lambda x, y: ((x, y), {"validation_data": (x, y.tolist())}),
        r"validation_data\[1\] is a list; allowed: an array",
    ),
    "no batch": (lambda x, y: ((_pipeline([(x, y)]).take(0),), {}), "x is empty; allowed: at least one batch"),
}


@pytest.mark.parametrize("kind", WRONG_KINDS)
def test_what_is_no_array_and_no_dataset_is_refused_in_one_line(kind, examples):
    given, words = WRONG_KINDS[kind]
    arguments, options = given(*(part[:8] for part in examples))
    with pytest.raises(ValueError, match=words) as raised:
        compiled().fit(*arguments, **options, verbose=0)
    assert "\n" not in str(raised.value)
    if not options and arguments:
        with pytest.raises(ValueError, match=words):
            compiled(tf_nuat.FreeAT).fit(*arguments, verbose=0)


def test_one_batch_has_the_checks_of_all(examples):
    x, y = (part[:8] for part in examples)
    for calls in compiled().train_on_batch, compiled().evaluate:
        with pytest.raises(ValueError, match="x is a list; allowed: an array"):
            calls(list(x), y)
        with pytest.raises(ValueError, match="y is a list; allowed: an array"):
            calls(x, y.tolist())
    for wrong in [1.0] * 10, {11: 2.0}:
        with pytest.raises(ValueError, match="class_weight is .*; allowed: a dict of classes, from 0 to 9"):
            compiled().train_on_batch(x, y, class_weight=wrong)


@pytest.mark.parametrize("rows_first", [False, True])
def test_labels_of_training_and_validation_may_be_of_two_kinds(rows_first, examples):
    x, y = examples
    kinds = (ROWS[y], y) if rows_first else (y, ROWS[y])
    history = compiled().fit(x, kinds[0], validation_data=(x, kinds[1]), verbose=0).history
    expected = compiled().fit(x, y, validation_data=(x, y), verbose=0).history
    for name, values in expected.items():
        assert history[name] == pytest.approx(values, rel=1e-5)


def test_fit_before_compile_is_refused(examples):
    with pytest.raises(ValueError, match="fit is called before compile; allowed: model.compile"):
        tf_nuat.NuAT(small.dense(0), epsilon=0.1).fit(*examples)


@pytest.mark.parametrize("is_scaled", [False, True])
def test_two_halves_of_a_batch_are_one_update(is_scaled, examples):
    """The gradients are accumulated; the average of the weights moves with the update, not with every half."""
    x, y = examples
    expected = compiled(tf_nuat.PGDAT, steps=2, random_start=False, ema_decay=0.5)
    expected.fit(x, y, batch_size=64, epochs=2, shuffle=False, verbose=0)
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    if is_scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model = compiled(tf_nuat.PGDAT, optimizer, steps=2, random_start=False, ema_decay=0.5)
    trained(model, x, y, epochs=2)
    assert int(model.optimizer.iterations) == 2 and int(model.batches) == 4
    for network in ("network", "trained_network"):
        for weight, other in zip(getattr(model, network).get_weights(), getattr(expected, network).get_weights()):
            np.testing.assert_allclose(weight, other, atol=1e-6)


def test_a_network_made_under_float16_trains(examples):
    """Its logits are float16; the gradient of an attack on them agrees in sign with that in float32."""
    x, y = examples
    try:
        keras.mixed_precision.set_global_policy("mixed_float16")
        model = compiled(tf_nuat.NuAT)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert model.network(x[:1]).dtype == tf.float16
    exact = small.dense(0)
    exact.set_weights(model.network.get_weights())
    changes = [tf_nuat.attacks.fgsm(network, x, y, epsilon=0.1) - x for network in (model.network, exact)]
    assert np.mean(np.sign(changes[0]) == np.sign(changes[1])) > 0.99
    before = model.network.get_weights()
    assert all(np.isfinite(weight).all() for weight in trained(model, x, y))
    assert not np.array_equal(before[0], model.network.get_weights()[0])


def test_a_column_of_labels_whose_width_shows_late_trains_the_same_network(examples, after_both):
    x, y = examples
    batches = [(x[:32], y[:32, None]), (x[32:], y[32:, None])]
    for weight, other in zip(trained(compiled(), _pipeline(batches)), after_both):
        np.testing.assert_allclose(weight, other, atol=1e-6)
    batches[1] = x[32:], np.full_like(y[32:, None], CLASSES)
    with pytest.raises(ValueError, match="y has rows with .* sums from 0 to 0 in batch 2 of training"):
        trained(compiled(), _pipeline(batches))


def test_no_epoch_and_no_evaluation_waits_for_the_thread_that_tunes_a_dataset(examples, monkeypatch):
    read = tuning.watched(monkeypatch)
    model = compiled()
    model.fit(*examples, validation_data=examples, verbose=0)
    assert set(read) == {False}
    read.clear()
    model.evaluate(*examples, verbose=0)
    assert set(read) == {False}
