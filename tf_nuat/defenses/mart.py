"""MART: misclassification-aware adversarial training (Wang et al., 2020)."""

import tensorflow as tf

from tf_nuat import losses, parallel
from tf_nuat.defenses.base import ObjectiveValue
from tf_nuat.defenses.passes import Passes
from tf_nuat.defenses.trades import TRADES


class MART(TRADES):
    """MART: TRADES whose divergence counts most where the clean image is misclassified (algorithm 1).

    The attack is PGD along the cross-entropy. With p the predictions and q those of the adversarial images, training
    minimizes the mean of `BCE(q, y) + beta * KL(p || q) * (1 - p_y)`, where the boosted cross-entropy `BCE(q, y)` is
    `-log q_y - log(1 - max q_k)` over the wrong classes k. No factor is held constant, as in the authors' code.

    Args:
        **options: those of `TRADES`, with the same defaults (the authors' code has beta 6).

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.MART(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, beta=5.0)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        return self.ascend(x, y, start)

    def objective(self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor) -> ObjectiveValue:
        # Two forwards, adversarial first: with BatchNorm they are two batches, and the clean one comes last.
        adversarial_logits = self.trained_network(x_adv, training=True)
        logits = self.trained_network(x, training=True)
        true = tf.one_hot(losses.true_class(y), tf.shape(logits)[-1])
        wrong_probability = 1.0 - tf.reduce_sum(true * tf.nn.softmax(tf.cast(logits, tf.float32)), axis=-1)
        divergence = losses.kl_divergence(logits, adversarial_logits)
        per_example = boosted_cross_entropy(adversarial_logits, y) + self.weight() * divergence * wrong_probability
        return parallel.share_of_mean(per_example), logits

    def passes(self, batch_size: int) -> Passes:
        return Passes(input_gradient=float(self.steps), training=2.0)


def boosted_cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the cross-entropy plus `-log(1.0001 - p)`, p the largest wrong probability, (B,), in float32.

    The authors' 1.0001 bounds the second term: a hopeless image does not outweigh the rest of its batch.
    """
    true = tf.one_hot(losses.true_class(labels), tf.shape(logits)[-1])
    wrong = tf.reduce_max((1.0 - true) * tf.nn.softmax(tf.cast(logits, tf.float32)), axis=-1)
    return losses.cross_entropy(logits, labels) - tf.math.log(1.0001 - wrong)
