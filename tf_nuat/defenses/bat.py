"""Bilateral adversarial training: images and labels are both perturbed (Wang and Zhang, 2019)."""

import typing

import keras
import tensorflow as tf

from tf_nuat import losses, norms, parallel
from tf_nuat.attacks.ascent import ascend, cross_entropy_of
from tf_nuat.core import validation
from tf_nuat.defenses.base import Defense, ObjectiveValue
from tf_nuat.defenses.passes import Passes

LABELS = (None, "main", "supplement")


class BAT(Defense):
    """Bilateral adversarial training, R-MC-LA: one targeted step, and labels that give away all but the lead.

    The image starts at a random point of the ball and takes one step of size epsilon towards the most confusing class,
    the wrong one with the smallest loss on the clean image. The label gives a share of its 1 to the wrong classes: the
    larger the loss of a class, the larger its share, so the most confusing class gets the smallest (see
    `adversarial_label`). Minimizes the cross-entropy of the adversarial images with the adversarial labels.

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        epsilon: radius of the L-infinity threat model and length of the step, above 0.
        label: how labels are perturbed: "main" for the rule of the paper, "supplement" for that of its supplement, or
            None, which leaves them as they are (R-MC).
        beta: smallest ratio of the true class's share of the label to any other share, at least 1.
        gamma: what the rule "main" adds to each class's loss above the smallest, above 0.
        top: number of wrong classes that get a share, those with the largest loss, at least 1; default all of them
            (R-MC-LA9, for many classes: 9).
        **options: those of `Defense`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.BAT(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        epsilon: float,
        label: str | None = "main",
        beta: float = 9.0,
        gamma: float = 0.01,
        top: int | None = None,
        **options: typing.Any,
    ) -> None:
        super().__init__(network, epsilon=epsilon, **options)
        self.label = validation.one_of("label", label, LABELS)
        if label is not None and self.label_smoothing:
            validation.refuse("label_smoothing", self.label_smoothing, f"0, as label {label!r} is a smoothed one")
        self.beta = validation.number("beta", beta, at_least=1.0)
        self.gamma = validation.number("gamma", gamma, above=0.0)
        self.top = top if top is None else validation.whole_number("top", top, at_least=1)

    def prepare(self, x: tf.Tensor, y: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the logits of the clean images in inference mode: attack and label share one forward."""
        return {"clean_logits": self.attacked(x)}

    def perturb(
        self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None, clean_logits: tf.Tensor | None = None
    ) -> tf.Tensor:
        target = most_confusing_class(self.attacked(x) if clean_logits is None else clean_logits, y)
        cross_entropy = cross_entropy_of(self.attacked, target)

        def nearness(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            loss, logits = cross_entropy(images)
            return -loss, logits

        start = norms.LINF.random_point(x, self.epsilon, self.draw_seed) if start is None else start
        return ascend(nearness, x, start, epsilon=self.epsilon, step_size=self.epsilon)

    def objective(
        self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor, clean_logits: tf.Tensor | None = None
    ) -> ObjectiveValue:
        if self.label is not None:
            clean_logits = tf.stop_gradient(self.attacked(x) if clean_logits is None else clean_logits)
            y = adversarial_label(clean_logits, y, rule=self.label, beta=self.beta, gamma=self.gamma, top=self.top)
        logits = self.trained_network(x_adv, training=True)
        return parallel.share_of_mean(losses.cross_entropy(logits, y)), logits

    def passes(self, batch_size: int) -> Passes:
        return Passes(input_gradient=1.0, training=1.0, forward=1.0)


def most_confusing_class(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns the wrong class with the smallest loss, integers (B,), for logits (B, K) and labels."""
    return tf.argmax(tf.where(_is_true(logits, y), -tf.float32.max, tf.cast(logits, tf.float32)), axis=-1)


def adversarial_label(
    logits: tf.Tensor,
    y: tf.Tensor,
    *,
    rule: str = "main",
    beta: float = 9.0,
    gamma: float = 0.01,
    top: int | None = None,
) -> tf.Tensor:
    """Returns labels (B, K), float32, rows that sum to 1, in which the true class keeps `beta` times any other share.

    Let v_k = -log softmax_k f(x), the gradient of the loss with respect to the label. The wrong classes that get a
    share divide e among them, in proportion to `v_k - v_MC + gamma` (rule "main", where v_MC is the smallest v_k of all
    wrong classes) or to v_k (rule "supplement", equation 2). The true class keeps `1 - e`. The budget e is the largest
    for which that is `beta` times the largest wrong share (equations 3 and 4 of the supplement).

    Args:
        logits: (B, K), of the clean images.
        y: labels, integers (B,) or one-hot (B, K).
        rule: "main" or "supplement".
        beta, gamma, top: see `BAT`.
    """
    is_true = _is_true(logits, y)
    gradient = -tf.nn.log_softmax(tf.cast(logits, tf.float32))
    if rule == "main":
        smallest = tf.reduce_min(tf.where(is_true, tf.float32.max, gradient), axis=-1, keepdims=True)
        gain = gradient - smallest + gamma
    else:
        gain = tf.maximum(gradient, 1e-8)  # in float32 the loss of a certain class rounds to 0
    gain = tf.where(is_true, 0.0, gain)
    if top is not None:
        num_classes = logits.shape[-1]
        largest = tf.math.top_k(gain, min(top, num_classes - 1)).indices
        gain *= tf.reduce_sum(tf.one_hot(largest, num_classes), axis=-2)
    share = gain / tf.reduce_sum(gain, axis=-1, keepdims=True)
    budget = 1.0 / (1.0 + beta * tf.reduce_max(share, axis=-1, keepdims=True))
    return tf.where(is_true, 1.0 - budget, budget * share)


def _is_true(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return tf.one_hot(losses.true_class(y), logits.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
