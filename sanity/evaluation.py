"""What is kept of an attack that was run on the images of a subject."""

import dataclasses
from collections.abc import Sequence

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
    """One attack that was run on the images.

    Attributes:
        attack: its name; None for no attack.
        settings: its keywords.
        source: the surrogate, or whatever else it was computed on; None for the network itself.
        correct: which images remained correctly classified, bool (N,). Of those that were not attacked it says what
            they are without attack.
        among: which images were attacked, bool (N,); None for all.
        answers: how many answers of the network, their mean, decide on an image.

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
    """What is known of an attack: `correct` and whether it was `attacked`, of every image of the sample, bool (N,)."""

    attack: str | None
    settings: dict
    source: str | None
    correct: np.ndarray
    attacked: np.ndarray
    answers: int = 1


def counted(evaluations: Sequence[Evaluation], epsilon: float) -> list[Evaluation]:
    """Returns the evaluations that the worst case is of: within epsilon, and of as many answers as any.

    Where the answers of a network are random, a single one says little.
    """
    answers = max(each.answers for each in evaluations)
    return [each for each in evaluations if each.answers == answers and each.settings.get("epsilon", 0.0) <= epsilon]


def titled(attack, source, settings):
    """Returns what to call an attack with its settings, on the network or from a surrogate, in a progress bar."""
    if attack is None:
        return "clean"
    shown = {name: value if isinstance(value, str) else f"{value:g}" for name, value in settings.items()}
    numbers = ", ".join(f"{name} {value}" for name, value in shown.items() if name != "seed")
    return f"{attack} ({numbers})" + (f" from {source}" if source else "")
