"""Stand-ins for operations without a gradient: functions with a gradient that approximate an operation.

If the operation keeps the shape of its input, the stand-in is a multiple of the identity (the straight-through
estimator), or softmax if the operation marks the largest entry. Otherwise, or if the output has little to do with the
input, it is a small network that is trained to imitate the operation.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

IDENTITY, SOFTMAX, IMITATION = "identity", "softmax", "imitation"
STEPS, BATCH, RATE = 300, 32, 5e-3  # of the training of an imitation
TESTED = 0.2  # the share of the pairs that an imitation is tested on
WIDTH = 32  # hidden channels of an imitation of images; others have eight times as many hidden units


@dataclasses.dataclass(frozen=True)
class StandIn:
    """Takes the place of an operation, or of several in a row, in the backward pass.

    Attributes:
        operation: name of the operation, or of the last of several.
        kind: "identity", times `scale`; "softmax"; or "imitation", a small network.
        scale: of the identity. 0 takes the operation out, because its output changes too fast to be followed.
        explained: share of the variance of the operation's output that the stand-in explains, at most 1.
        function: tensors (B, ...) -> tensors of the shape of the output.
    """

    operation: str
    kind: str
    scale: float
    explained: float
    function: Callable[[tf.Tensor], tf.Tensor] = dataclasses.field(repr=False, compare=False)


def scaled_identity(operation: str, scale: float, explained: float) -> StandIn:
    """Returns the stand-in that multiplies by a number."""
    return StandIn(operation, IDENTITY, scale, explained, lambda source: scale * source)


def of_largest(operation: str, source: np.ndarray, output: np.ndarray) -> StandIn | None:
    """Returns softmax for an operation whose output is 1 where its input (N, ..., K) is largest, and 0 elsewhere.

    Returns None for any other operation. The sum of several such outputs counts votes; with the identity instead, the
    input with the largest values would decide it.
    """
    largest = np.eye(source.shape[-1], dtype=output.dtype)[source.argmax(axis=-1)]
    if source.ndim < 2 or not np.array_equal(output, largest):
        return None
    _, explained = slope(tf.nn.softmax(source).numpy(), output)
    return StandIn(operation, SOFTMAX, 1.0, explained, tf.nn.softmax)


def slope(source: np.ndarray, output: np.ndarray) -> tuple[float, float]:
    """Returns the factor that brings `source` (N, ...) nearest to `output`, of the same shape, and what it explains.

    The mean over the N images is subtracted from both first. What it explains is a share of the output's variance.
    """
    source, output = (each.astype(np.float64) - each.mean(axis=0, dtype=np.float64) for each in (source, output))
    both, own, others = np.sum(source * output), np.sum(source**2), np.sum(output**2)
    if own == 0.0 or others == 0.0:
        return 0.0, 0.0
    return float(both / own), float(both**2 / (own * others))


def imitation(operation: str, source: np.ndarray, output: np.ndarray, *, seed: int) -> StandIn:
    """Returns a small network that is trained, with Adam, on the inputs (N, ...) and outputs (N, ...) of an operation.

    It is convolutional where both are images of one size, else dense.
    """
    (centre, spread), (offset, scale) = _moments(source), _moments(output)
    network = _network(source.shape[1:], output.shape[1:], seed)
    x, y = ((source - centre) / spread).astype(np.float32), ((output - offset) / scale).astype(np.float32)
    tested = max(1, round(TESTED * len(x)))
    order = np.random.default_rng(seed)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, STEPS))
    optimizer.build(network.trainable_variables)

    @tf.function(autograph=False)
    def step(x: tf.Tensor, y: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(network(x) - y))
        optimizer.apply_gradients(zip(tape.gradient(loss, network.trainable_variables), network.trainable_variables))

    for _ in range(STEPS):
        rows = order.integers(tested, len(x), BATCH)
        step(tf.constant(x[rows]), tf.constant(y[rows]))
    missed = np.sum((network(x[:tested]).numpy() - y[:tested]) ** 2)
    explained = 1.0 - float(missed / max(np.sum((y[:tested] - y[:tested].mean(axis=0)) ** 2), 1e-12))
    return StandIn(operation, IMITATION, 1.0, explained, lambda x: scale * network((x - centre) / spread) + offset)


def _moments(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) or 1.0


def _network(taken: tuple[int, ...], returned: tuple[int, ...], seed: int) -> keras.Model:
    """Returns an untrained network, the sum of a linear part and of one with a hidden layer."""
    seeds = iter(np.random.SeedSequence(seed).generate_state(3))

    def layer(kind: Callable[..., keras.Layer], *sizes: int, **options: str) -> keras.Layer:
        return kind(*sizes, kernel_initializer=keras.initializers.GlorotUniform(seed=int(next(seeds))), **options)

    inputs = keras.Input(taken)
    if len(taken) == 3 and len(returned) == 3 and taken[:2] == returned[:2]:
        hidden = layer(keras.layers.Conv2D, WIDTH, 3, padding="same", activation="relu")(inputs)
        straight = layer(keras.layers.Conv2D, returned[-1], 7, padding="same")(inputs)
        return keras.Model(inputs, straight + layer(keras.layers.Conv2D, returned[-1], 3, padding="same")(hidden))
    size = int(np.prod(returned))
    flat = keras.layers.Flatten()(inputs)
    hidden = layer(keras.layers.Dense, 8 * WIDTH, activation="relu")(flat)
    outputs = layer(keras.layers.Dense, size)(flat) + layer(keras.layers.Dense, size)(hidden)
    return keras.Model(inputs, keras.layers.Reshape(returned)(outputs))
