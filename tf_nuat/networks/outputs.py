"""What a network ends in, made logits (B, K), K at least 2.

It may be probabilities, one number for two classes, or several outputs. Softmax and sigmoid are taken off, whether they
are a layer, the activation of a layer or an operation; the weights stay.
"""

from typing import Any

import keras
import numpy as np

from tf_nuat.core import keras_compat, validation

AUTO = "auto"
SMALLEST = 1e-30  # of a probability: its logarithm is finite, and float32 has it
_PROBED = 16  # random images that show what is no layer of Keras

_SOFTMAX, _SIGMOID = ("softmax", "softmax_v2"), ("sigmoid",)  # the second is the name of `tf.nn.softmax`
# Layers that move numbers, or leave them as they are: what stands before them may be a softmax.
_PASSED = (keras.layers.Reshape, keras.layers.Flatten, keras.layers.Dropout, keras.layers.Identity)


def chosen(argument: str, network: keras.Model, name: str) -> tuple[keras.KerasTensor, list[str]]:
    """Returns the output of that name, or the only one where it is "auto", and what was chosen, in words.

    Raises:
        ValueError: there are several, or none of that name.
    """
    outputs = named(network)
    if name != AUTO:
        validation.one_of(f"--output (outputs) of {argument}", name, outputs)
        return outputs[name], [f"of the outputs {', '.join(outputs)}, {name} was taken"] if len(outputs) > 1 else []
    if len(outputs) == 1:
        return next(iter(outputs.values())), []
    raise ValueError(
        f"{argument} has several outputs: {', '.join(f'{key} {value.shape}' for key, value in outputs.items())}; "
        f"allowed: --output NAME (outputs=), that of the classes"
    )


def named(network: keras.Model) -> dict[str, keras.KerasTensor]:
    """Returns the outputs of a functional network by name: the keys of a dict, else the names of the layers."""
    if isinstance(network, keras.Sequential):
        return {network.layers[-1].name: network.outputs[0]}
    structure = network.output
    if isinstance(structure, dict) and all(isinstance(each, keras.KerasTensor) for each in structure.values()):
        return dict(structure)
    return dict(zip(network.output_names, network.outputs))


def logits(argument: str, network: keras.Model, output: keras.KerasTensor) -> tuple[keras.Model, list[str]]:
    """Returns the network from its inputs to the logits behind `output`, and what was changed, in words.

    Raises:
        ValueError: it is no output of a classifier.
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
    if found is not None:
        kind, output = found
        changes.append(f"its last {kind} was taken off: it returns logits")
    else:
        output, said = _logarithm(network, output)
        changes += said
    if output.shape[1] == 1:
        two = keras.layers.Dense(2, use_bias=False, trainable=False, dtype="float32", name="two_logits")
        output = two(output)
        two.set_weights([np.array([[0.0, 1.0]], np.float32)])
        changes.append("its one output became the logits of two classes, the second where it is positive")
    return (keras.Model(network.inputs[0], output, name=network.name) if changes else network), changes


def _before(tensor: keras.KerasTensor) -> tuple[str, keras.KerasTensor] | None:
    """Returns the kind of function that a tensor ends in, and the tensor without it; None where there is none."""
    operation = keras_compat.operation_of(tensor)
    inputs = keras_compat.inputs_of(tensor)
    if isinstance(operation, keras.Model):
        inner = _before(operation.outputs[0]) if len(getattr(operation, "outputs", ())) == 1 else None
        if inner is None:
            return None
        taken = operation.inputs[0] if isinstance(operation, keras.Sequential) else operation.input
        without = keras.Model(taken, inner[1], name=operation.name)
        return inner[0], without(keras_compat.arguments_of(tensor))
    activation = getattr(operation, "activation", None)
    if isinstance(operation, keras.layers.Softmax) or (
        not isinstance(operation, keras.Layer) and _kind(type(operation).__name__)
    ):
        kind = _kind(type(operation).__name__)
        return (kind, inputs[0]) if kind and _over_classes(operation) else None
    kind = _kind_of(activation)
    if kind and isinstance(operation, keras.layers.Activation):
        return kind, inputs[0]
    if kind:
        return kind, _without_activation(operation, inputs[0])
    is_linear = isinstance(operation, keras.layers.Activation) and activation is keras.activations.linear
    if (is_linear or isinstance(operation, _PASSED)) and len(inputs) == 1:
        inner = _before(inputs[0])
        if inner is not None:
            return inner[0], operation(inner[1])
    return None


def _without_activation(layer: keras.Layer, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Returns what a layer makes of `inputs` with its weights, and without its activation."""
    linear = type(layer).from_config({**layer.get_config(), "activation": "linear"})
    output = linear(inputs)
    linear.set_weights(layer.get_weights())
    return output


def _over_classes(operation: Any) -> bool:
    return getattr(operation, "axis", -1) in (-1, 1)


def _kind_of(activation: Any) -> str | None:
    if isinstance(activation, keras.Operation):  # Dense(10, activation=keras.layers.Softmax())
        return _kind(type(activation).__name__)
    return _kind(getattr(activation, "__name__", ""))


def _kind(name: str) -> str | None:
    """Returns "softmax" or "sigmoid" for the name of such a function, layer or operation; None for any other."""
    name = name.lower()
    return "softmax" if name in _SOFTMAX else "sigmoid" if name in _SIGMOID else None


def _logarithm(network: keras.Model, output: keras.KerasTensor) -> tuple[keras.KerasTensor, list[str]]:
    """Returns the logarithm of outputs that are probabilities, whatever made them; of others, these.

    A softmax that is inside a function, an average or a graph cannot be taken off. Its logarithm differs from the
    logits by a number for each image, which changes no answer and no loss.
    """
    if isinstance(keras_compat.operation_of(output), (keras.layers.Dense, keras.layers.Conv2D)):
        return output, []  # with another activation: no probabilities
    shape = [size or 32 for size in network.inputs[0].shape[1:]]
    noise = np.random.default_rng(0).uniform(size=(_PROBED, *shape)).astype(network.inputs[0].dtype)
    values = keras.ops.convert_to_numpy(keras.Model(network.inputs[0], output)(noise, training=False)).astype(
        np.float64
    )
    within = bool(np.all((values >= 0.0) & (values <= 1.0)))
    if values.shape[1] > 1 and within and np.allclose(values.sum(axis=1), 1.0, atol=1e-3):
        said = "it returns probabilities from which no softmax can be taken off: their logarithm was taken"
        return keras.ops.log(keras.ops.maximum(keras.ops.cast(output, "float32"), SMALLEST)), [said]
    if values.shape[1] == 1 and within:
        probability = keras.ops.clip(keras.ops.cast(output, "float32"), SMALLEST, 1.0 - 1e-7)
        logit = keras.ops.log(probability) - keras.ops.log(1.0 - probability)
        return logit, ["it returns a probability from which no sigmoid can be taken off: its logit was computed"]
    return output, []
