"""Several attacks on each image, with a record of which attack fooled the network, and how far away."""

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from tf_nuat import draws, norms
from tf_nuat.attacks import ATTACKS
from tf_nuat.attacks.attack import AttackStage
from tf_nuat.attacks.pool import Pool
from tf_nuat.core import files, json_input, validation
from tf_nuat.evaluate.journal import STATE, Journal, identity_of
from tf_nuat.evaluate.outcomes import Examples, arrays, check_radius, correct
from tf_nuat.evaluate.record import RESULTS, ROBUST, WRONG, Record
from tf_nuat.models.precision import of_gradients
from tf_nuat.parallel import workers

Chosen = str | Sequence[str | tuple[str, Mapping[str, Any]]]  # a name, or names and pairs (name, settings)


def stages(names_and_settings: Chosen, *, num_classes: int, norm: str) -> list[AttackStage]:
    """Returns the stages of a list of attacks, a list of (name, attack, settings).

    Args:
        names_and_settings: a name of `tf_nuat.ATTACKS`, or a list of names and of pairs (name, settings). Settings are
            a dict of keywords without `epsilon` and `norm`. AutoAttack is replaced by the attacks that it consists of.
        num_classes: number K of logits.
        norm: name of the norm.

    Raises:
        ValueError: an attack is unknown, or does not support the norm, or does not take a setting.
    """
    given = [names_and_settings] if isinstance(names_and_settings, str) else names_and_settings
    pairs = (
        [(each, {}) if isinstance(each, str) else each for each in given] if isinstance(given, Sequence) else [given]
    )
    if not pairs:
        raise ValueError(f"attacks is empty; allowed: {', '.join(ATTACKS)}")
    chosen = []
    for each in pairs:
        if not (isinstance(each, Sequence) and len(each) == 2 and isinstance(each[1], Mapping)):
            allowed = "a name, or a list of names and of pairs (name, settings), as [('pgd', {'steps': 20})]"
            validation.refuse("attacks", names_and_settings, allowed)
        name, settings = each
        attack = validation.one_of("attack", name, ATTACKS)
        chosen += attack.stages(settings, num_classes=num_classes, norm=norm)
    return chosen


def worst_case(
    network: keras.Model,
    images_and_labels: Examples,
    attacks: Chosen = "autoattack",
    *,
    epsilon: float,
    norm: str = "linf",
    seed: int = 0,
    batch_size: int = 250,
    precision: str = "auto",
    strategy: tf.distribute.Strategy | None = None,
    folder: str | os.PathLike[str] | None = None,
    save_every: float = 10.0,
    progress: bool | str = False,
    about: Mapping[str, Any] | None = None,
    made_of: Sequence[Any] = (),
) -> Record:
    """Runs attacks one after the other, each on the images that withstood those before it, and returns a `Record`.

    Args:
        network: a `keras.Model`, images (B, H, W, C) in [0, 1] -> logits (B, K).
        images_and_labels: as for `tf_nuat.evaluate.correct`.
        attacks: what `stages` takes.
        epsilon: radius of the threat model, at least 0; at most 1 in L-infinity, sqrt(H W C) in L2, H W C in L1.
        norm: name of the norm, a key of `tf_nuat.NORMS`.
        seed: whole number, at least 0 and below 2**31. The draws for an image depend on it and on the image's place
            among all.
        batch_size, precision, strategy: as for `tf_nuat.evaluate.correct`. Each of several workers saves the progress
            on its own images in `folder`; the chief writes the record, and all return it.
        folder: where to save the record and the progress, from which the same call continues after a kill; None to save
            nothing.
        save_every: seconds between two saves of the progress, or 20 times what a save takes if that is longer; 0 saves
            every time.
        progress: whether to show progress bars; text is their title, in place of the attacks' names.
        about: a dict of JSON values to add to the written results, such as which images these are.
        made_of: JSON values that say what the network was made of, besides its configuration. Other values make it
            another evaluation.

    Raises:
        ValueError: an argument is out of its range, logits are not finite, the folder has another evaluation, or a
            folder is given and a surrogate is a function.

    Example:
        >>> import tf_nuat
        >>> x, y = tf_nuat.data.load("digits").arrays("test")
        >>> network = tf_nuat.networks.two_conv((8, 8, 1), 10)
        >>> record = tf_nuat.evaluate.worst_case(network, (x[:20], y[:20]), "fgsm", epsilon=0.1)
        >>> bool(record.robust.mean() <= record.clean.mean())
        True
    """
    images, labels = _checked(network, images_and_labels, batch_size=batch_size, seed=seed)
    check_radius(epsilon, norm, images)
    chosen = stages(attacks, num_classes=network.output_shape[-1], norm=norm)
    chosen = [(name, attack, {**settings, "epsilon": float(epsilon)}) for name, attack, settings in chosen]
    if folder is not None:
        _check_told_apart(chosen)
    validation.number("save_every", save_every, at_least=0.0)
    options: dict[str, Any] = {"batch_size": batch_size, "precision": of_gradients(network, precision)}
    identity = identity_of(network, images, labels, norm, epsilon, seed, chosen, options["precision"])
    if made_of:
        identity["network"] = [identity["network"], *made_of]
    workers.agree(identity, strategy)
    options["strategy"] = None if workers.count(strategy) > 1 else strategy  # several workers share the images instead
    with _owned(folder if workers.is_chief(strategy) else None):
        journal = _begun(folder, save_every, identity, network, images, labels, batch_size, strategy)
        while journal.stage < len(chosen):
            _run(journal, chosen[journal.stage], (network, images, labels), norm, seed, progress, options)
        journal.join(strategy)
        record = journal.record(chosen, norm, float(epsilon), options["precision"])
        if folder is not None and workers.is_chief(strategy):
            _save(record, folder, about)
    return record


def _checked(
    network: keras.Model, images_and_labels: Examples, *, batch_size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images and labels; raises a `ValueError` if an argument of `worst_case` is not valid."""
    validation.classifier("network", network)
    images, labels = arrays(images_and_labels, network)
    validation.logits_on("network", network, images)
    validation.whole_number("batch_size", batch_size, at_least=1)
    validation.whole_number("seed", seed, at_least=0, at_most=draws.LARGEST_SEED)
    return images, labels


def _check_told_apart(chosen: Sequence[AttackStage]) -> None:
    """Raises a `ValueError` if a setting is a function: the evaluation might be continued with another one."""
    for name, _, settings in chosen:
        for key, value in settings.items():
            if callable(value) and not isinstance(value, keras.Model):
                raise ValueError(f"{key} of {name} is a function; allowed with a folder: a keras.Model, or folder=None")


def _owned(folder: str | os.PathLike[str] | None) -> contextlib.AbstractContextManager[None]:
    """Returns a context in which the folder, if there is one, belongs to this process alone."""
    if folder is None:
        return contextlib.nullcontext()
    path = validation.output_folder("out", folder)
    json_input.refuse_another("out", path / RESULTS, "stages")
    return files.owned("out", path)


def _save(record: Record, folder: str | os.PathLike[str], about: Mapping[str, Any] | None) -> None:
    try:
        record.save(folder, about)
    except OSError as error:  # the results, which took long, must not be lost for this
        logging.error("the record is not saved: %s", error)


def _begun(
    folder: str | os.PathLike[str] | None,
    save_every: float,
    identity: dict[str, Any],
    network: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    strategy: tf.distribute.Strategy | None,
) -> Journal:
    """Returns the journal of this worker's images, which marks those that are wrong without an attack."""
    index, count = workers.index(strategy), workers.count(strategy)
    if count > 1:
        identity = {**identity, "worker": [index, count]}
    own = np.arange(len(images)) % count == index
    journal = Journal(folder, save_every, own, identity, name=f"state-{index}.npz" if index else STATE)
    if journal.stage < 0:
        right = correct(network, (images, labels), batch_size=batch_size)
        journal.fooled_by[:] = np.where(right, ROBUST, WRONG)
        journal.distance[~right] = 0.0
        journal.next_stage()
    return journal


def _run(
    journal: Journal,
    stage: AttackStage,
    sample: tuple[keras.Model, np.ndarray, np.ndarray],
    norm: str,
    seed: int,
    progress: bool | str,
    options: Mapping[str, Any],
) -> None:
    """Runs the attack of the journal's stage to its end; `options` are those of `Pool`."""
    name, attack, settings = stage
    settings = {"seed": seed, **settings} if "seed" in attack.keywords else settings
    pool, images = Pool(attack, *sample, journal.attacked(), settings, **options), sample[1]
    title = progress if isinstance(progress, str) else name if progress else None
    journal.continue_with(pool)
    began = time.monotonic() - journal.seconds[journal.stage]
    with tqdm(total=pool.size, initial=pool.ended, desc=title, unit="image", disable=title is None) as bar:
        for rows, fooled, x_adv in pool:
            found = rows[fooled]
            journal.fooled_by[found] = journal.stage
            journal.distance[found] = norms.of(norm).distances(x_adv[fooled] - images[found])
            journal.steps[journal.stage] = sum(pool.steps.values())
            journal.seconds[journal.stage] = time.monotonic() - began
            journal.save_sometimes(pool)
            bar.update(len(rows))
            bar.set_postfix_str(f"robust {np.mean(journal.fooled_by == ROBUST):.1%}")
    journal.next_stage()
