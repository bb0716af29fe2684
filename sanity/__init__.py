"""Judges whether a network's robustness is real: `python -m sanity.run --checkpoint network.keras`, or `judge`.

Example:
    The other examples of `sanity` continue this one, with the names of their own module. The network is linear,
    fitted by least squares.

    >>> import keras
    >>> import numpy as np
    >>> import tf_nuat
    >>> from sanity import Settings, judge
    >>> from sanity.subject import Subject
    >>> x, y = tf_nuat.data.load("digits").arrays("train")
    >>> network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    >>> fitted, *_ = np.linalg.lstsq(x.reshape(len(x), 64), 10.0 * np.eye(10)[y])
    >>> network.set_weights([fitted, np.zeros(10)])
    >>> images, labels, _ = tf_nuat.data.sample("digits", samples=100)
    >>> subject = Subject(network, images, labels, epsilon=0.02)
    >>> settings = Settings(steps=5, most_steps=5, restarts=1, queries=5, points=5, slow_images=2, planted_images=2)
    >>> names = ["network_is_deterministic", "iterative_beats_single_step"]
    >>> judgement = judge(network, images, labels, epsilon=0.02, checks=names, progress=False)
    >>> result = judgement.results[1]
"""

import tf_nuat as tf_nuat  # must come first: it silences TensorFlow before anything imports it

# isort: split

from sanity.judgement import Judgement, judge
from sanity.result import Result, Verdict
from sanity.settings import Budget, Settings

__all__ = ["Budget", "Judgement", "Result", "Settings", "Verdict", "judge"]
