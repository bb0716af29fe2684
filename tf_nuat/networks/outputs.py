"""Converts the output of a network to logits (B, K), K at least 2.

The network may return probabilities, one number for two classes, or several outputs. Softmax and sigmoid are removed,
whether they are a layer, the activation of a layer or an operation; the weights stay.
"""

import contextlib
import itertools
import math
from typing import Any

import keras
import numpy as np

from tf_nuat.core import keras_compat, validation

AUTO = "auto"
SMALLEST = 1e-30  # probability; its logarithm is finite, and float32 can represent it
_PROBED = 16  # random images, or inputs of a layer, to see the outputs of what is not known by its name
_OPEN, _LARGER = 32, 128  # sizes to try where a network leaves one open

_FLAT = ("hard_sigmoid", "sparse_sigmoid", "sparsemax")  # return probabilities that may be equal where inputs are not
# Layers that only move or pass on numbers: a softmax may come before them.
_PASSED = (keras.layers.Reshape, keras.layers.Flatten, keras.layers.Dropout, keras.layers.Identity)


def chosen(argument: str, network: keras.Model, name: str) -> tuple[keras.KerasTensor, list[str]]:
    """Returns the output of that name, or the only one for "auto", and what was chosen, in words.

    Raises:
        ValueError: there are several, or none of that name.
    """
    outputs = named(network)
    if name == AUTO and len(outputs) > 1:
        raise ValueError(
            f"{argument} has several outputs: {', '.join(f'{key} {value.shape}' for key, value in outputs.items())}; "
            f"allowed: --output NAME (outputs=), that of the classes"
        )
    if name == AUTO:
        (name,) = outputs
    validation.one_of(f"--output (outputs) of {argument}", name, outputs)
    if len(outputs) > 1:
        return outputs[name], [f"of the outputs {', '.join(outputs)}, {name} was taken"]
    return outputs[name], ["its output was taken out of a dict"] if isinstance(_structure(network), dict) else []


def named(network: keras.Model) -> dict[str, keras.KerasTensor]:
    """Returns the outputs of a functional network by name: the keys of a dict, else the names of the layers.

    If a layer returns several outputs, those after the first get a number, as "base_1".
    """
    structure = _structure(network)
    if isinstance(structure, dict) and all(isinstance(each, keras.KerasTensor) for each in structure.values()):
        return dict(structure)
    is_sequential = isinstance(network, keras.Sequential)
    names = [network.layers[-1].name] * len(network.outputs) if is_sequential else network.output_names
    found: dict[str, keras.KerasTensor] = {}
    for name, output in zip(names, network.outputs):
        numbered = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(1)))
        found[next(each for each in numbered if each not in found)] = output
    return found


def _structure(network: keras.Model) -> Any:
    """Returns the outputs of a network as it returns them: a tensor, a list or a dict."""
    return network.outputs if isinstance(network, keras.Sequential) else network.output


def logits(argument: str, network: keras.Model, output: keras.KerasTensor) -> tuple[keras.Model, list[str]]:
    """Returns the network from its inputs to the logits behind `output`, and what was changed, in words.

    Raises:
        ValueError: it is not the output of a classifier.
    """
    changes: list[str] = []
    if len(output.shape) > 2 and all(size == 1 for size in output.shape[1:-1]):
        output = keras.layers.Flatten()(output)
        changes.append("the outputs were flattened")
    if len(output.shape) != 2 or output.shape[1] is None:
        raise ValueError(
            f"{argument} has outputs of shape {output.shape[1:]}; allowed: those of a classifier, (classes,)"
        )
    found = _before(output)
    if found is None:
        output, said = _logarithm(argument, network, output)
        changes += said
    while found is not None:
        kind, output = found
        changes.append(f"its last {kind} was taken off: it returns logits")
        found = _before(output) if output.shape[1] > 1 else None  # a second one moves the threshold of one output
    if output.shape[1] == 1:
        two = keras.layers.Dense(2, use_bias=False, trainable=False, dtype="float32", name="two_logits")
        output = two(output)
        two.set_weights([np.array([[0.0, 1.0]], np.float32)])
        changes.append("its one output became the logits of two classes, the second where it is positive")
    is_only = len(network.outputs) == 1 and not isinstance(_structure(network), dict)
    if is_only and not changes:
        return network, changes
    return keras.Model(network.inputs[0], output, name=network.name), changes


def _before(tensor: keras.KerasTensor) -> tuple[str, keras.KerasTensor] | None:
    """Returns the kind of the last function, "softmax" or "sigmoid", and the tensor before it; None without one."""
    operation = keras_compat.operation_of(tensor)
    inputs = keras_compat.inputs_of(tensor)
    if isinstance(operation, keras.Model):
        output = keras_compat.output_within(tensor)
        inner = None if output is None else _before(output)
        if inner is None:
            return None
        taken = operation.inputs[0] if isinstance(operation, keras.Sequential) else operation.input
        without = keras.Model(taken, inner[1], name=operation.name)
        return inner[0], without(keras_compat.arguments_of(tensor))
    activation = getattr(operation, "activation", None)
    is_layer = isinstance(operation, keras.Layer) and not isinstance(operation, keras.layers.Softmax)
    kind = validation.squashing(activation if is_layer else operation)
    if kind == "softmax" and not _is_over_all(activation if is_layer else operation, tensor):
        return None
    if kind and (not is_layer or isinstance(operation, keras.layers.Activation)):
        return kind, inputs[0]
    if kind:
        without = _without_activation(operation, inputs)
        return None if without is None else (kind, without)
    is_linear = isinstance(operation, keras.layers.Activation) and activation is keras.activations.linear
    if (is_linear or isinstance(operation, _PASSED)) and len(inputs) == 1:
        inner = _before(inputs[0])
        if inner is not None:
            return inner[0], operation(inner[1])
    return None


def _without_activation(layer: keras.Layer, inputs: list[keras.KerasTensor]) -> keras.KerasTensor | None:
    """Returns the output of a layer for `inputs`, with its weights but without its activation.

    None if the activation is not the last that the layer does: in a cell of an LSTM, or in a gate, it is not.
    """
    shapes = [[size or _OPEN for size in each.shape[1:]] for each in inputs]
    draws = np.random.default_rng(0)
    probe = [keras.ops.cast(draws.normal(size=(_PROBED, *shape)), each.dtype) for shape, each in zip(shapes, inputs)]
    try:
        (only,) = inputs
        linear = type(layer).from_config({**layer.get_config(), "activation": "linear"})
        output = linear(only)
        linear.set_weights(layer.get_weights())
        found, expected = layer.activation(linear(*probe)), layer(*probe)
        found, expected = (np.asarray(keras.ops.convert_to_numpy(each), np.float64) for each in (found, expected))
    except Exception:  # whatever a layer of the user's own raises
        return None
    return output if np.allclose(found, expected, rtol=1e-2, atol=1e-6, equal_nan=True) else None


def _is_over_all(softmax: Any, output: keras.KerasTensor) -> bool:
    """Returns whether a softmax is over all numbers of an image in its output: then it does not change their order."""
    axis = getattr(softmax, "axis", -1)
    if not isinstance(axis, int) or None in output.shape[1:]:
        return False
    return 1 < output.shape[axis] == math.prod(output.shape[1:])


def _logarithm(argument: str, network: keras.Model, output: keras.KerasTensor) -> tuple[keras.KerasTensor, list[str]]:
    """Returns the logarithm of probabilities that sum to 1, the logits of others in [0, 1], and other outputs as is.

    A softmax inside a function, an average or a graph cannot be removed. Its logarithm differs from the logits by a
    constant for each image, which changes no prediction and no loss.
    """
    last = keras_compat.operation_of(output)
    if isinstance(last, (keras.layers.Dense, keras.layers.Conv2D)) and _is_unbounded(last.activation):
        return output, []
    values = _probed(argument, keras.Model(network.inputs[0], output))
    several = values.shape[1] > 1
    if several and validation.are_probabilities(values[:_PROBED]):
        said = "it returns probabilities from which no softmax can be taken off: their logarithm was taken"
        return keras.ops.log(keras.ops.maximum(keras.ops.cast(output, "float32"), SMALLEST)), [said]
    # Logits that are not negative may be small, or all 0, for pixels of another range than the network's.
    inside = values if several else values[:_PROBED]
    if not np.all((inside >= 0.0) & (inside <= 1.0)) or (several and np.ptp(values) == 0.0):
        return output, []
    said = "it returns a probability from which no sigmoid can be taken off: its logit was computed"
    if several:
        said = "its outputs are all from 0 to 1, as of sigmoids that cannot be taken off: their logits were computed"
    return _logit(keras.ops.cast(output, "float32")), [said]


def _probed(argument: str, network: keras.Model) -> np.ndarray:
    """Returns the outputs of a network, float64, for random pixels in [0, 1], in [0, 255] and in [-1, 1]."""
    taken = network.inputs[0]

    def of_size(size: int) -> np.ndarray:
        noise = np.random.default_rng(0).uniform(size=(_PROBED, *(each or size for each in taken.shape[1:])))
        images = np.concatenate([noise, 255.0 * noise, 2.0 * noise - 1.0]).astype(taken.dtype)
        return validation.computed(argument, network, images).astype(np.float64)

    if None in taken.shape[1:]:
        with contextlib.suppress(ValueError):  # these images may be too small: then it fails, or returns NaN
            values = of_size(_OPEN)
            if np.all(np.isfinite(values)):
                return values
    return of_size(_LARGER)


def _is_unbounded(activation: Any) -> bool:
    """Returns whether an activation is a function of Keras that returns no probabilities."""
    name = getattr(activation, "__name__", None)  # a layer as activation has none
    is_of_keras = getattr(activation, "__module__", "").startswith("keras.")
    return is_of_keras and name is not None and name not in _FLAT and validation.squashing(activation) is None


def _logit(probability: keras.KerasTensor) -> keras.KerasTensor:
    """Returns the logits of probabilities. They rise everywhere, so outputs beyond 0 or 1 keep their order, too."""
    inside = keras.ops.clip(probability, 0.0, 1.0)
    for_it, against = (keras.ops.log(keras.ops.maximum(each, SMALLEST)) for each in (inside, 1.0 - inside))
    return for_it - against + (probability - inside)
