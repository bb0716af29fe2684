"""Checks the batches of generators and `PyDataset`s as they come.

Keras and TensorFlow would cast some wrong batches to the type of the first one, and fail with a traceback on others.
"""

import types
import typing
from collections.abc import Callable, Iterator

import keras
import numpy as np

from tf_nuat.defenses.batch import BatchError, check_form, parts

Place = Callable[[int], str]


class Form:
    """What batches must agree with: the network's shapes; the first batch's number of parts and kind of labels."""

    def __init__(self, network: keras.Model, place: Place) -> None:
        self.image_shape = network.input_shape[1:]
        self.num_classes = network.output_shape[-1]
        self.place = place
        self.first: tuple[str, str] | None = None

    def checked(self, data: typing.Any, number: int) -> tuple[typing.Any, ...]:
        """Returns batch `number`, from 1, as a tuple of arrays.

        Raises:
            BatchError: the network does not take it, or its kind differs from that of the first.
        """
        try:
            given = [_array(each) for each in parts(data)]
            check_form(self.image_shape, self.num_classes, *given)
            batch = tuple(each for each in given if each is not None)
            self._check_kind(batch)
        except BatchError as error:
            error.place = self.place(number)
            raise
        return batch

    def _check_kind(self, batch: tuple[typing.Any, ...]) -> None:
        y = batch[1]
        floats = "floating point" if "float" in str(y.dtype) else "whole numbers"
        kind = f"labels of shape (images{''.join(f', {size}' for size in y.shape[1:])},) in {floats}"
        weights = "without sample_weight" if len(batch) == 2 else "with sample_weight"
        self.first = self.first or (kind, weights)
        for argument, found, first in zip(("y", "sample_weight"), (kind, weights), self.first):
            if found != first:
                raise BatchError(f"{argument} comes as {found}; allowed: as in the first batch, {first}")


def _array(value: typing.Any) -> typing.Any:
    return np.asarray(value) if isinstance(value, (list, tuple, int, float)) else value


def checked(x: typing.Any, network: keras.Model, place: Place) -> typing.Any:
    """Returns a generator or a `keras.utils.PyDataset` so that it checks each batch; anything else as it is.

    Args:
        place: function of the number of a batch in `x`, from 1, that returns which batch it is, in words.
    """
    if isinstance(x, types.GeneratorType):
        return _generator(x, Form(network, place))
    if isinstance(x, keras.utils.PyDataset) and not isinstance(x, _PyDataset):
        return _PyDataset(x, Form(network, place))
    return x


def _generator(batches: Iterator[typing.Any], form: Form) -> Iterator[typing.Any]:
    for number, data in enumerate(batches, start=1):
        try:
            batch = form.checked(data, number)
        except BatchError as error:
            if number == 1:
                raise
            # A generator that raises has ended. Keras may look ahead and drop the error, so all later batches raise it.
            while True:
                yield (_Wrong(error),) * len(batch)
        yield batch


class _Wrong:
    """Stands in for the arrays of a wrong batch: reading their shape raises the error."""

    def __init__(self, error: BatchError) -> None:
        self.error = error

    @property
    def shape(self) -> typing.NoReturn:
        raise self.error


class _PyDataset(keras.utils.PyDataset):
    """A `PyDataset` that checks the batches of another one."""

    def __init__(self, dataset: keras.utils.PyDataset, form: Form) -> None:
        super().__init__(dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size)
        self.dataset = dataset
        self.form = form

    @property
    def num_batches(self) -> int | None:
        return self.dataset.num_batches

    def __getitem__(self, index: int) -> tuple[typing.Any, ...]:
        return self.form.checked(self.dataset[index], index + 1)

    def on_epoch_begin(self) -> None:
        self.dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.dataset.on_epoch_end()
