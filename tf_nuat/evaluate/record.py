"""`Record`: the outcome of every image under several attacks."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_nuat.core import files
from tf_nuat.evaluate.outcomes import wilson

ROBUST, WRONG = -1, -2  # in `Record.fooled_by`
RESULTS = "results.json"


@dataclasses.dataclass
class Attacked:
    """The result of an attack in an evaluation: its name and settings, how many images it got and fooled, its cost.

    `steps` is the sum over all images. A step of most attacks is a gradient, a step of Square a forward pass.

    Example:
        >>> from tf_nuat.evaluate import Attacked
        >>> Attacked("fgsm", {"epsilon": 0.1}, attacked=90, fooled=60).fooled
        60
    """

    name: str
    settings: dict[str, Any]
    attacked: int = 0
    fooled: int = 0
    steps: int = 0
    seconds: float = 0.0


@dataclasses.dataclass
class Record:
    """The outcome of every image.

    Attributes:
        stages: list of `Attacked`, in the order in which they were run.
        fooled_by: int (N,), the place in `stages` of the attack that fooled the network, `ROBUST` (-1) where none did,
            `WRONG` (-2) where no attack was needed.
        distance: float32 (N,), how far the adversary is from the image in the norm of the threat model: 0 where none
            was needed, NaN where none was found.
        norm, epsilon: the threat model.
        precision: of the gradients, "float32" or "bfloat16"; verdicts are in float32.

    Example:
        >>> import numpy as np
        >>> from tf_nuat.evaluate import Attacked, Record
        >>> fgsm = Attacked("fgsm", {}, attacked=3, fooled=1)
        >>> distance = np.array([np.nan, 0.1, 0.0, np.nan])
        >>> record = Record([fgsm], np.array([-1, 0, -2, -1]), distance, "linf", 0.1, "float32")
        >>> float(record.clean.mean()), float(record.robust.mean())
        (0.75, 0.5)
    """

    stages: list[Attacked]
    fooled_by: np.ndarray
    distance: np.ndarray
    norm: str
    epsilon: float
    precision: str

    @property
    def clean(self) -> np.ndarray:
        """Which images are classified correctly without an attack, bool (N,)."""
        return self.fooled_by != WRONG

    @property
    def robust(self) -> np.ndarray:
        """Which images no attack fooled, bool (N,)."""
        return self.fooled_by == ROBUST

    def rows(self) -> list[dict[str, Any]]:
        """Returns the accuracy left after each stage: a list of dicts, the first of which is without an attack."""
        left, rows = int(self.clean.sum()), []
        for stage in (Attacked("clean", {}), *self.stages):
            left -= stage.fooled
            low, high = wilson(left, len(self.fooled_by))
            accuracy = left / len(self.fooled_by)
            rows.append({**dataclasses.asdict(stage), "accuracy": accuracy, "interval": [low, high]})
        return rows

    def save(self, folder: str | os.PathLike[str], about: Mapping[str, Any] | None = None) -> None:
        """Writes `record.npz` and `results.json` into an existing folder; the latter also gets the dict `about`."""
        folder = pathlib.Path(folder)
        files.save_arrays(folder / "record.npz", fooled_by=self.fooled_by, distance=self.distance)
        content = {name: getattr(self, name) for name in ("norm", "epsilon", "precision")}
        content |= {"images": len(self.fooled_by), "stages": self.rows()}
        files.save_json({**(about or {}), **content}, folder / RESULTS)
