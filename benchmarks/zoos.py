"""The zoos: networks whose verdict is known, on digits, MNIST and CIFAR-10, and their images."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import keras
import numpy as np

import tf_nuat
from benchmarks import held_out, masked
from tests.helpers import zoo
from tests.helpers.small import before
from tests.helpers.zoo import HONEST, MASKED, ROBUST, Specimen

RESULTS = pathlib.Path(__file__).parents[1] / "results"
EPSILON_MNIST, EPSILON_CIFAR10 = 0.1, 8 / 255  # 0.1 for networks that are not trained to be robust
TRAINED_ON, EPOCHS = 20_000, 5  # images, and epochs of adversarial training
LEVELS = 31  # steps between the 32 values of a colour that are left


@dataclasses.dataclass(frozen=True)
class Zoo:
    """Networks on the images of one data set.

    Attributes:
        specimens: dict of name to `tests.helpers.zoo.Specimen`.
        dataset: name of the data.
        played_no_part: whether the checks were made without looking at these networks.
    """

    specimens: dict[str, Specimen]
    dataset: str
    played_no_part: bool = False

    @property
    def title(self) -> str:
        """The title of the page of results."""
        more = ", and which played no part in the making of the checks" if self.played_no_part else ""
        return f"Networks on {self.dataset} whose verdict is known{more}"

    @functools.cached_property
    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """The images (N, H, W, C) and labels (N,) for judgements."""
        return _arrays(self.dataset, "test")

    @functools.cached_property
    def train(self) -> tuple[np.ndarray, np.ndarray]:
        """The images and labels that a surrogate is trained on."""
        return _arrays(self.dataset, "train")


def zoos() -> dict[str, Zoo]:
    """Returns the zoos by their names."""
    return {
        "digits": Zoo(zoo.ZOO, "digits"),
        "held_out": Zoo(held_out.SPECIMENS, "digits", played_no_part=True),
        "mnist": Zoo(_mnist(), "mnist"),
        "cifar10": Zoo(_cifar10(), "cifar10"),
    }


@functools.cache
def _arrays(dataset: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = tf_nuat.data.load(dataset, batch_size=128).arrays(split)
    return np.asarray(images), np.asarray(labels)


def _mnist() -> dict[str, Specimen]:
    found = {
        name: Specimen(functools.partial(_hidden, name), MASKED, (), description, EPSILON_MNIST)
        for name, description in masked.DESCRIPTIONS.items()
    }
    found["overfitted FGSM-AT"] = Specimen(
        _defended("fgsm_at", 0.3), MASKED, (), "single-step training that overfitted catastrophically", 0.3
    )
    found["undefended"] = Specimen(_trained(masked.classifier), HONEST, (), "trained on clean images", EPSILON_MNIST)
    found["dropout"] = Specimen(_trained(_dropout), HONEST, (), "trained with dropout on the input", EPSILON_MNIST)
    found["undefended with BatchNormalization"] = Specimen(
        _trained(lambda: zoo.normalised((28, 28, 1))), HONEST, (), "trained on clean images, at epsilon 0.05", 0.05
    )
    for defense in ("nuat", "pgd_at"):
        description = f"{defense} of two minutes at epsilon 0.1"
        found[defense] = Specimen(_defended(defense, EPSILON_MNIST), ROBUST, (), description, EPSILON_MNIST)
    return found


@functools.cache
def hidden(seed: int) -> dict[str, Callable[[], masked.Masked]]:
    """Returns `masked.networks` on the first images of MNIST, with this seed."""
    keras.utils.set_random_seed(seed)
    return masked.networks(*_trained_on())


def _hidden(name: str, seed: int) -> keras.Model:
    return hidden(seed)[name]().network


def _trained_on() -> tuple[np.ndarray, np.ndarray]:
    images, labels = _arrays("mnist", "train")
    return images[:TRAINED_ON], labels[:TRAINED_ON]


def _trained(build: Callable[[], keras.Model]) -> Callable[[int], keras.Model]:
    def built(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        return masked.trained(build(), *_trained_on())

    return built


def _defended(defense: str, epsilon: float) -> Callable[[int], keras.Model]:
    def built(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        trainer = tf_nuat.defenses.DEFENSES[defense](masked.classifier(), epsilon=epsilon, seed=seed)
        trainer.compile(keras.optimizers.Adam(1e-3))
        trainer.fit(*_trained_on(), epochs=EPOCHS, batch_size=128, verbose=0)
        return trainer.network

    return built


def _dropout() -> keras.Model:
    return masked.behind(masked.classifier(), keras.layers.Dropout(0.2))


def _cifar10() -> dict[str, Specimen]:
    """Returns masking layers around a network of `results/`; its networks without them are judged one by one."""

    def around(hide: Callable[[keras.Model], keras.Model], description: str) -> Specimen:
        def build(seed: int) -> keras.Model:
            return hide(keras.saving.load_model(RESULTS / "cifar10_small/nuat/network.keras", compile=False))

        return Specimen(build, MASKED, (), description, EPSILON_CIFAR10)

    def rounded(x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.ops.round(x * LEVELS) / LEVELS

    return {
        "scaled logits": around(
            lambda network: masked.followed_by(network, lambda logits: 1000.0 * logits),
            "nuat, its logits multiplied by 1,000",
        ),
        "rounding": around(lambda network: before(network, rounded), "nuat, its pixels rounded to 32 values"),
        "detached": around(
            lambda network: before(network, keras.ops.stop_gradient), "nuat, without a gradient of its input"
        ),
    }
