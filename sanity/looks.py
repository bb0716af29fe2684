"""The checks of a judgement, on samples that grow until they decide."""

import dataclasses
import inspect
import itertools
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

FIRST = 200  # images of the first look; each look has twice as many
FEWEST = 80  # of it, where time is short: a check passes where none of 73 shows a sign
SHARE = 0.4  # of the time, that the first look may take
NARROW = 0.05  # interval of the figure to publish, for which more images need not be judged
WAY_ROUND = 0.5  # of the time, that is kept for a way round hidden gradients once a sign of them is seen
SOON = 2  # checks, after which there is a first answer: the second runs PGD
FIGURE = "adaptive_attack_is_not_stronger"  # what gives the accuracy, which goes on as long as there are images
REPORTING = ("second_opinion", "nuclear_norm_separates")  # which decide nothing, and may be left out


class Looks:
    """The checks of a judgement.

    Args:
        subject: the `Subject`, which looks at all its images.
        names: of the checks, keys of `CHECKS`.
        settings: the `Settings`, whose `alpha` the looks share.
        progress: whether to show a bar.
        say: is called with a line for each answer on the way; None for nobody.
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
        self._finished = 0  # images that every attack of FIGURE had its turn on

    def results(self) -> tuple[Result, ...]:
        """Runs the checks and returns their results, in the order of their names.

        The subject looks afterwards at the images that all attacks of `FIGURE` had their turn on, where there are any.
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
        # An accuracy of images of which some were attacked less than others would be that of no attack.
        self._subject.look_at(self._finished or len(self._subject))
        return tuple(self._results[name] for name in self._names)

    def left_out(self) -> list[str]:
        """Returns the names of the attacks of `FIGURE` that had no turn on some images, for want of time."""
        return attacks_left_out(self._subject, self._settings) if FIGURE in self._names else []

    def _planned(self, settings: Settings) -> list[int]:
        """Returns the numbers of images of the looks that there may be."""
        most, clock = self._subject.sample_size, self._subject.clock
        each = {name: costs.of_check(name, 1, settings) for name in self._names}
        cost = sum(each.values())
        if not clock.has_time_for(2.0 * FEWEST * (cost - each.get(FIGURE, 0.0))):  # half of it goes into compiling
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
        """Keeps time for a way round hidden gradients, once a sign of them is seen: more signs would tell no more.

        It is one that will be significant whatever the p-values of the checks to come are.
        """
        level = self._settings.alpha / len(self._names)
        failed = [each for each in self._results.values() if each.masking and each.verdict is Verdict.FAIL]
        is_suspected = any(each.p_value is None or each.p_value < level for each in failed)
        self._subject.clock.reserved = WAY_ROUND if is_suspected else 0.0

    def _is_open(self, name: str) -> bool:
        return name == FIGURE or self._results[name].verdict is Verdict.INCONCLUSIVE

    def _goes_on(self, new: int, following: int) -> bool:
        """Returns whether `following` more images are needed, and there is time for them: `new` ones were looked at."""
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
        """Judges again, at its share of alpha, what is significant alone and not among all."""
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
        """Returns the result of a check; where what it measures `is_known`, it takes no time."""
        began = time.perf_counter()
        result = self._made(name, settings, is_known=is_known)
        result = dataclasses.replace(result, question=_question(CHECKS[name]))
        return dataclasses.replace(result, seconds=round(time.perf_counter() - began, 2))

    def _made(self, name: str, settings: Settings, *, is_known: bool) -> Result:
        """Returns the result of a check.

        It is skipped where an attack that it needs has no version for the norm, and inconclusive where no time is left
        for it, and where it breaks: a network of any kind may do that to a check, and the others are worth having. One
        of `REPORTING` is skipped there as well.
        """
        subject = self._subject
        about: dict[str, typing.Any] = {"sample_size": len(subject), "remedy": "Rely on the other checks."}
        about["reference"] = CHECKS[name].__globals__.get("REFERENCE", "")
        about["masking"] = name not in (FIGURE, *REPORTING)
        undone = Verdict.SKIPPED if name in REPORTING else Verdict.INCONCLUSIVE
        needed = costs.of_check(name, len(subject), settings)
        is_free = is_known or name == FIGURE  # which leaves attacks out by itself
        if not is_free and not subject.clock.has_time_for(needed):
            about["remedy"] = "Give it more time (--minutes)."
            reason = (
                f"No time is left for it: it may take {needed / subject.clock.speed:.0f} s on {len(subject)} images."
            )
            self._has_time = False
            return dataclasses.replace(skipped(name, reason, **about), verdict=undone)
        try:
            return CHECKS[name](subject, settings)
        except NoVersionError as error:
            return skipped(name, str(error), **about)
        except (MemoryError, tf.errors.ResourceExhaustedError):
            raise
        except Exception as error:
            reason = f"The check ended with {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            logging.error("%s: %s", name, reason)
            return dataclasses.replace(skipped(name, reason, **about), verdict=undone)


def _question(check: Callable) -> str:
    """Returns what a check asks: the first line of its module, or of itself."""
    documented = inspect.getdoc(sys.modules.get(check.__module__)) if check.__module__.startswith("sanity.") else None
    return (documented or inspect.getdoc(check) or "").split("\n")[0]
