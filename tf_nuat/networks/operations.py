"""A network computed operation by operation, with stand-ins in the place of gradients."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_nuat.core import keras_compat
from tf_nuat.networks.stand_ins import StandIn

# An operation, the number of times that the network has used it before, and the number of its output.
Place = tuple[keras.Operation, int, int]


class Step(NamedTuple):
    """What to do behind an operation: the number of the input that its gradient goes to, and the stand-in for it.

    Whole numbers and truth values carry no gradient: without a stand-in, the input is kept for the one that follows.
    """

    source: int
    stand_in: StandIn | None


def run(network: keras.Model, x: Any, call: Callable[..., Any]) -> tf.Tensor:
    """Returns the output of a network, of which `call` computes each operation that is not itself such a network.

    Args:
        network: one that `keras_compat.is_graph`.
        x: images (B, H, W, C).
        call: function of an operation, the number of times that it was used before, its arguments, a tuple, and its
            keywords, a dict: its outputs.
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
        sources: the tensors that stand-ins take there, where there is a step.
    """

    def __init__(self, steps: Mapping[Place, Step], watched: Collection[Place] = ()) -> None:
        self._steps, self._watched = steps, watched
        self._carried: dict[int, tuple[tf.Tensor, tf.Tensor]] = {}  # by what carries no gradient, what does
        self.seen: dict[Place, tf.Tensor] = {}
        self.sources: dict[Place, tf.Tensor] = {}

    def through(self, network: keras.Model, x: Any) -> tf.Tensor:
        """Returns the output of the network for images x (B, H, W, C)."""
        return run(network, x, self._call)

    def carrier(self, tensor: tf.Tensor) -> tf.Tensor:
        """Returns the tensor that a gradient goes to where it is to go to this one: mostly this."""
        return self._carried.get(id(tensor), (tensor, tensor))[1]

    def carry(self, tensor: tf.Tensor, carrier: tf.Tensor) -> None:
        """Has the gradient of a tensor without one go to another, from now on."""
        self._carried[id(tensor)] = (tensor, carrier)  # with the tensor, whose number is its own while it lives

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
        """Returns the output, with the gradient of the stand-in; where it carries none, its carrier is kept."""
        if stand_in is not None:
            instead = tf.cast(stand_in.function(tf.cast(source, tf.float32)), output.dtype)
            return tf.stop_gradient(output) + (instead - tf.stop_gradient(instead))  # adds 0, exactly
        if not output.dtype.is_floating:
            self.carry(output, source)
        return output
