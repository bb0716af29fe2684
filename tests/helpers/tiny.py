"""A network that is traced in no time, for tests of what goes on around one."""

import keras


def network(input_shape, num_classes):
    """Returns a dense network of one hidden layer, not trained."""
    inputs = keras.Input(input_shape)
    hidden = keras.layers.Dense(32, activation="relu")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(num_classes)(hidden))
