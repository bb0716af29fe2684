"""Runs the checks of a judgement on a sample that grows until they decide."""

import dataclasses
import inspect
import itertools
import math
import sys
import time
import typing
from collections.abc import Callable, Sequence

import tensorflow as tf
from absl import logging
from tqdm import tqdm

from sanity import costs, statistics, verdict
from sanity.checks import CHECKS
from sanity.checks.adaptive_attack_is_not_stronger import attacks_left_out
from sanity.result import Result, Verdict, skipped
from sanity.settings import Settings
from sanity.subject import NoVersionError, Subject
from tf_nuat.core import files

FIRST = 200  # images of the first look; each further look doubles the number, and takes a rest of less than half
FEWEST = 80  # images of the first look if time is short: a check passes if none of 73 shows a sign
SHARE = 0.4  # share of the time for the first look
NARROW = 0.05  # width of the interval of the figure to publish at which no more images are needed
WAY_ROUND = 0.5  # share of the time that is reserved for the adaptive stage once a sign of masking is seen
SOON = 2  # checks before the first answer: the second check runs PGD
FIGURE = "adaptive_attack_is_not_stronger"  # the check that gives the accuracy; it is part of every look
SEARCH = "gradient_free_is_not_stronger"  # the check whose cost depends on what PGD leaves
REPORTING = ("second_opinion", "nuclear_norm_separates")  # checks that decide nothing, and may be left out


class Looks:
    """The checks of a judgement, run in several looks at a growing sample.

    Args:
        subject: the `Subject`, with all its images in use.
        names: names of the checks, keys of `CHECKS`.
        settings: the `Settings`, whose `alpha` the looks share.
        progress: whether to show a bar.
        say: function that is called with a line for each intermediate answer; None for no answers.
    """

    def __init__(
        self,
        subject: Subject,
        names: Sequence[str],
        settings: Settings,
        *,
        progress: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._subject, self._names, self._progress = subject, tuple(names), progress
        self._say = say or (lambda line: None)
        if subject.clock.left < float("inf"):
            subject.clock.speed = costs.per_second(subject)
        self._sizes = self._planned(settings)
        fewest = costs.of_attack(settings.pgd(subject.epsilon)) * self._sizes[0]
        if FIGURE in self._names and not subject.clock.has_time_for(fewest):
            self._say(
                f"PGD on {self._sizes[0]} images, without which there is no figure to publish, may take "
                f"{fewest / subject.clock.speed / 60.0:.0f} minutes: more than are left"
            )
        self._settings = dataclasses.replace(settings, alpha=settings.alpha / len(self._sizes))
        self._results: dict[str, Result] = {}
        self._has_time = True
        self._finished = 0  # images on which no attack of FIGURE was left out

    def results(self) -> tuple[Result, ...]:
        """Runs the checks and returns their results, in the order of their names.

        Afterwards the subject uses the images on which no attack of `FIGURE` was left out, if there are any.
        """
        before = 0
        for size, following in itertools.zip_longest(self._sizes, self._sizes[1:]):
            self._subject.look_at(size)
            self._look(is_first=before == 0)
            if not self.left_out():
                self._finished = size
            if following is None or not self._goes_on(size - before, following - size):
                break
            before = size
        # If some images had been attacked less than others, the accuracy would be that of no attack.
        self._subject.look_at(self._finished or len(self._subject))
        return tuple(self._results[name] for name in self._names)

    def left_out(self) -> list[str]:
        """Returns the names of the attacks of `FIGURE` that were not run on some images: no time, or not asked for."""
        return attacks_left_out(self._subject, self._settings)

    def _planned(self, settings: Settings) -> list[int]:
        """Returns the number of images of each look that may be needed."""
        most, clock = self._subject.sample_size, self._subject.clock
        each = {name: costs.of_check(name, 1, settings) for name in self._names}
        cost = sum(each.values())
        if not clock.has_time_for(2.0 * FEWEST * (cost - each.get(FIGURE, 0.0))):  # compiling takes half of the time
            clock.extend()
        fits = min(float(FIRST), SHARE * clock.left * clock.speed / max(cost, 1.0))
        sizes = [min(most, max(FEWEST, int(fits)))]
        while 1.5 * sizes[-1] <= most:
            sizes.append(min(most, 2 * sizes[-1]))
        return sizes[:-1] + [most] if sizes[-1] < most else sizes

    def _look(self, *, is_first: bool) -> None:
        names = [name for name in self._names if is_first or self._is_open(name)]
        with tqdm(names, disable=not self._progress, unit="check") as bar:
            for place, name in enumerate(bar):
                bar.set_description(f"{name}, {len(self._subject)} images")
                if self._subject.clock.left < float("inf"):
                    bar.set_postfix_str(f"{max(0.0, self._subject.clock.left):.0f} s left")
                self._results[name] = self._checked(name, self._settings)
                self._reserve()
                if is_first and place + 1 == SOON < len(names):
                    self._answer()
        self._share_alpha()
        self._answer()

    def _reserve(self) -> None:
        """Reserves time for the adaptive stage once there is a sign of masking: more signs would add nothing.

        The sign must be significant whatever the p-values of the remaining checks are.
        """
        level = self._settings.alpha / len(self._names)
        failed = [each for each in self._results.values() if each.masking and each.verdict is Verdict.FAIL]
        is_suspected = any(each.p_value is None or each.p_value < level for each in failed)
        self._subject.clock.reserved = WAY_ROUND if is_suspected else 0.0

    def _is_open(self, name: str) -> bool:
        return name == FIGURE or self._results[name].verdict is Verdict.INCONCLUSIVE

    def _goes_on(self, new: int, following: int) -> bool:
        """Returns whether `following` more images are needed and time allows them; the last look added `new` images."""
        if not self._has_time:
            return False
        found = self._results.values()
        masking = verdict.masking(found)
        clean, robust = self._accuracies()
        is_sure = masking == verdict.NOT_SEEN and verdict.is_sure(clean, robust, self._subject.chance)
        low, high = robust.interval
        if masking == verdict.SUSPECTED or (is_sure and (FIGURE not in self._names or high - low <= NARROW)):
            return False
        seconds = sum(self._results[name].seconds for name in self._names if self._is_open(name))
        return seconds * following / new < self._subject.clock.left

    def _accuracies(self) -> tuple[verdict.Accuracy, verdict.Accuracy]:
        clean, robust = self._subject.correct(), self._subject.worst_case()
        return verdict.accuracy(clean, self._settings), verdict.accuracy(robust, self._settings)

    def _answer(self) -> None:
        _, robust = self._accuracies()
        low, high = robust.interval
        made = [result for result in self._results.values() if result.masking]
        self._say(
            f"After {self._subject.clock.spent:.0f} s and {len(made)} checks: masked gradients "
            f"{verdict.masking(made)}; {robust.accuracy:.1%} of {robust.images} images ({low:.1%} to {high:.1%}) "
            "withstand what was tried so far"
        )

    def _share_alpha(self) -> None:
        """Repeats checks that are significant alone but not among all checks, each at its share of alpha."""
        found = {
            name: result.p_value
            for name, result in self._results.items()
            if result.masking and result.p_value is not None
        }
        for name, level in statistics.holm(found, self._settings.alpha).items():
            if self._results[name].verdict is Verdict.FAIL and found[name] >= level:
                stricter, seconds = dataclasses.replace(self._settings, alpha=level), self._results[name].seconds
                again = self._checked(name, stricter, is_known=True)
                self._results[name] = dataclasses.replace(again, seconds=seconds)

    def _checked(self, name: str, settings: Settings, *, is_known: bool = False) -> Result:
        """Returns the result of a check; `is_known` says that its measurements are stored, so it takes no time."""
        began = time.perf_counter()
        result = self._made(name, settings, is_known=is_known)
        result = dataclasses.replace(result, question=_question(CHECKS[name]))
        return dataclasses.replace(result, seconds=round(time.perf_counter() - began, 2))

    def _made(self, name: str, settings: Settings, *, is_known: bool) -> Result:
        """Returns the result of a check.

        The check is skipped if an attack that it needs has no version for the norm. It is inconclusive, or skipped if
        it is one of `REPORTING`, if no time is left for it or if it raises an error. Some networks may break a check;
        the other checks still run.
        """
        subject = self._subject
        about: dict[str, typing.Any] = {"sample_size": len(subject), "remedy": "Rely on the other checks."}
        about["reference"] = CHECKS[name].__globals__.get("REFERENCE", "")
        about["masking"] = name not in (FIGURE, *REPORTING)
        undone = Verdict.SKIPPED if name in REPORTING else Verdict.INCONCLUSIVE
        is_free = is_known or name == FIGURE  # FIGURE leaves out attacks by itself
        size, clock = len(subject), subject.clock
        try:
            needed = costs.of_search(subject, settings) if name == SEARCH else costs.of_check(name, size, settings)
            if not is_free and not clock.has_time_for(needed):
                about["remedy"] = "Give it more time (--minutes)."
                wanted, left = math.ceil(needed / clock.speed), math.floor(max(0.0, clock.left))
                reason = f"Too little time is left for {name}: it may take {wanted} s on {size} images, and {left} s "
                reason += "are left."
                self._has_time = False
                return dataclasses.replace(skipped(name, reason, **about), verdict=undone)
            return CHECKS[name](subject, settings)
        except NoVersionError as error:
            return skipped(name, str(error), **about)
        except (MemoryError, tf.errors.ResourceExhaustedError):
            raise
        except Exception as error:
            reason = f"The check ended with {type(error).__name__}: {files.in_one_line(str(error))}"
            logging.error("%s: %s", name, reason)
            return dataclasses.replace(skipped(name, reason, **about), verdict=undone)


def _question(check: Callable) -> str:
    """Returns what a check asks: the first line of the docstring of its module, or else of its own."""
    documented = inspect.getdoc(sys.modules.get(check.__module__)) if check.__module__.startswith("sanity.") else None
    return (documented or inspect.getdoc(check) or "").split("\n")[0]
