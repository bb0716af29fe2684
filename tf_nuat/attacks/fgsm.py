"""FGSM, the fast gradient sign method (Goodfellow et al., 2015)."""

from tf_nuat.attacks import base


@base.attack
def fgsm(logits_fn, x, y, *, epsilon):
    """Returns x after one step of size `epsilon` along the sign of the gradient of the cross-entropy.

    Args:
        logits_fn: network or function, images (B, H, W, C) -> logits (B, K).
        x: images (B, H, W, C), float32 in [0, 1].
        y: labels, integers (B,) or one-hot (B, K).
        epsilon: radius of the L-infinity ball, above 0.

    Raises:
        ValueError: an argument is out of its range.
    """
    return base.ascend(base.cross_entropy_of(logits_fn, y), x, x, epsilon=epsilon, step_size=epsilon, steps=1)
