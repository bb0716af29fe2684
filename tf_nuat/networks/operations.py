"""Computes a network operation by operation, with stand-ins for gradients."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_nuat.core import keras_compat
from tf_nuat.networks.stand_ins import StandIn

# An operation, the number of times that the network used it before, and the index of its output.
Place = tuple[keras.Operation, int, int]


class Step(NamedTuple):
    """What to do after an operation: the index of the input that gets the gradient, and the stand-in.

    Integers and booleans carry no gradient: without a stand-in, the input is kept for that of a later operation.
    """

    source: int
    stand_in: StandIn | None


def run(network: keras.Model, x: Any, call: Callable[..., Any]) -> tf.Tensor:
    """Returns the output of a network; `call` computes each operation that is not itself such a network.

    Args:
        network: a network for which `keras_compat.is_graph` is true.
        x: images (B, H, W, C).
        call: function of an operation, the number of times that it was used before, its arguments (a tuple) and its
            keywords (a dict), that returns its outputs.
    """
    uses: dict[keras.Operation, int] = {}

    def computed(operation: keras.Operation, *arguments: Any, **options: Any) -> Any:
        if keras_compat.is_graph(operation) and len(arguments) == 1:
            return keras_compat.run_graph(operation, arguments[0], computed)
        use = uses[operation] = uses.get(operation, -1) + 1
        return call(operation, use, arguments, options)

    return keras_compat.run_graph(network, tf.convert_to_tensor(x), computed)


def tensors_in(structure: Any) -> list[tf.Tensor]:
    """Returns the tensors in arguments or outputs of an operation."""
    return [each for each in keras.tree.flatten(structure) if tf.is_tensor(each)]


class Walk:
    """One run through a network, with the stand-ins of `steps`.

    Args:
        steps: a `Step` for each place that needs one.
        watched: places whose outputs are of interest.

    Attributes:
        seen: the outputs at the watched places.
        sources: the tensors that stand-ins take at watched places with a step.
    """

    def __init__(self, steps: Mapping[Place, Step], watched: Collection[Place] = ()) -> None:
        self._steps, self._watched = steps, watched
        self._carried: dict[int, tuple[tf.Tensor, tf.Tensor]] = {}  # by id: a tensor, and its carrier
        self.seen: dict[Place, tf.Tensor] = {}
        self.sources: dict[Place, tf.Tensor] = {}

    def through(self, network: keras.Model, x: Any) -> tf.Tensor:
        """Returns the output of the network for images x (B, H, W, C)."""
        return run(network, x, self._call)

    def carrier(self, tensor: tf.Tensor) -> tf.Tensor:
        """Returns the tensor that gets the gradient of `tensor`: mostly `tensor` itself."""
        return self._carried.get(id(tensor), (tensor, tensor))[1]

    def carry(self, tensor: tf.Tensor, carrier: tf.Tensor) -> None:
        """Sends the gradient of `tensor`, which carries none, to `carrier` from now on."""
        self._carried[id(tensor)] = (tensor, carrier)  # the tensor too, since its id is unique only while it lives

    def _call(self, operation: keras.Operation, use: int, arguments: tuple, options: dict[str, Any]) -> Any:
        outputs = operation(*arguments, **options)
        flat = keras.tree.flatten(outputs)
        for number, output in enumerate(flat):
            place = (operation, use, number)
            if place in self._steps:
                source = self.carrier(tensors_in((arguments, options))[self._steps[place].source])
                flat[number] = self._replaced(output, source, self._steps[place].stand_in)
            if place in self._watched:
                self.seen[place] = flat[number]
                if place in self._steps:
                    self.sources[place] = source
        return keras.tree.pack_sequence_as(outputs, flat)

    def _replaced(self, output: tf.Tensor, source: tf.Tensor, stand_in: StandIn | None) -> tf.Tensor:
        """Returns the output with the gradient of the stand-in; without one, keeps the carrier of integers."""
        if stand_in is not None:
            instead = tf.cast(stand_in.function(tf.cast(source, tf.float32)), output.dtype)
            return tf.stop_gradient(output) + (instead - tf.stop_gradient(instead))  # adds 0, exactly
        if not output.dtype.is_floating:
            self.carry(output, source)
        return output
