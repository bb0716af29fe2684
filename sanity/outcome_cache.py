"""Saves the outcomes of a judgement to a file, so that an interrupted judgement can resume."""

import json
import os
import pathlib

import numpy as np
from absl import logging

from tf_nuat.core import files, json_input, npz_input
from tf_nuat.core.npz_input import Shape

_KEPT = {"identity": Shape("U", ()), "keys": Shape("U", ()), "outcomes": Shape("b", (None, 2, None))}


class OutcomeCache:
    """Outcomes of attacks by their settings; the file is saved after each attack.

    Args:
        path: the `.npz` file; None to save nothing.
        identity: dict of names to JSON values that identify the network and the sample of the outcomes.
        resume: whether to load the outcomes in the file; otherwise it is replaced.

    Raises:
        ValueError: the file cannot be read, or belongs to another network or sample.
    """

    def __init__(
        self, path: str | os.PathLike | None = None, identity: dict | None = None, *, resume: bool = False
    ) -> None:
        self._path = None if path is None else pathlib.Path(path)
        self._identity = identity or {}
        self._outcomes: dict[str, np.ndarray] = {}
        if resume and self._path is not None and os.path.exists(self._path):
            self._load(self._path)

    def get(self, key: tuple) -> np.ndarray | None:
        """Returns which images remained correct and which were attacked, bool (2, N); None if the key is unknown."""
        return self._outcomes.get(json.dumps(key))

    def keep(self, key: tuple, outcome: np.ndarray) -> None:
        """Stores an outcome, bool (2, N), and saves the file. `key` is made of lists, strings and numbers."""
        self._outcomes[json.dumps(key)] = outcome
        if self._path is not None:
            keys = list(self._outcomes)
            stacked = np.stack([self._outcomes[each] for each in keys])
            content = {"identity": json.dumps(self._identity), "keys": json.dumps(keys), "outcomes": stacked}
            try:
                files.save_arrays(self._path, **content)
            except files.NotSavedError as error:  # the judgement goes on; a resumed one repeats what was not saved
                logging.warning("%s", error)

    def _load(self, path):
        where, allowed = f"--resume: {path}", "without --resume, to begin anew"
        found = npz_input.load(where, path, allowed=allowed)
        npz_input.check(where, found, _KEPT, allowed=allowed)
        identity, keys = (json_input.parsed(where, str(found[name]), allowed=allowed) for name in ("identity", "keys"))
        outcomes = found["outcomes"]
        if not isinstance(identity, dict) or not isinstance(keys, list) or len(keys) != len(outcomes):
            raise ValueError(f"{where} is not what a judgement keeps; allowed: {allowed}")
        self._outcomes = dict(zip(map(str, keys), outcomes))
        differing = [name for name, value in self._identity.items() if identity.get(name) != value]
        if differing:
            raise ValueError(
                f"--resume: {path} belongs to other {', '.join(differing)}; allowed: another --out, or without "
                "--resume, to begin anew"
            )
