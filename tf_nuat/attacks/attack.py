"""`attack` makes an attack of a function: checked, and compiled where it is called eagerly.

An attack is a pure function `attack(logits_fn, x, y, *, epsilon, ...) -> x_adv` of images x (B, H, W, C) in [0, 1] and
labels y, integers (B,) or one-hot (B, K). `logits_fn` maps images to logits (B, K): a network or any function. The
result lies within `epsilon` of x and within [0, 1]. Distance is the largest change of a pixel (norm "linf") or the
Euclidean length of the change of an image ("l2"); attacks without an argument `norm` are of the former kind.

There are two kinds. One goes a fixed way and returns where it ends: FGSM, for instance, which training uses. The other
searches for an adversary, an image that fools the network, and returns it, or x where it finds none: it is written as
a `Search`, whose images stop one by one, so that the engine of evaluations (`tf_nuat.attacks.pool`) can replace those
that are done by others.
"""

import functools
import inspect

import keras
import numpy as np
import tensorflow as tf

from tf_nuat import draws, losses, norms
from tf_nuat.attacks.search import Ended, Search, choose, ended, run_search
from tf_nuat.core import validation
from tf_nuat.models.inference import compiled_for, inference

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
    "norm": lambda name, value: validation.one_of(name, value, norms.NORMS),
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
            settings = {**settings, "seed": draws.seeds_of(settings.get("seed", keywords["seed"]), x, index)}
        result = function(inference(logits_fn), x, y, **settings)
        return result if isinstance(result, Search) else Search(lambda: ended(result), lambda state: state)

    def trace(logits_fn, x, y, index=None, **settings):
        search = prepared(logits_fn, x, y, settings, index)
        first = search.first()
        if isinstance(first, Ended):
            return first.x_adv
        _, last = run_search(search, first)
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


def _as_tensor(value, default):
    """Returns numbers as tensors, everything else as it is: int32 where the default is a whole number, else float32."""
    if value is None or isinstance(value, (bool, str)) or callable(value):
        return value
    if isinstance(value, (int, np.integer)) and not isinstance(default, int):
        return tf.constant(value, tf.float32)
    value = tf.convert_to_tensor(value)
    return tf.cast(value, tf.int32 if value.dtype.is_integer else tf.float32)
