"""The networks that a figure compares: each a subject with a name, all on one sample and for one threat model."""

import dataclasses

from sanity.settings import Settings
from sanity.subject import Subject
from tf_nuat import norms
from tf_nuat.card import Card


class NotShownError(ValueError):
    """A figure cannot be made of these networks; the message is one line that says why.

    Example:
        >>> issubclass(NotShownError, ValueError)
        True
    """


@dataclasses.dataclass(frozen=True)
class Model:
    """A network to be compared.

    Attributes:
        name: what the figures call it.
        subject: `sanity.subject.Subject`, which keeps what figures share: the outcomes of attacks.
        card: the card beside the checkpoint, which may be incomplete; None if there is none.

    Example:
        >>> Model("linear", subject).name
        'linear'
    """

    name: str
    subject: Subject
    card: Card | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of all figures.

    Attributes:
        settings: `sanity.settings.Settings`: the attacks.
        dataset: name of the dataset, for captions.
        resolution: points along each axis of a surface, at least 2.
        training_data: (images, labels) to train the bend of a path on; None if there are none.
        epochs: number of epochs over the training data.
        distances: paths of the files that `tf_nuat.training.logit_distances.LogitDistances` wrote.

    Example:
        >>> Options(settings, dataset="digits").resolution
        21
    """

    settings: Settings = dataclasses.field(default_factory=Settings)
    dataset: str = ""
    resolution: int = 21
    training_data: tuple | None = None
    epochs: int = 3
    distances: tuple = ()


def about(models, options):
    """Returns a dict of facts about the sample and the threat model, for the captions."""
    subject = models[0].subject
    return {
        "dataset": options.dataset,
        "images": len(subject),
        "epsilon": subject.epsilon,
        "norm": subject.norm.name,
        "num_classes": subject.num_classes,
        "chance": subject.chance,
        "seed": subject.seed,
    }


def threat(data):
    """Returns the sample and the threat model of a figure's data as text."""
    sample = data["sample"]
    norm = norms.of(sample["norm"]).label
    of = f" of {sample['dataset']}" if sample["dataset"] else ""
    return f"{sample['images']} test images{of}, {norm}, epsilon {sample['epsilon']:.4g} (pixels in [0, 1])"


def radius(sample):
    """Returns the label of an axis of radii."""
    return f"epsilon ({norms.of(sample['norm']).label}, pixels in [0, 1])"
