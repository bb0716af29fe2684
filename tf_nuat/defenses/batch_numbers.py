"""Finds the number of a wrong batch, in training or in an evaluation."""

import contextlib
import functools
import typing
from collections.abc import Callable, Iterator

from tf_nuat.defenses import sources
from tf_nuat.defenses.batch import in_one_line


class BatchNumbers:
    """Counts the batches that Keras's functions have processed, and names a wrong one.

    The number is not read from the optimizer: the failing step may have counted itself.
    """

    def __init__(self) -> None:
        self._calls = [0]  # calls since `fit` began: of the function of training, and of an evaluation within it

    def counted(self, function: Callable[[typing.Any], typing.Any]) -> Callable[[typing.Any], typing.Any]:
        """Returns `function`, which Keras calls for one or several batches, with its calls counted."""

        def counted(iterator: typing.Any) -> typing.Any:
            logs = function(iterator)
            self._calls[-1] += 1
            return logs

        return counted

    @contextlib.contextmanager
    def naming(self, kind: str, *, each_call: int, before: int = 0) -> Iterator[sources.Place]:
        """A context in which the error of a wrong batch is one line that names it.

        Args:
            kind: "training" or "evaluation", the batches to count.
            each_call: number of batches in a call of a counted function.
            before: number of earlier batches of that kind.
        """

        def place(number: int) -> str:
            if number == 0:
                first = before + self._calls[-1] * each_call + 1
                if each_call > 1:
                    return f"one of the {each_call} batches from {first} of {kind}"
                return f"batch {first} of {kind}"
            return _of_kind(kind, 0, number)

        self._calls.append(0)
        try:
            with in_one_line(place):
                yield functools.partial(_of_kind, kind, before)
        finally:
            self._calls.pop()


def in_evaluation(number: int) -> str:
    """Returns the words for batch `number`, from 1, of an evaluation."""
    return _of_kind("evaluation", 0, number)


# At the top level, because a `PyDataset` is sent with it to other processes.
def _of_kind(kind: str, before: int, number: int) -> str:
    return f"batch {before + number} of {kind}"
