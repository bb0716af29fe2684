"""Which evaluation is the same one, so that a call goes on with it: by the network, the surrogate and the settings."""

import keras
import numpy as np
import pytest

from tests.helpers import linear
from tf_nuat.evaluate import worst
from tf_nuat.evaluate.worst import stages, worst_case

IMAGES, _ = linear.batch(20)
LABELS = linear.network()(IMAGES).numpy().argmax(axis=1)
DATA, EPSILON = (IMAGES, LABELS), 0.1


def scaled(network):
    """Returns a network of the same weights with other logits."""
    return keras.Sequential([keras.Input(linear.SHAPE), network, keras.layers.Rescaling(1000.0)])


def test_another_network_with_the_same_weights_is_another_evaluation(tmp_path, monkeypatch):
    network = linear.network()
    record = worst_case(network, DATA, "fgsm", epsilon=EPSILON, folder=tmp_path)
    words = "has an evaluation with other network; allowed: another folder, or the same arguments and version"
    with pytest.raises(ValueError, match=words):
        worst_case(scaled(network), DATA, "fgsm", epsilon=EPSILON, folder=tmp_path)
    monkeypatch.setattr(worst, "_run", None)  # what is done is not done again for the same network, built anew
    again = worst_case(linear.network(), DATA, "fgsm", epsilon=EPSILON, folder=tmp_path)
    np.testing.assert_array_equal(again.fooled_by, record.fooled_by)
    assert np.any(record.fooled_by == 0)


def test_another_surrogate_with_the_same_weights_is_another_evaluation(tmp_path):
    network, settings = linear.network(), {"epsilon": EPSILON, "folder": tmp_path}
    worst_case(network, DATA, [("transfer", {"surrogate": network})], **settings)
    with pytest.raises(ValueError, match="has an evaluation with other attacks; allowed: another folder"):
        worst_case(network, DATA, [("transfer", {"surrogate": scaled(network)})], **settings)


def test_a_surrogate_may_be_a_function_where_nothing_is_kept(tmp_path):
    network, other = linear.network(), linear.network()
    expected = worst_case(network, DATA, [("transfer", {"surrogate": other})], epsilon=EPSILON)
    attack = [("transfer", {"surrogate": lambda x: other(x)})]
    record = worst_case(network, DATA, attack, epsilon=EPSILON)
    np.testing.assert_array_equal(record.fooled_by, expected.fooled_by)
    assert np.any(record.fooled_by == 0) and record.stages[0].settings["surrogate"] == "a function"
    with pytest.raises(ValueError, match="surrogate of transfer is a function; allowed with a folder: a keras.Model"):
        worst_case(network, DATA, attack, epsilon=EPSILON, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_numbers_of_numpy_are_those_of_python(tmp_path, monkeypatch):
    network, given = linear.network(), {"steps": np.int64(3), "step_size": np.float32(0.05)}
    record = worst_case(network, DATA, [("pgd", given)], epsilon=EPSILON, folder=tmp_path)
    monkeypatch.setattr(worst, "_run", None)
    same = {name: value.item() for name, value in given.items()}
    again = worst_case(network, DATA, [("pgd", same)], epsilon=EPSILON, folder=tmp_path)
    np.testing.assert_array_equal(again.fooled_by, record.fooled_by)


@pytest.mark.parametrize("name", ["pgd", "autoattack"])
@pytest.mark.parametrize("given", [{"epsilon": 0.5}, {"norm": "l2"}, {"norm": "linf"}])
def test_radius_and_norm_are_those_of_the_evaluation_alone(name, given):
    [argument] = given
    words = f"argument of {name} is '{argument}'; allowed: {argument}= of the evaluation"
    with pytest.raises(ValueError, match=words):
        worst_case(linear.network(), DATA, [(name, given)], epsilon=EPSILON)


def test_a_seed_of_autoattack_is_that_of_its_stages():
    seeded = stages([("autoattack", {"seed": 3, "version": "plus"})], num_classes=10, norm="linf")
    assert [settings["seed"] for _, _, settings in seeded] == [3] * 6
    for _, attack, settings in stages("autoattack", num_classes=10, norm="linf"):
        assert "seed" in attack.keywords and "seed" not in settings  # that of the evaluation
