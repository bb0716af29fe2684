"""What all attacks share: `attack`, `Search`, the threat model's geometry, the ascent along a gradient, random draws.

An attack is a pure function `attack(logits_fn, x, y, *, epsilon, ...) -> x_adv` of images x (B, H, W, C) in [0, 1] and
labels y, integers (B,) or one-hot (B, K). `logits_fn` maps images to logits (B, K): a network or any function. The
result lies within `epsilon` of x and within [0, 1]. Distance is the largest change of a pixel (norm "linf") or the
Euclidean length of the change of an image ("l2"); attacks without an argument `norm` are of the former kind.

There are two kinds. One goes a fixed way and returns where it ends: FGSM, for instance, which training uses. The other
searches for an adversary, an image that fools the network, and returns it, or x where it finds none: it is written as
a `Search`, whose images stop one by one, so that the engine of evaluations (`tf_nuat.attacks.pool`) can replace those
that are done by others.
"""

import collections.abc
import functools
import inspect
import typing

import keras
import numpy as np
import tensorflow as tf

from tf_nuat import losses, parallel
from tf_nuat.attacks import draws
from tf_nuat.core import validation
from tf_nuat.models import precision

NORMS = ("linf", "l2")


class Search(typing.NamedTuple):
    """An attack that stops for each image as soon as it has found an adversary.

    The state of a search is a NamedTuple of tensors, one row per image (B, ...), among them:

    - `x_adv` (B, H, W, C): within the ball and [0, 1], what is returned for the image if it fools the network;
    - `fooled` (B,), bool: `x_adv` fools the network by the logits that the search has seen;
    - `spent` (B,), bool: nothing is left to try. `x_adv` may be a last candidate that no logits were computed for.

    An image that is fooled or spent is done. Whatever the others in the batch still need, `step` leaves those three as
    they are; and what it does for an image depends on nothing of another: counters are per image, and so are draws.
    Both functions close over the arguments of the attack; `step` must take anything that `first` computed (logits of
    the clean images, for instance) from the state.

    Attributes:
        first: function `() -> state`.
        step: function `state -> state`, with about one gradient or a few forwards.
    """

    first: collections.abc.Callable
    step: collections.abc.Callable


class Ended(typing.NamedTuple):
    """The state of an attack that goes a fixed way, as of a search that has nothing left to try."""

    x_adv: tf.Tensor
    fooled: tf.Tensor
    spent: tf.Tensor


# What each keyword of the attacks may be; `attack` checks them once, where an attack is called eagerly.
_ALLOWED = {
    "epsilon": lambda name, value: validation.number(name, value, at_least=0.0),
    "alpha": lambda name, value: validation.number(name, value, at_least=0.0),
    "step_size": lambda name, value: validation.number(name, value, above=0.0),
    "weight": lambda name, value: validation.number(name, value, at_least=0.0),
    "steps": lambda name, value: validation.whole_number(name, value, at_least=1),
    "restarts": lambda name, value: validation.whole_number(name, value, at_least=1),
    "queries": lambda name, value: validation.whole_number(name, value, at_least=1),
    "passes": lambda name, value: validation.whole_number(name, value, at_least=1),
    "targets": lambda name, value: validation.whole_number(name, value, at_least=1),
    "seed": lambda name, value: validation.whole_number(name, value, at_least=0),
    "norm": lambda name, value: validation.one_of(name, value, NORMS),
}
_STATIC = ("passes",)  # numbers that change what is compiled


def attack(function=None, **allowed):
    """Turns `function(logits_fn, x, y, *, ...)` into an attack: checked and compiled where it is called eagerly.

    The function returns images, or a `Search`. Inside a compiled function, a training step for instance, it is traced
    in place. Numbers become tensors, so that another epsilon, step count or seed does not compile anything again;
    another network or function does.

    A `seed` that is one number gives every image draws of its own, by its number in `index` (B,), a keyword that every
    attack with a seed gets; unless given it is the place in the batch. A pair of numbers is for training: the draws are
    those of the global batch.

    Args:
        **allowed: for keywords that only this attack has, a function `(name, value)` that raises `ValueError`.
    """
    if function is None:
        return functools.partial(attack, **allowed)
    parameters = inspect.signature(function).parameters.values()
    keywords = {
        parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY
    }
    allowed = {**_ALLOWED, **allowed}

    def check_settings(settings):
        for name, value in settings.items():
            validation.one_of("argument", name, keywords)
            left_open = value is None and keywords[name] is None
            if name in allowed and not left_open and not tf.is_tensor(value):
                allowed[name](name, value)

    def as_tensors(settings):
        """Returns all keywords, always: TensorFlow does not generalize over calls that name different ones."""
        check_settings(settings)
        if keywords.get("epsilon") is inspect.Parameter.empty and "epsilon" not in settings:
            raise ValueError("epsilon is not given; allowed: a number, at least 0")
        given = {name: settings.get(name, default) for name, default in keywords.items()}
        return {name: value if name in _STATIC else _as_tensor(value, keywords[name]) for name, value in given.items()}

    def prepared(logits_fn, x, y, settings, index):
        """Returns the `Search` of a batch; that of an attack which is none ends with its beginning."""
        if "seed" in keywords:
            settings = {**settings, "seed": _seed(settings.get("seed", keywords["seed"]), x, index)}
        result = function(inference(logits_fn), x, y, **settings)
        return result if isinstance(result, Search) else Search(lambda: _ended(result), lambda state: state)

    def trace(logits_fn, x, y, index=None, **settings):
        search = prepared(logits_fn, x, y, settings, index)
        first = search.first()
        if isinstance(first, Ended):
            return first.x_adv
        _, last = run(search, first)
        return choose(losses.margin(inference(logits_fn)(last.x_adv), y) > 0.0, last.x_adv, x)

    @functools.wraps(function)
    def checked(logits_fn, x, y, *, index=None, **settings):
        if tf.inside_function():
            return trace(logits_fn, x, y, index, **settings)
        settings = as_tensors(settings)
        if isinstance(logits_fn, keras.Model):
            validation.classifier("logits_fn", logits_fn)
            x = validation.images("x", x, input_shape=logits_fn.input_shape[1:])
            for name, labels in (("y", y), ("target", settings.get("target"))):
                if labels is not None:
                    validation.labels(name, labels, num_classes=logits_fn.output_shape[-1], num_images=len(x))
        else:
            x = validation.images("x", x)
        index = tf.range(len(x)) if index is None else tf.cast(index, tf.int32)
        compiled = compiled_for(logits_fn, trace, x.shape[1:])
        return compiled(tf.constant(x, tf.float32), tf.convert_to_tensor(y), index, **settings)

    # For those who describe an attack long before they call it; the last two are for the engine of evaluations.
    vars(checked).update(keywords=keywords, check_settings=check_settings, as_tensors=as_tensors, prepared=prepared)
    return checked


def compiled_for(logits_fn, function, shape=None):
    """Returns `function(logits_fn, ...)`, compiled once for a network, and for a shape of its images, as a function of
    the other arguments: TensorFlow would generalize over shapes, and keep what it has for a network for ever.
    """
    functions = _functions_of(logits_fn)
    if (function, shape) not in functions:
        functions[function, shape] = tf.function(
            functools.partial(function, logits_fn), autograph=False, reduce_retracing=True
        )
    return functions[function, shape]


@functools.lru_cache(maxsize=8)
def _functions_of(logits_fn):
    """Returns the dict of what is compiled for a network: of the last few alone, since it holds the network, too."""
    return {}


def run(search, state, *, steps=None, until_done=None):
    """Returns the number of steps that the images of a search needed, and the state after them.

    Args:
        search: the `Search`.
        state: where to begin.
        steps: number of steps at most, None for no limit.
        until_done: number of images that are done at which to stop, None for all.
    """
    size = tf.shape(state.fooled)[0]
    until_done = size if until_done is None else tf.minimum(until_done, size)

    def goes_on(taken, state):
        done = tf.math.count_nonzero(state.fooled | state.spent, dtype=tf.int32)
        return (done < until_done) if steps is None else (done < until_done) & (taken < steps)

    return tf.while_loop(goes_on, lambda taken, state: (taken + 1, search.step(state)), (tf.constant(0), state))


def _ended(x_adv):
    one_each = tf.shape(x_adv)[:1]
    return Ended(x_adv, tf.zeros(one_each, tf.bool), tf.ones(one_each, tf.bool))


def choose(condition, one, other):
    """Returns for each image `one` (B, ...) where the condition (B,) holds, else `other`."""
    for _ in range(one.shape.rank - 1):
        condition = condition[..., None]
    return tf.where(condition, one, other)


def _as_tensor(value, default):
    """Returns numbers as tensors, everything else as it is: int32 where the default is a whole number, else float32."""
    if value is None or isinstance(value, (bool, str)) or callable(value):
        return value
    if isinstance(value, (int, np.integer)) and not isinstance(default, int):
        return tf.constant(value, tf.float32)
    value = tf.convert_to_tensor(value)
    return tf.cast(value, tf.int32 if value.dtype.is_integer else tf.float32)


def inference(logits_fn):
    """Returns the logits of a network in inference mode: BatchNorm uses its moving statistics and keeps them.

    Where the network computes in float16, gradients to the images are scaled on their way: see `_scaled`.
    """
    if not isinstance(logits_fn, keras.Model):
        return logits_fn
    network = functools.partial(logits_fn, training=False)
    return _scaled(network) if precision.computes_in_float16(logits_fn) else network


LARGEST_SCALED = 256.0  # far from float16's largest and smallest numbers


def _scaled(network):
    """Returns `network`, whose gradients to the images pass it so large that float16 does not round them to 0.

    The gradient of an image's loss with respect to its logits is brought to about `LARGEST_SCALED`, and the gradient
    with respect to the image brought back: by powers of 2, which change no digit. The gradient may be tiny: that of an
    image of which the network is sure, for instance. A gradient of 0 has no sign, and would end the attack.
    """

    @tf.custom_gradient
    def logits(x):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            outputs = network(x)

        def backward(upstream, variables=()):
            largest = tf.reduce_max(tf.abs(tf.cast(upstream, tf.float32)), axis=-1, keepdims=True)
            exponent = tf.math.floor(tf.math.log(LARGEST_SCALED / tf.maximum(largest, _SMALLEST)) / tf.math.log(2.0))
            scale = tf.cast(tf.pow(2.0, exponent), upstream.dtype)
            gradient = tape.gradient(outputs, x, upstream * scale, unconnected_gradients="zero")
            return gradient / scale[:, :, None, None], [None for _ in variables]

        return outputs, backward

    return logits


_SMALLEST = 1e-30  # of a gradient that is scaled


def ball(x, epsilon):
    """Returns the lowest and the highest image within `epsilon` of x (L-infinity) and within [0, 1]."""
    return tf.maximum(x - epsilon, 0.0), tf.minimum(x + epsilon, 1.0)


def projection(x, epsilon, norm="linf"):
    """Returns the function that moves images into the ball of radius `epsilon` around x and into [0, 1].

    In L2 the difference from x is shortened to `epsilon` first. Cutting to [0, 1], where x is, then brings no pixel
    farther from x, so that the result is within both; it need not be the nearest such image.
    """
    if not _is_l2(norm):
        low, high = ball(x, epsilon)
        return lambda x_adv: tf.clip_by_value(x_adv, low, high)

    def project(x_adv):
        difference = x_adv - x
        share = tf.math.divide_no_nan(epsilon, tf.maximum(_length(difference), epsilon))
        return tf.clip_by_value(x + difference * share, 0.0, 1.0)

    return project


def direction(gradient, norm="linf"):
    """Returns the step of length 1 that climbs fastest: the sign, or the gradient over its L2 norm.

    Args:
        gradient: (B, H, W, C), finite. Where that of an image is 0, so is its step.
        norm: "linf" or "l2".
    """
    if not _is_l2(norm):
        return tf.sign(gradient)
    # Squares of small gradients underflow, those of the largest entry's multiples do not.
    scaled = tf.math.divide_no_nan(gradient, tf.reduce_max(tf.abs(gradient), axis=(1, 2, 3), keepdims=True))
    return tf.math.divide_no_nan(scaled, _length(scaled))


def _length(difference):
    """Returns the L2 norm of each image of `difference` (B, H, W, C): (B, 1, 1, 1)."""
    return tf.sqrt(tf.reduce_sum(tf.square(difference), axis=(1, 2, 3), keepdims=True))


def _is_l2(norm):
    return validation.one_of("norm", norm, NORMS) == "l2"


def input_gradient(objective, x):
    """Returns the gradient of `objective` at images x (B, H, W, C), and the logits that it was computed from.

    Args:
        objective: function of images that returns a loss, a scalar or one value per image, and the logits behind it.
        x: images. Where nothing differentiable connects them to the loss the gradient is 0, as behind a rounding layer;
            so it is where it would not be a finite number, which must not pass for a perturbation.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        loss, logits = objective(x)
    gradient = tape.gradient(loss, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return tf.where(tf.math.is_finite(gradient), gradient, 0.0), logits


def cross_entropy_of(logits_fn, y):
    """Returns the objective of `input_gradient` that most attacks increase: the cross-entropy of each image."""

    def objective(x):
        logits = logits_fn(x)
        return losses.cross_entropy(logits, y), logits

    return objective


def ascend(objective, x, start, *, epsilon, step_size, steps=1, norm="linf"):
    """Returns `start` after `steps` steps along the gradient of `objective`, each projected onto the ball.

    Args:
        objective: what to increase, as in `input_gradient`.
        x: the clean images, the centre of the ball.
        start: where the first gradient is taken.
        epsilon, step_size: radius of the ball, length of a step.
        steps: a Python number 1 takes the step in place, without a loop.
        norm: "linf", whose steps go along the sign of the gradient, or "l2".
    """
    project = projection(x, epsilon, norm)

    def step(x_adv):
        gradient, _ = input_gradient(objective, x_adv)
        return project(x_adv + step_size * direction(gradient, norm))

    if isinstance(steps, int) and steps == 1:
        return step(start)
    _, x_adv = tf.while_loop(
        lambda taken, _: taken < steps,
        lambda taken, x_adv: (taken + 1, step(x_adv)),
        (tf.constant(0), start),
    )
    return x_adv


def _seed(seed, x, index):
    """Returns a pair of numbers as it is, which stands for the global batch; for one number, the keys of the images."""
    seed = tf.convert_to_tensor(seed)
    if seed.shape.rank == 1:
        return seed
    return draws.keys(seed_pair(seed), _numbers(x) if index is None else index)


def _numbers(x):
    return parallel.own_rows(lambda shape: tf.range(shape[0]), x[:, 0, 0, 0])


def image_keys(seed, x):
    """Returns keys (B, 2), uint32, for the draws of a search: `seed` where it is such keys, else from the pair (2,)."""
    seed = tf.convert_to_tensor(seed)
    return seed if seed.shape.rank == 2 else draws.keys(seed_pair(seed), _numbers(x))


def fold_in(seed, number):
    """Returns a seed for another purpose, told apart by `number`: a scalar, or (B,) where `seed` is keys (B, 2)."""
    if _is_per_image(seed):
        return draws.fold_in(seed, number)
    return tf.random.experimental.stateless_fold_in(seed_pair(seed), number)


def seed_pair(seed):
    """Returns the two integers that stateless draws take: `seed` itself, or a number and 0."""
    seed = tf.cast(tf.convert_to_tensor(seed), tf.int32)
    return seed if seed.shape.rank == 1 else tf.stack([seed, 0])


def random_signs(x, seed):
    """Returns +1 or -1 with probability 1/2 each for every pixel of x.

    Here and below, a seed is keys (B, 2) of the images or, for the global batch, two integers (2,).
    """
    if _is_per_image(seed):
        return draws.signs(seed, x.shape[1:])
    bits = parallel.own_rows(lambda shape: tf.random.stateless_uniform(shape, seed_pair(seed), 0, 2, tf.int32), x)
    return tf.cast(2 * bits - 1, x.dtype)


def random_normal(x, seed):
    """Returns standard normal draws of the shape of x."""
    if _is_per_image(seed):
        return draws.normal(seed, x.shape[1:])
    return parallel.own_rows(lambda shape: tf.random.stateless_normal(shape, seed_pair(seed), dtype=x.dtype), x)


def random_uniform(x, seed):
    """Returns draws from [0, 1) of the shape of x."""
    if _is_per_image(seed):
        return draws.uniform(seed, x.shape[1:])
    return parallel.own_rows(lambda shape: tf.random.stateless_uniform(shape, seed_pair(seed), dtype=x.dtype), x)


def random_point(x, epsilon, seed, norm="linf"):
    """Returns a point drawn uniformly from the ball of radius `epsilon` around x, cut to [0, 1]."""
    if _is_l2(norm):
        return tf.clip_by_value(x + epsilon * _random_in_l2_ball(x, seed), 0.0, 1.0)
    return tf.clip_by_value(x + epsilon * (2.0 * random_uniform(x, seed) - 1.0), 0.0, 1.0)


def random_on_the_sphere(x, seed, norm="linf"):
    """Returns a random change of each image of length 1: uniform draws over the largest, or a uniform direction."""
    if _is_l2(norm):
        return direction(random_normal(x, seed), norm)
    change = 2.0 * random_uniform(x, seed) - 1.0
    return tf.math.divide_no_nan(change, tf.reduce_max(tf.abs(change), axis=(1, 2, 3), keepdims=True))


def _random_in_l2_ball(x, seed):
    # A ball of radius r holds the share r^D of the volume of the one of radius 1.
    share = random_uniform(x[:, :1, :1, :1], fold_in(seed, 1))
    coordinates = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), x.dtype)
    return direction(random_normal(x, seed), "l2") * share ** (1.0 / coordinates)


def _is_per_image(seed):
    return tf.is_tensor(seed) and seed.shape.rank == 2
