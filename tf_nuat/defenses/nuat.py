"""The NuAT family: nuclear-norm adversarial training (Sriramanan et al., 2021)."""

import typing
from collections.abc import Callable

import keras
import tensorflow as tf

from tf_nuat import attacks, losses, parallel, schedules
from tf_nuat.attacks.ascent import ascend, cross_entropy_of
from tf_nuat.attacks.nuclear import bernoulli_start
from tf_nuat.core import files, placement, validation
from tf_nuat.defenses.base import Defense, Facts, ObjectiveValue
from tf_nuat.defenses.passes import Passes
from tf_nuat.models import averaging, batch_norm, weights
from tf_nuat.models.inference import inference


class NuAT(Defense):
    """NuAT: one step of the nuclear-norm attack on odd batches, of R-FGSM on even ones (algorithm 1).

    Minimizes `CE(f(x), y) + lambda * |f(x_adv) - f(x)|_* / B` (equation 2).

    Args:
        network: classifier, images (B, H, W, C) in [0, 1] -> logits (B, K).
        epsilon: radius of the threat model and length of the step, above 0; in the L-infinity norm at most 1.
        alpha: magnitude of the Bernoulli noise at which the gradient is taken, in [0, epsilon]; default `epsilon / 2`
            (the paper has 4/255 for 8/255, and epsilon itself on MNIST). In L2, the length of that noise.
        nuclear_weight: lambda, in the attack and in training: a number, at least 0, or a schedule of the step.
        norm: norm of the threat model, of the step and of the noise: "linf", as in the paper, or "l2".
        **options: those of `Defense`.

    Raises:
        ValueError: an argument is out of its range, or the network ends in softmax.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.NuAT(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, alpha=0.1, nuclear_weight=4.0)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    COMPARES = True
    NORMS = ("linf", "l2")

    def __init__(
        self,
        network: keras.Model,
        *,
        epsilon: float,
        alpha: float | None = None,
        nuclear_weight: schedules.Weight = 1.0,
        norm: str = "linf",
        **options: typing.Any,
    ) -> None:
        super().__init__(network, epsilon=epsilon, norm=norm, **options)
        self.alpha = epsilon / 2 if alpha is None else alpha
        validation.number("alpha", self.alpha, at_least=0.0, at_most=epsilon)
        self.nuclear_weight = schedules.weight("nuclear_weight", nuclear_weight)

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        with placement.on_host():
            weight = tf.where(self.is_nuclear_batch(), self.weight(), 0.0)
        return self.nuclear_step(x, y, start, weight=weight)

    def objective(self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor) -> ObjectiveValue:
        # Two forwards, adversarial first: with BatchNorm they are two batches, and the clean one comes last.
        adversarial_logits = self.trained_network(x_adv, training=True)
        logits = self.trained_network(x, training=True)
        clean_loss = parallel.share_of_mean(losses.cross_entropy(logits, y))
        change = tf.cast(adversarial_logits, tf.float32) - tf.cast(logits, tf.float32)
        return clean_loss + losses.nuclear_penalty(change, self.weight()), logits

    def passes(self, batch_size: int) -> Passes:
        # The clean images are forwarded in the attack of every other batch.
        return Passes(input_gradient=1.0, training=2.0, forward=self._clean_forwards(0.5))

    def _clean_forwards(self, share: float) -> float:
        """Returns `share` of a forward, or 0 without the nuclear norm, for which alone the attack forwards x."""
        return 0.0 if self.nuclear_weight == 0 else share

    def weight(self) -> tf.Tensor:
        """Returns lambda at this step, a float32 scalar."""
        return schedules.value_at(self.nuclear_weight, self.batches)

    def is_nuclear_batch(self) -> tf.Tensor:
        """Returns whether this batch is odd, a boolean scalar: then the attack maximizes the nuclear norm too."""
        with placement.on_host():
            return tf.equal(self.step % 2, 1)

    def nuclear_step(
        self,
        x: tf.Tensor,
        y: tf.Tensor,
        start: tf.Tensor | None,
        *,
        weight: float | tf.Tensor,
        logits_fn: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """Returns the images after one step of size epsilon from `start` along the gradient of equation 1."""
        start = bernoulli_start(x, self.alpha, self.draw_seed, self.norm) if start is None else start
        return attacks.nuclear(
            logits_fn or self.attacked, x, y, epsilon=self.epsilon, weight=weight, start=start, norm=self.norm
        )

    def cross_entropy_step(self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Returns x_adv after one more step of size epsilon along the cross-entropy, projected onto the ball of x."""
        return ascend(
            cross_entropy_of(self.attacked, y),
            x,
            x_adv,
            epsilon=self.epsilon,
            step_size=self.epsilon,
            norm=self.norm,
        )


class NuAT2(NuAT):
    """NuAT2: a nuclear-norm step on every batch, then a step of the cross-entropy alone (section 5.3).

    Args:
        attack_ema_decay: if given, the first step is taken on a weight average of the trained network, kept for the
            attack, with this decay per step, in (0, 1) (NuAT2-WA: 0.99). The first epoch does not average.
        **options: those of `NuAT`.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.NuAT2(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, nuclear_weight=4.0)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    def __init__(
        self, network: keras.Model, *, epsilon: float, attack_ema_decay: float | None = None, **options: typing.Any
    ) -> None:
        super().__init__(network, epsilon=epsilon, **options)
        self.attack_ema_decay = attack_ema_decay
        self.attack_network = None
        if attack_ema_decay is not None:
            validation.number("attack_ema_decay", attack_ema_decay, above=0.0, below=1.0)
            self.attack_network = averaging.copy_of(network)
            batch_norm.fuse(self.attack_network)
            self._attack_digest_at_first = files.digest(*self.attack_network.get_weights())

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        first_on = None if self.attack_network is None else inference(self.attack_network)
        x_adv = self.nuclear_step(x, y, start, weight=self.weight(), logits_fn=first_on)
        return self.cross_entropy_step(x, x_adv, y)

    def passes(self, batch_size: int) -> Passes:
        return Passes(input_gradient=2.0, training=2.0, forward=self._clean_forwards(1.0))

    def train_what_was_set(self) -> None:
        super().train_what_was_set()
        if self.attack_network is None:
            return
        # An average that was trained, or loaded, goes on.
        if files.digest(*self.attack_network.get_weights()) == self._attack_digest_at_first:
            weights.copy(self.trained_network, to=self.attack_network)

    def update_averages(self) -> None:
        super().update_averages()
        if self.attack_network is not None:
            # With the decay 0 during the first epoch, the average is the trained network itself.
            decay = tf.where(tf.equal(self.epoch.value, 0), 0.0, self.attack_ema_decay)
            averaging.update(self.attack_network, self.trained_network, self.where_weights_changed(decay))


class NuATH(NuAT):
    """NuAT-H: NuAT that takes NuAT2's two steps while training looks unstable (section 5.5).

    A sudden drop of the clean training loss is the first sign that a network has learned to mask its gradients. While
    the mean loss of the last steps is below `threshold` times that of the previous epoch, the attack takes two steps.

    Args:
        threshold: in (0, 1]; the higher, the more often two steps are taken.
        **options: those of `NuAT`.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.NuATH(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, threshold=0.85)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    RECENT_STEPS = 10

    def __init__(self, network: keras.Model, *, epsilon: float, threshold: float = 0.85, **options: typing.Any) -> None:
        super().__init__(network, epsilon=epsilon, **options)
        self.threshold = validation.number("threshold", threshold, above=0.0, at_most=1.0)
        self.recent_loss = self.scalar_state("recent_loss")
        self.epoch_loss_sum = self.scalar_state("epoch_loss_sum")
        self.epoch_steps = self.scalar_state("epoch_steps")
        self.previous_epoch_loss = self.scalar_state("previous_epoch_loss")
        self.two_step_batches = self.scalar_state("two_step_batches")
        self.batches_before = self.scalar_state("batches_before")  # of other defenses, see `take_over`

    @property
    def extra_epochs(self) -> float:
        """Number of batches so far that took two steps, in epochs: the subscript of table 1b."""
        in_last, epochs_before = parallel.scalar(self.epoch_steps), parallel.scalar(self.epoch)
        # The last epoch may be incomplete. Those before it are whole, and of the same length.
        in_whole = max(in_last, (self.count_batches() - in_last) / max(epochs_before, 1))
        return parallel.scalar(self.two_step_batches) / in_whole if in_whole else 0.0

    def card_facts(self) -> dict[str, float]:
        return {"extra_epochs": self.extra_epochs}

    def passes(self, batch_size: int) -> Passes:
        # A batch that takes two steps has the passes of NuAT2.
        batches = self.count_batches() - parallel.scalar(self.batches_before)
        extra = parallel.scalar(self.two_step_batches) / batches if batches else 0.0
        forward = self._clean_forwards(0.5 + extra / 2)
        return Passes(input_gradient=1.0 + extra, training=2.0, forward=forward)

    def take_over(self, before: Defense) -> None:
        super().take_over(before)
        self.batches_before.assign(before.count_batches())

    def takes_two_steps(self) -> tf.Tensor:
        """Returns whether the clean loss has dropped suddenly, a boolean scalar."""
        return self.recent_loss.value < self.threshold * self.previous_epoch_loss.value

    def perturb(self, x: tf.Tensor, y: tf.Tensor, start: tf.Tensor | None = None) -> tf.Tensor:
        two_steps = self.takes_two_steps()
        weight = tf.where(tf.logical_or(two_steps, self.is_nuclear_batch()), self.weight(), 0.0)
        x_adv = self.nuclear_step(x, y, start, weight=weight)
        return tf.cond(two_steps, lambda: self.cross_entropy_step(x, x_adv, y), lambda: x_adv)

    def objective(self, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor) -> ObjectiveValue:
        loss, logits, *_ = super().objective(x, x_adv, y)
        with parallel.weighing(None):  # lower sample weights are no drop of the loss
            clean_loss = parallel.share_of_mean(losses.cross_entropy(logits, y))
        return loss, logits, {"clean_loss": clean_loss}

    def observe(self, facts: Facts) -> None:
        """Keeps the means of the clean loss, without values that are not finite, and counts the two-step batches."""
        clean_loss = parallel.total(facts["clean_loss"])
        is_known = tf.math.is_finite(clean_loss)  # with loss scaling, a step that overflows is skipped
        self.two_step_batches.assign_add(tf.cast(self.takes_two_steps(), tf.float32))
        self.epoch_loss_sum.assign_add(tf.where(is_known, clean_loss, 0.0))
        self.epoch_steps.assign_add(tf.cast(is_known, tf.float32))
        # A running mean: plain over the first batches, exponential over RECENT_STEPS after that.
        own = tf.cast(self.batches, tf.float32) - self.batches_before.value
        count = tf.clip_by_value(own + 1.0, 1.0, self.RECENT_STEPS)
        change = tf.where(is_known, clean_loss - self.recent_loss.value, 0.0)
        self.recent_loss.assign_add(change / count)

    def on_epoch_begin(self, epoch: int) -> None:
        super().on_epoch_begin(epoch)
        if parallel.scalar(self.epoch_steps) > 0:
            self.previous_epoch_loss.assign(self.epoch_loss_sum.value / self.epoch_steps.value)
            self.epoch_loss_sum.assign(0.0)
            self.epoch_steps.assign(0.0)


class NuATWA(NuAT):
    """`NuAT` with weight averaging: `ema_decay=0.9998` unless told otherwise.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.NuATWA(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1, ema_decay=0.99)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    def __init__(
        self, network: keras.Model, *, epsilon: float, ema_decay: float | None = 0.9998, **options: typing.Any
    ) -> None:
        super().__init__(network, epsilon=epsilon, ema_decay=ema_decay, **options)


class NuAT2WA(NuAT2):
    """`NuAT2` with weight averaging: `ema_decay=0.9998`, `attack_ema_decay=0.99` unless told otherwise.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.NuAT2WA(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        epsilon: float,
        ema_decay: float | None = 0.9998,
        attack_ema_decay: float | None = 0.99,
        **options: typing.Any,
    ) -> None:
        super().__init__(network, epsilon=epsilon, ema_decay=ema_decay, attack_ema_decay=attack_ema_decay, **options)


class NuATWAH(NuATH):
    """`NuATH` with weight averaging: `ema_decay=0.9998` unless told otherwise.

    Example:
        >>> import tf_nuat
        >>> model = tf_nuat.NuATWAH(tf_nuat.networks.two_conv((8, 8, 1), 10), epsilon=0.1)
        >>> model.compile(tf_nuat.optimizers.CoupledSGD(0.05), metrics=["accuracy"])
    """

    def __init__(
        self, network: keras.Model, *, epsilon: float, ema_decay: float | None = 0.9998, **options: typing.Any
    ) -> None:
        super().__init__(network, epsilon=epsilon, ema_decay=ema_decay, **options)
