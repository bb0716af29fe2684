"""The weights of one network for another of the same layers."""

import keras


def copy(network, to):
    """Gives `to` all weights of `network`, whose layers are the same."""
    to.set_weights(network.get_weights())
    _finalize(to)


def _finalize(network):
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            _finalize(layer)
        elif hasattr(layer, "finalize_state"):  # `Normalization` computes with constants, which it makes of its weights
            layer.finalize_state()
