"""The stored outcomes of attacks on the images of a subject."""

import dataclasses

import keras
import numpy as np

__all__ = ["Evaluation", "Surrogate"]


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """A network whose adversaries are transferred: its name, and which images of the sample it classifies correctly.

    Example:
        >>> judged = Subject(network, images, labels, epsilon=0.02, surrogates=[network])
        >>> judged.surrogates()[0].name
        'surrogate 1'
    """

    name: str
    network: keras.Model = dataclasses.field(repr=False)
    correct: np.ndarray = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One attack on the images, with its outcome.

    Attributes:
        attack: its name; None for no attack.
        settings: its keywords.
        source: the surrogate or other function that it was computed on; None for the network itself.
        correct: which images remained correctly classified, bool (N,). For images that were not attacked, whether they
            are correct without attack.
        among: which images were attacked, bool (N,); None for all.
        answers: number of network answers whose mean decides on an image.

    Example:
        >>> subject = Subject(network, images, labels, epsilon=0.02)
        >>> left = subject.correct("fgsm", epsilon=0.02)
        >>> subject.evaluations()[0].attack, subject.evaluations()[0].source
        ('fgsm', None)
    """

    attack: str | None
    settings: dict
    source: str | None
    correct: np.ndarray = dataclasses.field(repr=False)
    among: np.ndarray | None = dataclasses.field(default=None, repr=False)
    answers: int = 1


@dataclasses.dataclass
class Known:
    """What is known about an attack: which images of the sample were `attacked` and which are `correct`, bool (N,)."""

    attack: str | None
    settings: dict
    source: str | None
    correct: np.ndarray
    attacked: np.ndarray
    answers: int = 1


def titled(attack, source, settings):
    """Returns the title of a progress bar for an attack: its name, settings and source."""
    if attack is None:
        return "clean"
    shown = {name: value if isinstance(value, str) else f"{value:g}" for name, value in settings.items()}
    numbers = ", ".join(f"{name} {value}" for name, value in shown.items() if name != "seed")
    return f"{attack} ({numbers})" + (f" from {source}" if source else "")
