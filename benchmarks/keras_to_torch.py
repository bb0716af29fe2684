"""Copies a Keras network to PyTorch: `exported` needs Keras, `build` needs PyTorch, and a file connects them."""

import json

import numpy as np


def exported(network):
    """Returns the layers of a Keras network in PyTorch's layout: a dict of arrays, for `build`.

    `layers` is JSON, a list of dicts; `0_kernel` and `0_bias` are the weights of layer 0. Kernels of convolutions are
    (outputs, inputs, height, width). The dense layer after the flattening takes its inputs by channel, row, column.

    Raises:
        ValueError: the network has a layer of a kind that LeNet+ does not have.
    """
    import keras

    layers, arrays, flattened = [], {}, None

    def refuse(layer):
        raise ValueError(
            f"checkpoint has the layer {layer.name!r}, {type(layer).__name__}, or settings of it; "
            "allowed: Conv2D, MaxPooling2D, Flatten, Dense with bias, with ReLU or without activation, as in LeNet+"
        )

    for layer in network.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            refuse(layer)
        if isinstance(layer, keras.layers.MaxPooling2D) and layer.padding == "valid":
            layers.append({"kind": "pool", "size": layer.pool_size, "strides": layer.strides})
            continue
        if isinstance(layer, keras.layers.Flatten):
            flattened = layer.input.shape[1:]
            layers.append({"kind": "flatten"})
            continue
        activation = getattr(layer, "activation", None)
        if activation not in (keras.activations.relu, keras.activations.linear) or not layer.use_bias:
            refuse(layer)
        kernel, bias = layer.get_weights()
        if type(layer) is keras.layers.Conv2D and layer.dilation_rate == (1, 1) and layer.groups == 1:
            if layer.padding == "same" and layer.strides != (1, 1):
                refuse(layer)  # the two libraries pad differently
            arrays[f"{len(layers)}_kernel"] = kernel.transpose(3, 2, 0, 1)
            arrays[f"{len(layers)}_bias"] = bias
            layers.append({"kind": "convolution", "strides": layer.strides, "padding": layer.padding})
        elif type(layer) is keras.layers.Dense:
            if flattened is not None:
                kernel = kernel.reshape(*flattened, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
                flattened = None
            arrays[f"{len(layers)}_kernel"] = kernel.T
            arrays[f"{len(layers)}_bias"] = bias
            layers.append({"kind": "dense"})
        else:
            refuse(layer)
        if activation is keras.activations.relu:
            layers.append({"kind": "relu"})
    return {"layers": json.dumps(layers), **{name: np.ascontiguousarray(array) for name, array in arrays.items()}}


def build(arrays):
    """Returns the network that `exported` describes, images (B, C, H, W) -> logits (B, K), in evaluation mode."""
    import torch

    modules = []
    for number, layer in enumerate(json.loads(str(arrays["layers"]))):
        kind = layer["kind"]
        if kind == "pool":
            modules.append(torch.nn.MaxPool2d(layer["size"], layer["strides"]))
            continue
        if kind == "flatten":
            modules.append(torch.nn.Flatten())
            continue
        if kind == "relu":
            modules.append(torch.nn.ReLU())
            continue
        kernel, bias = (torch.from_numpy(arrays[f"{number}_{name}"]) for name in ("kernel", "bias"))
        outputs, inputs = kernel.shape[:2]
        if kind == "convolution":
            module = torch.nn.Conv2d(inputs, outputs, kernel.shape[2:], layer["strides"], layer["padding"])
        else:
            module = torch.nn.Linear(inputs, outputs)
        with torch.no_grad():
            module.weight.copy_(kernel)
            module.bias.copy_(bias)
        modules.append(module)
    return torch.nn.Sequential(*modules).eval()
