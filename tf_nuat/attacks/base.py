"""What all attacks share: the threat model's geometry, the ascent along a gradient, and `attack`.

An attack is a pure function `attack(logits_fn, x, y, *, epsilon, ...) -> x_adv` of images x (B, H, W, C) in [0, 1] and
labels y, integers (B,) or one-hot (B, K). `logits_fn` maps images to logits (B, K): a network or any function. The
result lies within `epsilon` of x and within [0, 1]. Distance is the largest change of a pixel (norm "linf") or the
Euclidean length of the change of an image ("l2"); attacks without an argument `norm` are of the former kind.
"""

import functools
import inspect

import keras
import numpy as np
import tensorflow as tf

from tf_nuat import distribute, losses, validation

NORMS = ("linf", "l2")

# What each keyword of the attacks may be; `attack` checks them once, where an attack is called eagerly.
_ALLOWED = {
    "epsilon": lambda name, value: validation.number(name, value, above=0.0),
    "alpha": lambda name, value: validation.number(name, value, at_least=0.0),
    "step_size": lambda name, value: validation.number(name, value, above=0.0),
    "weight": lambda name, value: validation.number(name, value, at_least=0.0),
    "steps": lambda name, value: validation.whole_number(name, value, at_least=1),
    "restarts": lambda name, value: validation.whole_number(name, value, at_least=1),
    "targets": lambda name, value: validation.whole_number(name, value, at_least=1),
    "seed": lambda name, value: validation.whole_number(name, value, at_least=0),
    "norm": lambda name, value: validation.one_of(name, value, NORMS),
}


def attack(function):
    """Turns `function(logits_fn, x, y, *, ...)` into an attack: checked and compiled where it is called eagerly.

    Inside a compiled function, a training step for instance, it is traced in place. Numbers become tensors, so that
    another epsilon, step count or seed does not compile anything again; another network or function does.
    """
    parameters = inspect.signature(function).parameters.values()
    keywords = {
        parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY
    }

    def trace(logits_fn, x, y, **settings):
        return function(inference(logits_fn), x, y, **settings)

    compiled = tf.function(trace, autograph=False, reduce_retracing=True)

    def check_settings(settings):
        for name, value in settings.items():
            validation.one_of("argument", name, keywords)
            left_open = value is None and keywords[name] is None
            if name in _ALLOWED and not left_open and not tf.is_tensor(value):
                _ALLOWED[name](name, value)

    @functools.wraps(function)
    def checked(logits_fn, x, y, **settings):
        if tf.inside_function():
            return trace(logits_fn, x, y, **settings)
        check_settings(settings)
        if "epsilon" not in settings:
            raise ValueError("epsilon is not given; allowed: a number above 0")
        if isinstance(logits_fn, keras.Model):
            validation.classifier("logits_fn", logits_fn)
            x = validation.images("x", x, input_shape=logits_fn.input_shape[1:])
            y = validation.labels("y", y, num_classes=logits_fn.output_shape[-1], num_images=len(x))
        else:
            x = validation.images("x", x)
        # All keywords, always: TensorFlow does not generalize over calls that name different ones.
        settings = {name: _as_tensor(settings.get(name, default)) for name, default in keywords.items()}
        return compiled(logits_fn, tf.constant(x, tf.float32), tf.convert_to_tensor(y), **settings)

    checked.check_settings = check_settings  # for those who describe an attack long before they call it
    return checked


def _as_tensor(value):
    if value is None or isinstance(value, (bool, str)) or callable(value):
        return value
    if isinstance(value, (int, np.integer)):
        return tf.constant(value, tf.int32)
    return tf.cast(tf.convert_to_tensor(value), tf.float32)


def inference(logits_fn):
    """Returns the logits of a network in inference mode: BatchNorm uses its moving statistics and keeps them."""
    return functools.partial(logits_fn, training=False) if isinstance(logits_fn, keras.Model) else logits_fn


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
        return tf.clip_by_value(x + difference * (epsilon / tf.maximum(_length(difference), epsilon)), 0.0, 1.0)

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


def seed_pair(seed):
    """Returns the two integers that stateless draws take: `seed` itself, or a number and 0."""
    seed = tf.cast(tf.convert_to_tensor(seed), tf.int32)
    return seed if seed.shape.rank == 1 else tf.stack([seed, 0])


def random_signs(x, seed):
    """Returns +1 or -1 with probability 1/2 each for every pixel of x, drawn for the global batch."""
    bits = distribute.own_rows(lambda shape: tf.random.stateless_uniform(shape, seed_pair(seed), 0, 2, tf.int32), x)
    return tf.cast(2 * bits - 1, x.dtype)


def random_normal(x, seed):
    """Returns standard normal draws of the shape of x, drawn for the global batch."""
    return distribute.own_rows(lambda shape: tf.random.stateless_normal(shape, seed_pair(seed), dtype=x.dtype), x)


def random_point(x, epsilon, seed, norm="linf"):
    """Returns a point drawn uniformly from the ball of radius `epsilon` around x, cut to [0, 1]."""
    if _is_l2(norm):
        return tf.clip_by_value(x + epsilon * _random_in_l2_ball(x, seed), 0.0, 1.0)
    offset = distribute.own_rows(
        lambda shape: tf.random.stateless_uniform(shape, seed_pair(seed), -1.0, 1.0, dtype=x.dtype), x
    )
    return tf.clip_by_value(x + epsilon * offset, 0.0, 1.0)


def _random_in_l2_ball(x, seed):
    # A ball of radius r holds the share r^D of the volume of the one of radius 1.
    radius_seed = tf.random.experimental.stateless_fold_in(seed_pair(seed), 1)
    share = distribute.own_rows(
        lambda shape: tf.random.stateless_uniform(shape, radius_seed, dtype=x.dtype), x[:, :1, :1, :1]
    )
    coordinates = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), x.dtype)
    return direction(random_normal(x, seed), "l2") * share ** (1.0 / coordinates)
