"""The worst of several attacks for each image, with a record of which attack fooled the network, and how far away."""

import dataclasses
import json
import pathlib
import time
import zipfile

import keras
import numpy as np
from absl import logging
from tqdm import tqdm

from tf_nuat import attacks, checkpoint
from tf_nuat.attacks.autoattack import stages as stages_of_autoattack
from tf_nuat.attacks.pool import Pool
from tf_nuat.core import files, validation
from tf_nuat.evaluate.outcomes import arrays, correct, wilson
from tf_nuat.parallel import workers

ROBUST, WRONG = -1, -2  # in `Record.fooled_by`
STATE = "state.npz"


@dataclasses.dataclass
class Stage:
    """An attack of an evaluation: its name and settings, how many images it got and fooled, and what it took.

    `steps` counts those of all images: of most attacks a step is a gradient, of Square a forward pass.
    """

    name: str
    settings: dict
    attacked: int = 0
    fooled: int = 0
    steps: int = 0
    seconds: float = 0.0


@dataclasses.dataclass
class Record:
    """What became of every image.

    Attributes:
        stages: list of `Stage`, in the order in which they were run.
        fooled_by: int (N,), the place in `stages` of the attack that fooled the network, `ROBUST` (-1) where none did,
            `WRONG` (-2) where no attack was needed.
        distance: float32 (N,), how far the adversary is from the image in the norm of the threat model: 0 where none
            was needed, NaN where none was found.
        norm, epsilon: the threat model.
    """

    stages: list
    fooled_by: np.ndarray
    distance: np.ndarray
    norm: str
    epsilon: float

    @property
    def clean(self):
        """Which images are classified correctly without an attack, bool (N,)."""
        return self.fooled_by != WRONG

    @property
    def robust(self):
        """Which images no attack fooled, bool (N,)."""
        return self.fooled_by == ROBUST

    def rows(self):
        """Returns the accuracy left after each stage: a list of dicts, the first of which is without an attack."""
        left, rows = int(self.clean.sum()), []
        for stage in (Stage("clean", {}), *self.stages):
            left -= stage.fooled
            low, high = wilson(left, len(self.fooled_by))
            accuracy = left / len(self.fooled_by)
            rows.append({**dataclasses.asdict(stage), "accuracy": accuracy, "interval": [low, high]})
        return rows

    def save(self, folder, about=None):
        """Writes `record.npz` and `results.json` into an existing folder; `about`, a dict, is for the latter, too."""
        folder = pathlib.Path(folder)
        files.save_arrays(folder / "record.npz", fooled_by=self.fooled_by, distance=self.distance)
        content = {"norm": self.norm, "epsilon": self.epsilon, "images": len(self.fooled_by), "stages": self.rows()}
        files.save_json({**(about or {}), **content}, folder / "results.json")


def stages(names_and_settings, *, num_classes, norm):
    """Returns the list of (name, attack, settings) that a list of attacks stands for.

    Args:
        names_and_settings: a name of `tf_nuat.ATTACKS`, or a list of names and of pairs (name, settings).
            "autoattack", which takes the setting `version`, stands for the attacks that it consists of.
        num_classes: number K of logits.
        norm: "linf" or "l2".

    Raises:
        ValueError: an attack is unknown, or not one of this norm, or a setting is not one that it takes.
    """
    given = [names_and_settings] if isinstance(names_and_settings, str) else list(names_and_settings)
    if not given:
        raise ValueError(f"attacks is empty; allowed: {', '.join(attacks.ATTACKS)}")
    chosen = []
    for name, settings in ((each, {}) if isinstance(each, str) else each for each in given):
        attack = validation.one_of("attack", name, attacks.ATTACKS)
        if name == "autoattack":
            for setting in settings:
                validation.one_of("argument of autoattack", setting, ("version",))
            chosen += stages_of_autoattack(settings.get("version", "standard"), num_classes=num_classes, norm=norm)
            continue
        validation.one_of(f"norm of {name}", norm, attacks.norms(name))
        settings = {**settings, "norm": norm} if "norm" in attack.keywords else settings
        attack.check_settings(settings)
        chosen.append((name, attack, settings))
    return chosen


def worst_case(
    network,
    images_and_labels,
    attacks="autoattack",
    *,
    epsilon,
    norm="linf",
    seed=0,
    batch_size=250,
    precision="auto",
    strategy=None,
    folder=None,
    save_every=10.0,
    progress=False,
    about=None,
) -> Record:
    """Runs attacks one after the other, each on the images that withstood those before it, and returns a `Record`.

    Args:
        network: a `keras.Model`, images (B, H, W, C) in [0, 1] -> logits (B, K).
        images_and_labels: as for `tf_nuat.evaluate.correct`.
        attacks: what `stages` takes.
        epsilon: radius of the threat model, at least 0.
        norm: "linf" or "l2".
        seed: whole number, at least 0. The draws for an image follow from it and from the image's place among all.
        batch_size, precision, strategy: as for `tf_nuat.evaluate.correct`. Each of several workers keeps what it knows
            of its own images in `folder`; the chief writes the record, which all return.
        folder: where to keep what is known so far, from which the same call goes on after it was killed, and the
            record; None to keep nothing.
        save_every: seconds after which that is saved, seldomer where saving takes a twentieth of it; 0 saves it always.
        progress: whether to show progress bars; text to call them by it, and not by the attacks' names.
        about: a dict of JSON values that the written results shall say too: which images these are, for instance.

    Raises:
        ValueError: an argument is out of its range, the network's logits are not finite, or the folder holds what
            cannot be read or belongs to another evaluation.
    """
    validation.classifier("network", network)
    images, labels = arrays(images_and_labels, network)
    checkpoint.logits_on("network", network, images)
    validation.whole_number("batch_size", batch_size, at_least=1)
    validation.number("epsilon", epsilon, at_least=0.0)
    validation.whole_number("seed", seed, at_least=0)
    chosen = stages(attacks, num_classes=network.output_shape[-1], norm=norm)
    chosen = [(name, attack, {**settings, "epsilon": float(epsilon)}) for name, attack, settings in chosen]
    validation.number("save_every", save_every, at_least=0.0)
    identity = _identity(network, images, labels, norm, epsilon, seed, chosen)
    workers.agree(identity, strategy)
    index, count = workers.index(strategy), workers.count(strategy)
    if count > 1:
        identity["worker"] = [index, count]
    own = np.arange(len(images)) % count == index
    journal = _Journal(folder, save_every, own, identity, name=f"state-{index}.npz" if index else STATE)
    if journal.stage < 0:
        right = correct(network, (images, labels), batch_size=batch_size)
        journal.fooled_by[:] = np.where(right, ROBUST, WRONG)
        journal.distance[~right] = 0.0
        journal.stage = 0
        journal.save()
    while journal.stage < len(chosen):
        name, attack, settings = chosen[journal.stage]
        settings = {"seed": seed, **settings} if "seed" in attack.keywords else settings
        options = {"batch_size": batch_size, "precision": precision, "strategy": None if count > 1 else strategy}
        pool = Pool(attack, network, images, labels, journal.attacked(), settings, **options)
        _run(journal, pool, images, norm, progress if isinstance(progress, str) else name if progress else None)
        journal.next_stage()
    journal.join(strategy)
    record = journal.record(chosen, norm, float(epsilon))
    if folder is not None and workers.is_chief(strategy):
        try:
            record.save(folder, about)
        except OSError as error:  # what took so long must not be lost for this
            logging.error("the record is not saved: %s", error)
    return record


def _run(journal, pool, images, norm, title):
    """Takes the attack of the journal's stage to its end."""
    journal.continue_with(pool)
    began = time.monotonic() - journal.seconds[journal.stage]
    with tqdm(total=pool.size, initial=pool.ended, desc=title, unit="image", disable=title is None) as bar:
        for rows, fooled, x_adv in pool:
            journal.fooled_by[rows[fooled]] = journal.stage
            journal.distance[rows[fooled]] = _distances(x_adv[fooled], images[rows[fooled]], norm)
            journal.steps[journal.stage] = sum(pool.steps.values())
            journal.seconds[journal.stage] = time.monotonic() - began
            journal.save_sometimes(pool)
            bar.update(len(rows))
            bar.set_postfix_str(f"robust {np.mean(journal.fooled_by == ROBUST):.1%}")


def _distances(x_adv, x, norm):
    change = x_adv - x
    return np.abs(change).max(axis=(1, 2, 3)) if norm == "linf" else np.sqrt(np.square(change).sum(axis=(1, 2, 3)))


class _Journal:
    """What is known of an evaluation so far, in a file from which it goes on after it was killed.

    Args:
        folder: where the file is, or None to keep none.
        save_every: seconds from one time to the next.
        own: bool (N,), which images are attacked here.
        identity: dict of names to values, JSON, that say which evaluation it is.
        name: of the file.
    """

    def __init__(self, folder, save_every, own, identity, *, name=STATE):
        self._path = None if folder is None else validation.output_folder("out", folder) / name
        self._own = own
        self._identity, self._save_every = identity, save_every
        self._pool, self._saved, self._saving, self._warned = None, time.monotonic(), 0.0, False
        self.stage = -1  # before the first one
        self.fooled_by = np.full(len(own), ROBUST)
        self.distance = np.full(len(own), np.nan, np.float32)
        self.steps = np.zeros(len(identity["attacks"]), np.int64)
        self.seconds = np.zeros(len(identity["attacks"]))
        if self._path is not None and self._path.exists():
            self._load(self._path)

    def attacked(self):
        """Returns the rows that this stage's attack gets, those included that it has fooled already."""
        return np.flatnonzero(self._own & ((self.fooled_by == ROBUST) | (self.fooled_by == self.stage)))

    def continue_with(self, pool):
        """Has the pool go on from where the file says it was."""
        if self._pool is not None:
            pool.restore(self._pool)
            self._pool = None

    def next_stage(self):
        """Notes that the attack has ended."""
        self.stage += 1
        self.save()

    def save_sometimes(self, pool):
        """Saves where the last time is long enough ago."""
        waited = time.monotonic() - self._saved
        if self._save_every == 0.0 or waited > max(self._save_every, 20 * self._saving):
            self.save(pool)

    def save(self, pool=None):
        """Replaces the file. Where that fails the evaluation goes on, with a warning."""
        if self._path is None:
            return
        began = time.monotonic()
        arrays = {name: getattr(self, name) for name in ("stage", "fooled_by", "distance", "steps", "seconds")}
        arrays |= {f"pool_{name}": value for name, value in (pool.snapshot() if pool else {}).items()}
        try:
            files.save_arrays(self._path, identity=json.dumps(self._identity), **arrays)
        except OSError as error:
            if not self._warned:
                logging.warning("%s: a kill would lose what is done", error)
            self._warned = True
        self._saved = time.monotonic()
        self._saving = self._saved - began

    def _load(self, path):
        try:
            with np.load(path) as file:
                arrays = dict(file)
            identity = json.loads(str(arrays.pop("identity")))
            pool = {name.removeprefix("pool_"): arrays.pop(name) for name in list(arrays) if name.startswith("pool_")}
            self.stage = int(arrays.pop("stage"))
            differing = [name for name, value in self._identity.items() if identity.get(name) != value]
            if not differing:
                for name in ("fooled_by", "distance", "steps", "seconds"):
                    setattr(self, name, arrays[name])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"out has {path}, which cannot be read ({type(error).__name__}); "
                "allowed: another folder, or remove this file to begin anew"
            ) from error
        if differing:
            raise ValueError(
                f"out is {str(path.parent)!r}, which has an evaluation with other {', '.join(differing)}; "
                f"allowed: another folder, or the same arguments to go on with that one"
            )
        self._pool = pool or None

    def join(self, strategy):
        """Takes in what the other workers know of their images."""
        if workers.count(strategy) > 1:
            every = workers.arrays_of_all([self.fooled_by, self.distance, self.steps, self.seconds], strategy)
            for index, (fooled_by, distance, _, _) in enumerate(every):
                self.fooled_by[index :: len(every)] = fooled_by[index :: len(every)]
                self.distance[index :: len(every)] = distance[index :: len(every)]
            self.steps = sum(steps for _, _, steps, _ in every)
            self.seconds = np.max([seconds for _, _, _, seconds in every], axis=0)

    def record(self, chosen, norm, epsilon):
        """Returns the `Record` of all stages."""
        attacked, found = int((self.fooled_by != WRONG).sum()), []
        for number, (name, _, settings) in enumerate(chosen):
            fooled = int((self.fooled_by == number).sum())
            steps, seconds = int(self.steps[number]), round(float(self.seconds[number]), 3)
            found.append(Stage(name, _as_json(settings), attacked, fooled, steps, seconds))
            attacked -= fooled
        return Record(found, self.fooled_by, self.distance, norm, epsilon)


def _identity(network, images, labels, norm, epsilon, seed, chosen):
    """Returns what makes an evaluation the same one, as names and JSON values."""
    return {
        "network": files.digest(*network.get_weights()),
        "images": files.digest(images),
        "labels": files.digest(labels),
        "norm": norm,
        "epsilon": float(epsilon),
        "seed": int(seed),
        "attacks": [[name, _as_json(settings)] for name, _, settings in chosen],
    }


def _as_json(settings):
    """Returns settings with the weights' digest of a surrogate in its place."""
    return {
        name: files.digest(*value.get_weights()) if isinstance(value, keras.Model) else value
        for name, value in settings.items()
    }
