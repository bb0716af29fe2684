"""A network that is fed wrongly is seen, what would help is found, and no command goes on without a word."""

import json

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import sanity.run
from recipes import custom
from sanity.figures import __main__ as figures
from tests.helpers import owners, owners_files, owners_models, small
from tests.helpers.owners import GREY, behind, body, in_front
from tf_nuat.evaluate import __main__ as evaluation
from tf_nuat.evaluate import wiring
from tf_nuat.networks import adapt

NUMBERS = [str(number) for number in range(1, 11)]  # names of classes of which 10 comes second by name


def looked_at(network, names=None, *, colour=False):
    """Returns the `Wiring` of a network on the digits."""
    images, labels = small.digits().arrays("test")
    return wiring.look(network, owners.coloured(images) if colour else images, labels, names)


def in_order(order):
    """Returns the network with its outputs in another order."""
    return behind(body(), lambda z: keras.ops.take(z, np.array(order), axis=1))


CAFFE = {"scale": 255.0, "offset": -np.array([103.939, 116.779, 123.68])}
BY_NAME = [NUMBERS.index(name) for name in sorted(NUMBERS)]
PERMUTED = np.random.default_rng(1).permutation(10)
LETTERS = list("abcdefghij")
# What the network takes, the names of the classes, and what helps.
WRONG = {
    "0..255": (lambda: body(scale=255.0), None, "with --pixels 0..255 it is right on 9"),
    "-1..1": (lambda: body(scale=2.0, offset=-1.0), None, "with --pixels -1..1 it is right on 9"),
    "black on white": (lambda: body(scale=-1.0, offset=1.0), None, "with black and white exchanged it is right on 9"),
    "BGR": (lambda: body(colour=True, reverse=True), None, "in the order blue, green, red it is right on 9"),
    "caffe": (lambda: body(colour=True, reverse=True, **CAFFE), None, "with --pixels caffe it is right on 9"),
    "transposed": (
        lambda: in_front(body(), keras.layers.Permute((2, 1, 3)), shape=GREY),
        None,
        "with height and width exchanged it is right on 9",
    ),
    "names": (lambda: in_order(BY_NAME), NUMBERS, "in the order of the names (1, 10, 2, 3, 4, 5, 6, 7, 8, 9), it is"),
    "permuted": (
        lambda: in_order(PERMUTED),
        LETTERS,
        f"in the order of the outputs ({', '.join(LETTERS[each] for each in PERMUTED)}), it is",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_helps_a_network_that_is_fed_wrongly_is_found(kind):
    make, names, hint = WRONG[kind]
    found = looked_at(make(), names, colour=kind in ("BGR", "caffe"))
    assert not found.is_right and hint in found.hints[0], found
    assert found.hints[0] in found.sentence and "\n" not in found.sentence


def test_what_is_fed_rightly_is_right():
    found = looked_at(body())
    assert found.is_right and not found.hints and found.accuracy > 0.9


def test_a_network_of_unequal_classes_is_not_fed_larger_pixels():
    """Of each digit it has seen half as many as of the one before. Times 255, its biases count for nothing."""
    images, labels = small.digits().arrays("train")
    flat = images.reshape(len(images), -1)
    chosen = np.random.default_rng(0).uniform(size=len(labels)) < 0.5**labels
    fitted = LogisticRegression(C=0.1, max_iter=300).fit(flat[chosen], labels[chosen])
    kernel, bias = np.zeros((64, 10)), np.full(10, -50.0)
    kernel[:, fitted.classes_], bias[fitted.classes_] = fitted.coef_.T, fitted.intercept_
    network = small.dense(0, hidden=0)
    network.set_weights([kernel, bias])
    images, labels = small.digits().arrays("test")
    brighter = np.mean(np.argmax(255.0 * images.reshape(len(images), -1) @ kernel + bias, axis=1) == labels)
    found = wiring.look(network, images, labels)
    assert found.accuracy < 0.5 < brighter and found.is_right, found.sentence


@pytest.mark.parametrize("seed", range(5))
def test_nothing_helps_a_network_that_has_learned_nothing(seed):
    assert not looked_at(small.dense(seed)).hints


def test_images_that_are_too_dark_are_not_made_brighter_by_a_flag():
    """Divided by 255 twice: with the flag the network would be right, and epsilon 255 times too large."""
    images, labels = small.digits().arrays("test")
    dark = images / np.float32(255)
    found = wiring.look(body(), dark, labels)
    words = "with 255 times these pixels (the highest is 0.0039: divided by 255 twice?) it is right on 9"
    assert not found.is_right and found.hints[0].startswith(words), found
    network = adapt(body(), pixels="0..255").network
    found = wiring.look(network, dark, labels, pixels="0..255")
    assert not found.is_right and "the highest pixel is 0.0039: were the images divided by 255 twice?" in found.sentence
    assert wiring.look(network, dark, labels).is_right  # as a network that its owner trained on such images
    of_bytes = adapt(body(scale=255.0), pixels="0..255").network
    assert wiring.look(of_bytes, images, labels, pixels="0..255").is_right


def test_one_answer_for_all_is_named():
    images, labels = small.digits().arrays("test")
    always = keras.Sequential([keras.Input(GREY), keras.layers.Flatten(), keras.layers.Dense(10)])
    always.set_weights([np.zeros((64, 10)), np.eye(10)[3]])
    found = wiring.look(always, images, labels, LETTERS)
    assert not found.is_right and found.only_answer == "d" and "gives one class, d, for every image" in found.sentence
    with pytest.raises(ValueError, match="or order of the classes makes it right$"):  # without a remedy
        wiring.check("network", always, images, labels, LETTERS, remedy=wiring.OF_SURROGATE)


@pytest.mark.parametrize("wrong, is_right", [(6, True), (20, False)])
def test_where_one_class_is_common_accuracy_has_to_exceed_its_share(wrong, is_right):
    """Of 200 images 180 are of one class: 97 % are more than that, 90 % are not."""
    labels = np.repeat([0, 1], [180, 20])
    answered = labels.copy()
    answered[-wrong:] = 0
    images = np.tile(answered[:, None, None, None], (1, 2, 2, 1)).astype(np.float32)
    network = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    network.set_weights([np.array([[0.0, 1.0]] * 4), np.array([2.0, 0.0])])
    found = wiring.look(network, images, labels)
    assert found.is_right == is_right and found.chance == 0.9 and found.accuracy == 1.0 - wrong / 200


QUICK = ["--dataset=digits", "--epsilon=0.1", "--samples=200"]


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """The path of a network that takes pixels in [0, 255]."""
    path = tmp_path_factory.mktemp("wrong") / "network.keras"
    body(scale=255.0).save(path)
    return path


def test_evaluation_stops_and_goes_on_anyway(wrong, tmp_path, capsys):
    given = [f"--checkpoint={wrong}", *QUICK, "--attack=fgsm", f"--out={tmp_path / 'out'}"]
    assert evaluation.command(given) == 2
    said = capsys.readouterr()
    assert "with --pixels 0..255 it is right on" in said.err and "--anyway" in said.err and not said.out
    assert not (tmp_path / "out").exists()
    assert evaluation.command([*given, "--anyway"]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("warning: ") and "with --pixels 0..255" in said.err and "Robust accuracy" in said.out
    assert (tmp_path / "out" / "results.json").is_file()


def test_a_judgement_does_not_begin(wrong, tmp_path, capsys):
    assert sanity.run.main([f"--checkpoint={wrong}", *QUICK, f"--out={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr()
    assert "with --pixels 0..255 it is right on" in said.err and len(said.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_another_network_that_is_fed_wrongly_is_named_and_what_would_do_does(wrong, tmp_path, capsys):
    body().save(tmp_path / "right.keras")
    out = tmp_path / "out"
    given = [f"--checkpoint={tmp_path / 'right.keras'}", *QUICK, f"--out={out}"]
    attack = [*given, "--attack=transfer"]
    for command, arguments in [(evaluation.command, attack), (sanity.run.main, given)]:
        assert command([*arguments, f"--surrogate={wrong}"]) == 2
        said = capsys.readouterr().err
        assert f"--surrogate {wrong}: it is right on" in said and "with --pixels 0..255 it is right on" in said
        assert "for --surrogate save tf_nuat.networks.adapt(FILE, pixels=FORM).network" in said
    with pytest.raises(ValueError, match=r"--checkpoint .*wrong.*: it is right on .* for one alone save tf_nuat"):
        figures.command([*given, f"--checkpoint={wrong}", "--only=gradients"])
    assert not out.exists()
    adapt(wrong, pixels="0..255").network.save(tmp_path / "saved.keras")
    assert evaluation.command([*attack, f"--surrogate={tmp_path / 'saved.keras'}"]) == 0


def test_training_does_not_begin(wrong, tmp_path):
    given = [f"--network={wrong}", "--data=digits", "--epsilon=0.1", f"--out={tmp_path / 'out'}"]
    with pytest.raises(ValueError, match=r"with --pixels 0\.\.255 it is right on .* pixels=") as caught:
        custom.main(given)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


MODULE = """
import keras


class Scaled(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x


def build():
    layers = [keras.layers.Flatten(), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10, "softmax")]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with a module of one's own, which can be imported, and networks for each of the flags."""
    (tmp_path / "owners_layers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import owners_layers

    softmax = keras.layers.Softmax()
    behind(body(scale=255.0), softmax).save(tmp_path / "pixels.keras")
    owners_models.one_of_several_outputs(tmp_path).given.save(tmp_path / "outputs.keras")
    body().save_weights(tmp_path / "network.weights.h5")
    (tmp_path / "network.json").write_text(behind(body(), softmax).to_json())
    in_front(body(scale=2.0), owners_layers.Scaled(), shape=GREY).save(tmp_path / "import.keras")
    owners_files.with_lambda(tmp_path).given.rename(tmp_path / "trust.keras")
    return tmp_path


FLAGS = {
    "--pixels": ("pixels.keras", ["--pixels=0..255"], [owners_models.OFF, "pixels in [0, 1] become 0..255"]),
    "--output": ("outputs.keras", ["--output=digit"], ["of the outputs digit, box, digit was taken"]),
    "--network, a file": ("network.weights.h5", ["--network={}/network.json"], ["weights put into the architecture"]),
    "--network, a function": ("network.weights.h5", ["--network=owners_layers:build"], [owners_models.OFF]),
    "--import": ("import.keras", ["--import=owners_layers"], []),
    "--trust": ("trust.keras", ["--trust"], [owners_models.OFF]),
}


@pytest.mark.parametrize("flag", FLAGS)
def test_a_network_of_ones_own_is_attacked_and_judged_by_its_flag(flag, files, capsys):
    name, given, changes = FLAGS[flag]
    given = [each.format(files) for each in given]
    checkpoint = [f"--checkpoint={files / name}", *QUICK]
    for command in (evaluation.command, sanity.run.main):  # it takes the flag
        assert refused(command, [*checkpoint, f"--out={files / 'none'}"])
    capsys.readouterr()

    out = [f"--out={files / 'evaluation'}", "--attack=fgsm"]
    assert evaluation.command([*checkpoint, *given, *out]) == 0
    shown = capsys.readouterr().out
    found = json.loads((files / "evaluation" / "results.json").read_text())["adapted"]
    assert all(any(change in each for each in found) for change in changes) and bool(found) == bool(changes)
    assert all(f"{name}: {each}" in shown for each in found)

    out = [f"--out={files / 'judged'}", "--checks=network_is_deterministic"]
    assert sanity.run.main([*checkpoint, *given, *out]) == 0
    judged = json.loads((files / "judged" / "results.json").read_text())
    assert judged["provenance"]["adapted"] == found
    page = (files / "judged" / "report.html").read_text()
    assert all(each in page for each in found)


def refused(command, arguments):
    try:
        return command(arguments) == 2
    except ValueError as error:
        return "\n" not in str(error)


def test_a_layer_that_nobody_could_load_is_not_trained_further(files):
    given = [f"--network={files / 'import.keras'}", "--import=owners_layers", "--data=digits", "--epsilon=0.1"]
    with pytest.raises(ValueError, match="cannot be saved and loaded again .*Scaled.*register_keras_serializable"):
        custom.main([*given, f"--out={files / 'run'}"])


@pytest.mark.parametrize("flag", ["--pixels", "--output", "--import"])
def test_a_network_of_ones_own_is_trained_further_by_its_flag(flag, files):
    name, given, changes = FLAGS[flag]
    if flag == "--import":
        import owners_layers

        keras.saving.register_keras_serializable("owners")(owners_layers.Scaled)
    few = ["--defense=standard", "--epochs=1", "--learning_rate=1e-6", "--epsilon=0.1", "--data=digits"]
    assert custom.main([f"--network={files / name}", *given, *few, f"--out={files / 'run'}"]) == 0
    card = json.loads((files / "run" / "card.json").read_text())
    assert all(any(change in each for each in card["adapted"]) for change in changes)
    assert card["measured"]["clean"]["accuracy"] > 0.9


@pytest.mark.parametrize("share, tried_on", [(0.7, 250), (0.3, 1000)])
def test_a_network_that_is_right_on_many_is_tried_on_fewer_images(share, tried_on, monkeypatch):
    """Of a thousand classes and large images, to try takes minutes."""
    generator, seen = np.random.default_rng(0), []
    labels, others = generator.integers(10, size=(2, 1000))
    given = np.where(np.arange(1000) < 1000 * share, labels, others)

    def answers(network, images):
        seen.append(len(images))
        return given if len(seen) == 1 else others[: len(images)]

    monkeypatch.setattr(wiring, "_answers", answers)
    found = wiring.look(None, np.zeros((1000, 2, 2, 3), np.float32), labels)
    assert found.accuracy == pytest.approx(share, abs=0.1) and found.is_right
    assert seen[0] == 1000 and set(seen[1:]) == {tried_on}


@pytest.mark.parametrize("shift", [0, 1])
def test_luck_on_a_few_images_is_no_hint(shift):
    """75 images, 62 of them right; with black and white exchanged 64, but 35 of the 37 that no order is fitted on."""
    labels = np.arange(75) % 3
    halves = np.arange(75) % 2  # 0: an order of the classes is fitted on these, 1: it is tried on those
    answers = np.where(np.arange(75) < 62, labels, (labels + 1) % 3)
    exchanged = (labels + shift) % 3
    for half, wrong in ((0, 9), (1, 2)):
        rows = np.flatnonzero(halves == half)[:wrong]
        exchanged[rows] = (exchanged[rows] + 1) % 3
    table = np.concatenate([answers, exchanged[::-1]])  # by the brightness of an image
    images = ((np.arange(75) + 0.5) / 150.0).reshape(75, 1, 1, 1).astype(np.float32)

    def network(x):
        place = keras.ops.cast(keras.ops.clip(keras.ops.floor(150.0 * x[:, 0, 0, 0]), 0, 149), "int32")
        return keras.ops.one_hot(keras.ops.take(keras.ops.convert_to_tensor(table), place), 3)

    found = wiring.look(network, images, labels, ["circle", "square", "triangle"])
    assert found.accuracy == pytest.approx(62 / 75) and found.is_right, found.sentence
