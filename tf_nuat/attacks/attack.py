"""`Attack`, and the decorator `attack` that turns a function into one.

An attack is called as `attack(logits_fn, x, y, *, epsilon, ...) -> x_adv` with images x (B, H, W, C) in [0, 1] and
labels y, integers (B,) or one-hot (B, K). `logits_fn` maps images to logits (B, K): a network or any function. The
result lies within `epsilon` of x, in the norm that the keyword `norm` names (L-infinity without that keyword), and
within [0, 1].

There are three kinds. The first takes a fixed number of steps and returns the last point: FGSM, for instance, which
training uses. The second searches for an adversary, an image that fools the network, and returns it, or x if it finds
none. It is written as a `Search`, whose images stop one by one, so that the engine of evaluations
(`tf_nuat.attacks.pool`) can replace finished images by others. The third, AutoAttack, consists of other attacks: its
stages.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import numpy as np
import tensorflow as tf

from tf_nuat import draws, losses, norms
from tf_nuat.attacks.batch import check_surrogate, checked_batch, image_numbers, start_images
from tf_nuat.attacks.search import Ended, Search, choose, ended, run_search
from tf_nuat.core import validation
from tf_nuat.models.inference import Logits, compiled_for, graph_of

Check = Callable[[str, Any], Any]  # takes a keyword's name and value; raises ValueError


def true_or_false(name: str, value: Any) -> None:
    """Raises a `ValueError` if `value` is not True or False; the truth value of text or a number does not count."""
    if not isinstance(value, bool):
        validation.refuse(name, value, "False, True")


def seed_or_pair(name: str, value: Any) -> None:
    """Raises a `ValueError` if `value` is not a seed, nor two of them: stateless draws take no larger numbers."""
    for each in value if np.ndim(value) == 1 and len(value) == 2 else [value]:
        validation.whole_number(name, each, at_least=0, at_most=draws.LARGEST_SEED)


# The check of each keyword of the attacks. It is made once, when an attack is called eagerly.
_ALLOWED: dict[str, Check] = {
    "epsilon": lambda name, value: validation.number(name, value, at_least=0.0),
    "alpha": lambda name, value: validation.number(name, value, at_least=0.0),
    "step_size": lambda name, value: validation.number(name, value, above=0.0),
    "weight": lambda name, value: validation.number(name, value, at_least=0.0),
    "steps": lambda name, value: validation.whole_number(name, value, at_least=1),
    "restarts": lambda name, value: validation.whole_number(name, value, at_least=1),
    "queries": lambda name, value: validation.whole_number(name, value, at_least=1),
    "eot_iterations": lambda name, value: validation.whole_number(name, value, at_least=1),
    "targets": lambda name, value: validation.whole_number(name, value, at_least=1),
    "seed": seed_or_pair,
    "random_start": true_or_false,
}
_STATIC = ("eot_iterations",)  # numbers that change what is compiled
_OF_A_CALL = ("index", "batch_size", "precision")  # keywords of how to run an attack, not of the attack itself

AttackStage = tuple[str, "Attack", dict[str, Any]]  # name, attack, settings


class Attack:
    """An attack: a callable that knows its name, its keywords, the norms it supports and its stages.

    Args:
        function: `function(logits_fn, x, y, *, ...)`, which returns images (B, H, W, C) or a `Search`; with `stages`,
            images.
        norms: names of the norms that it supports. None: "linf" and "l2" if it has a keyword `norm`, else "linf".
        needs: keywords that are required although they have a default.
        stages: function `(settings, *, num_classes, norm)` that returns the stages of an attack that consists of other
            attacks; None for an attack that is its own only stage.
        allowed: the checks of keywords that only this attack has: functions `(name, value)` that raise `ValueError`.

    Attributes:
        name: its name in `tf_nuat.ATTACKS`, the name of the function.
        keywords: its keywords with their defaults; `inspect.Parameter.empty` if one is required.
        norms, needs: as above.
        is_single: whether it is its own only stage.
        searches: whether it is a search, which ends for each image at the first adversary.

    Example:
        >>> import tf_nuat
        >>> pgd = tf_nuat.ATTACKS["pgd"]
        >>> pgd.name, pgd.norms, pgd.keywords["steps"]
        ('pgd', ('linf', 'l2', 'l1'), 40)
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        norms: Sequence[str] | None = None,
        needs: Sequence[str] = (),
        stages: Callable[..., list[AttackStage]] | None = None,
        allowed: Mapping[str, Check] | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.name: str = function.__name__
        self.function = function
        signature = inspect.signature(function)
        self.keywords: dict[str, Any] = {
            each.name: each.default
            for each in signature.parameters.values()
            if each.kind is each.KEYWORD_ONLY and each.name not in _OF_A_CALL
        }
        if norms is None:
            norms = ("linf", "l2") if "norm" in self.keywords else ("linf",)
        self.norms = tuple(norms)
        self.needs = tuple(needs)
        self.searches = stages is not None or signature.return_annotation is Search
        self.is_single = stages is None
        self._stages = stages
        self._allowed = {**_ALLOWED, **(allowed or {})}

    def __repr__(self) -> str:
        return f"<attack {self.name}>"

    def stages(self, settings: Mapping[str, Any], *, num_classes: int, norm: str) -> list[AttackStage]:
        """Returns the list of its stages, (name, attack, settings), in the order in which they run.

        Args:
            settings: its keywords, without `epsilon` and `norm`, which the evaluation sets. All stages get its `seed`.
            num_classes: number K of logits, at least 2.
            norm: name of the norm.

        Raises:
            ValueError: a setting is unknown or out of its range, or the attack does not support the norm.
        """
        self.check_norm(norm)
        for name in ("epsilon", "norm", "batch_size", "precision"):
            if name in settings:
                validation.refuse(f"argument of {self.name}", name, f"{name}= of the evaluation, for all attacks alike")
        self.check_settings(settings)
        self.check_complete(settings)
        if self._stages is not None:
            return self._stages(settings, num_classes=num_classes, norm=norm)
        return [(self.name, self, {**settings, **({"norm": norm} if "norm" in self.keywords else {})})]

    def check_norm(self, norm: str) -> None:
        """Raises a `ValueError` where the attack does not support the norm of this name."""
        validation.one_of(f"norm of {self.name}", norm, self.norms)

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raises a `ValueError` where one of these keywords is unknown or out of its range."""
        for name, value in settings.items():
            validation.one_of(f"argument of {self.name}", name, self.keywords)
            left_open = value is None and self.keywords[name] is None
            if name == "norm":
                self._norm(value)
            elif name in self._allowed and not left_open and not tf.is_symbolic_tensor(value):
                self._allowed[name](name, value.numpy() if tf.is_tensor(value) else value)

    def _norm(self, norm: str | norms.Norm) -> str:
        """Returns the name of a norm that the attack supports."""
        return validation.one_of("norm", norm.name if isinstance(norm, norms.Norm) else norm, self.norms)

    def check_complete(self, settings: Mapping[str, Any]) -> None:
        """Raises a `ValueError` where a keyword of `needs` is missing."""
        for name in self.needs:
            if settings.get(name) is None:
                raise ValueError(f"{name} of {self.name} is not given; allowed: has to be given")

    def check_epsilon(self, settings: Mapping[str, Any]) -> None:
        """Raises a `ValueError` where `epsilon` is missing, and has no default."""
        if self.keywords.get("epsilon") is inspect.Parameter.empty and "epsilon" not in settings:
            raise ValueError("epsilon is not given; allowed: a number, at least 0")

    def as_tensors(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values of all keywords, numbers as tensors.

        It always returns all keywords: TensorFlow would compile again for calls that name different ones.

        Raises:
            ValueError: as `check_settings` and `check_epsilon`.
        """
        self.check_settings(settings)
        self.check_epsilon(settings)
        given = {name: settings.get(name, default) for name, default in self.keywords.items()}
        return {
            name: value if name in _STATIC else _as_tensor(value, self.keywords[name]) for name, value in given.items()
        }

    def search(
        self, logits_fn: Logits, x: tf.Tensor, y: tf.Tensor, settings: Mapping[str, Any], index: tf.Tensor | None
    ) -> Search:
        """Returns the `Search` of a batch. For an attack that is not a search, it has ended when it begins.

        Args:
            logits_fn, x, y: as for the attack.
            settings: its keywords.
            index: numbers of the images (B,), int32, which determine their draws together with the seed; None for their
                places in the batch.
        """
        if "norm" in settings:
            settings = {**settings, "norm": self._norm(settings["norm"])}
        if "seed" in self.keywords:
            seed = draws.seeds_of(settings.get("seed", self.keywords["seed"]), x, index)
            settings = {**settings, "seed": seed}
        result = self.function(graph_of(logits_fn), x, y, **settings)
        return result if isinstance(result, Search) else Search(lambda: ended(result), lambda state: state)

    def __call__(self, logits_fn: Logits, x: Any, y: Any, *, index: Any = None, **settings: Any) -> tf.Tensor:
        """Returns adversarial images (B, H, W, C); see the function's own documentation.

        Inside a compiled function, such as a training step, it is traced in place. Called eagerly, it checks its
        arguments and is compiled once per network. Numbers become tensors, so another epsilon, step count or seed does
        not compile anything again.

        If `seed` is one number, each image has its own draws, by its number in `index` (B,) or, without `index`, its
        place in the batch. A pair of numbers is for training: the draws are those of the global batch.

        Raises:
            ValueError: an argument is not valid.
        """
        if self._stages is not None:
            of_call = {name: settings.pop(name) for name in _OF_A_CALL if name in settings}
            self.check_settings(settings)
            self.check_epsilon(settings)
            return self.function(logits_fn, x, y, index=index, **settings, **of_call)
        if tf.inside_function():
            return self._run(logits_fn, x, y, index, **settings)
        settings = self.as_tensors(settings)
        x, y, num_classes = checked_batch(logits_fn, x, y)
        if settings.get("target") is not None:
            of_network = {"num_classes": num_classes, "num_images": len(x)}
            settings["target"] = validation.labels("target", settings["target"], **of_network)
        if settings.get("start") is not None:
            settings["start"] = start_images(settings["start"], x.shape)
        if settings.get("surrogate") is not None:
            check_surrogate(settings["surrogate"], x, num_classes)
        numbers = tf.constant(image_numbers(index, len(x)), tf.int32)
        compiled = compiled_for(logits_fn, self._run, (x.shape[1:], np.ndim(settings.get("seed", 0))))
        return compiled(tf.constant(x, tf.float32), tf.convert_to_tensor(y), numbers, **settings)

    def _run(
        self, logits_fn: Logits, x: tf.Tensor, y: tf.Tensor, index: tf.Tensor | None = None, **settings: Any
    ) -> tf.Tensor:
        """Returns the last point of the attack; of a search, that point if it fools the network, else x."""
        search = self.search(logits_fn, x, y, settings, index)
        first = search.first()
        if isinstance(first, Ended):
            return first.x_adv
        _, last = run_search(search, first)
        return choose(losses.fooled(graph_of(logits_fn)(last.x_adv), y), last.x_adv, x)


@overload
def attack(
    *,
    norms: Sequence[str] | None = None,
    needs: Sequence[str] = (),
    stages: Callable[..., list[AttackStage]] | None = None,
    **allowed: Check,
) -> Callable[[Callable[..., Any]], Attack]: ...


@overload
def attack(function: Callable[..., Any]) -> Attack: ...


def attack(function: Any = None, *, norms: Any = None, needs: Any = (), stages: Any = None, **allowed: Check) -> Any:
    """Turns a function into an `Attack`; the arguments are those of `Attack`, with each check as a keyword."""
    options = {"norms": norms, "needs": needs, "stages": stages, "allowed": allowed}
    if function is None:
        return lambda decorated: Attack(decorated, **options)
    return Attack(function, **options)


def _as_tensor(value: Any, default: Any) -> Any:
    """Returns numbers as tensors, int32 if the default is a whole number, else float32; everything else unchanged."""
    if value is None or isinstance(value, (bool, str, norms.Norm)) or callable(value):
        return value
    if isinstance(value, (int, np.integer)) and not isinstance(default, int):
        return tf.constant(value, tf.float32)
    value = tf.convert_to_tensor(value)
    return tf.cast(value, tf.int32 if value.dtype.is_integer else tf.float32)
