"""The number of a batch that comes out wrong, in training or in an evaluation."""

import contextlib
import typing
from collections.abc import Callable, Iterator

from tf_nuat.defenses import sources
from tf_nuat.defenses.batch import in_one_line


class BatchNumbers:
    """Counts the batches that Keras's functions have done, and names the one that comes out wrong.

    The number is not read from the optimizer: the failing step may have counted itself.
    """

    def __init__(self) -> None:
        self._calls = [0]  # of the functions of training, and of an evaluation within it, since `fit` began

    def counted(self, function: Callable[[typing.Any], typing.Any]) -> Callable[[typing.Any], typing.Any]:
        """Returns the function that Keras calls for each batch, or several, whose calls are counted."""

        def counted(iterator: typing.Any) -> typing.Any:
            logs = function(iterator)
            self._calls[-1] += 1
            return logs

        return counted

    @contextlib.contextmanager
    def naming(self, kind: str, *, each_call: int, before: int = 0) -> Iterator[sources.Place]:
        """A context in which a wrong batch is refused in one line that names it.

        Args:
            kind: "training" or "evaluation", whose batches are counted.
            each_call: batches that a call of a counted function does.
            before: batches of that kind that came before.
        """

        def place(number: int) -> str:
            if number == 0:
                first = before + self._calls[-1] * each_call + 1
                if each_call > 1:
                    return f"one of the {each_call} batches from {first} of {kind}"
                return f"batch {first} of {kind}"
            return f"batch {number} of {kind}"

        self._calls.append(0)
        try:
            with in_one_line(place):
                yield lambda number: place(before + number)
        finally:
            self._calls.pop()


def in_evaluation(number: int) -> str:
    """Returns in words which batch of the data of an evaluation it is, by its number, from 1."""
    return f"batch {number} of evaluation"
