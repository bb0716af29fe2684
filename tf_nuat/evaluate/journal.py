"""The journal of an evaluation: a file from which it continues after a kill."""

import json
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_nuat.attacks.attack import AttackStage
from tf_nuat.attacks.pool import Pool
from tf_nuat.core import files, json_input, npz_input, validation
from tf_nuat.core.npz_input import Shape
from tf_nuat.evaluate.record import ROBUST, WRONG, Attacked, Record
from tf_nuat.models.fingerprint import fingerprint
from tf_nuat.parallel import workers

STATE = "state.npz"
_ALLOWED = "another folder, or remove this file to begin anew"
_KEPT = ("fooled_by", "distance", "steps", "seconds")
_TOLD = ("norm", "epsilon", "seed", "precision")  # of an identity, the values that say something to a person


class Journal:
    """The progress of an evaluation, in a file from which it continues after a kill.

    Args:
        folder: where the file is, or None to keep none.
        save_every: seconds between two saves.
        own: bool (N,), which images this process attacks.
        identity: dict of names to JSON values that identify the evaluation.
        name: name of the file.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        save_every: float,
        own: np.ndarray,
        identity: Mapping[str, Any],
        *,
        name: str = STATE,
    ) -> None:
        self._path = None if folder is None else validation.output_folder("out", folder) / name
        self._own = own
        self._identity, self._save_every = identity, save_every
        self._pool: dict[str, np.ndarray] | None = None
        self._saved, self._saving, self._warned = time.monotonic(), 0.0, False
        self.stage = -1  # before the first one
        self.fooled_by = np.full(len(own), ROBUST)
        self.distance = np.full(len(own), np.nan, np.float32)
        self.steps = np.zeros(len(identity["attacks"]), np.int64)
        self.seconds = np.zeros(len(identity["attacks"]))
        if self._path is not None and self._path.exists():
            self._load(self._path)

    def attacked(self) -> np.ndarray:
        """Returns the rows that this stage's attack gets, including those that it has fooled already."""
        return np.flatnonzero(self._own & ((self.fooled_by == ROBUST) | (self.fooled_by == self.stage)))

    def continue_with(self, pool: Pool) -> None:
        """Restores the state that the file has of the pool, if any."""
        if self._pool is not None:
            try:
                pool.restore(self._pool)
            except (KeyError, ValueError, TypeError, tf.errors.OpError) as error:
                raise ValueError(
                    f"out has {self._path}, which cannot be read ({files.reason(error)}); allowed: {_ALLOWED}"
                ) from error
            self._pool = None

    def next_stage(self) -> None:
        """Begins the next stage, and saves."""
        self.stage += 1
        self.save()

    def save_sometimes(self, pool: Pool) -> None:
        """Saves if the last save is long enough ago."""
        waited = time.monotonic() - self._saved
        if self._save_every == 0.0 or waited > max(self._save_every, 20 * self._saving):
            self.save(pool)

    def save(self, pool: Pool | None = None) -> None:
        """Replaces the file. If that fails, the evaluation goes on, with a warning."""
        if self._path is None:
            return
        began = time.monotonic()
        arrays = {name: getattr(self, name) for name in ("stage", *_KEPT)}
        arrays |= {f"pool_{name}": value for name, value in (pool.snapshot() if pool else {}).items()}
        try:
            files.save_arrays(self._path, identity=json.dumps(self._identity), **arrays)
        except OSError as error:
            if not self._warned:
                logging.warning("%s: a kill would lose what is done", error)
            self._warned = True
        self._saved = time.monotonic()
        self._saving = self._saved - began

    def _load(self, path: pathlib.Path) -> None:
        where, allowed = f"out has {path}, which", _ALLOWED
        arrays = npz_input.load(where, path, allowed=allowed)
        npz_input.check(where, arrays, {"identity": Shape("U", ()), "stage": Shape("iu", ())}, allowed=allowed)
        identity = json_input.parsed(where, str(arrays["identity"]), allowed=allowed)
        if not isinstance(identity, dict):
            raise ValueError(f"{where} is not the journal of an evaluation; allowed: {allowed}")
        names = {**self._identity, **identity}  # a single process has no `worker`: it refuses a worker's share
        if differing := [name for name in names if identity.get(name) != self._identity.get(name)]:
            told = [
                f"{name} ({identity.get(name)!r}, not {self._identity[name]!r})" if name in _TOLD else name
                for name in differing
            ]
            raise ValueError(
                f"out is {str(path.parent)!r}, which has an evaluation with other {', '.join(told)}; "
                "allowed: another folder, or the same arguments and version of tf_nuat to go on with that one"
            )
        kept = {name: getattr(self, name) for name in _KEPT}
        wanted = {name: Shape(value.dtype.kind, value.shape) for name, value in kept.items()}
        npz_input.check(where, arrays, wanted, allowed=allowed)
        self.stage = int(arrays["stage"])
        for name, value in kept.items():
            setattr(self, name, arrays[name].astype(value.dtype))
        self._pool = {
            name.removeprefix("pool_"): value for name, value in arrays.items() if name.startswith("pool_")
        } or None

    def join(self, strategy: tf.distribute.Strategy | None) -> None:
        """Adds the results that the other workers have for their images."""
        if workers.count(strategy) > 1:
            every = workers.arrays_of_all([self.fooled_by, self.distance, self.steps, self.seconds], strategy)
            for index, (fooled_by, distance, _, _) in enumerate(every):
                self.fooled_by[index :: len(every)] = fooled_by[index :: len(every)]
                self.distance[index :: len(every)] = distance[index :: len(every)]
            self.steps = np.sum([steps for _, _, steps, _ in every], axis=0)
            self.seconds = np.max([seconds for _, _, _, seconds in every], axis=0)

    def record(self, chosen: Sequence[AttackStage], norm: str, epsilon: float, precision: str) -> Record:
        """Returns the `Record` of all stages."""
        attacked, found = int((self.fooled_by != WRONG).sum()), []
        for number, (name, _, settings) in enumerate(chosen):
            fooled = int((self.fooled_by == number).sum())
            steps, seconds = int(self.steps[number]), round(float(self.seconds[number]), 3)
            found.append(Attacked(name, _as_json(settings), attacked, fooled, steps, seconds))
            attacked -= fooled
        return Record(found, self.fooled_by, self.distance, norm, epsilon, precision)


def identity_of(
    network: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    norm: str,
    epsilon: float,
    seed: int,
    chosen: Sequence[AttackStage],
    precision: str,
) -> dict[str, Any]:
    """Returns the names and JSON values that identify an evaluation."""
    return {
        "network": fingerprint(network),
        "images": files.digest(images),
        "labels": files.digest(labels),
        "norm": norm,
        "epsilon": float(epsilon),
        "seed": int(seed),
        "precision": precision,
        "attacks": [[name, _as_json(settings)] for name, _, settings in chosen],
    }


def _as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings as JSON values, with a surrogate replaced by its fingerprint."""
    return {name: _plain(value) for name, value in settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, keras.Model):
        return fingerprint(value)
    if callable(value):
        return "a function"  # `worst_case` refuses it together with a folder
    if tf.is_tensor(value) or isinstance(value, (np.generic, np.ndarray)):
        return np.asarray(value).tolist()
    return value
