"""Figure: the classes in which nuclear-norm and Frobenius-norm attacks end (Sriramanan et al., 2021, figure 2)."""

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from sanity.figures import models as compared
from sanity.measure.batches import compiled
from sanity.report.figures import literal
from tf_nuat import losses
from tf_nuat.attacks.ascent import ascend
from tf_nuat.attacks.nuclear import bernoulli_start
from tf_nuat.models.inference import inference

TITLE = "Targets of nuclear-norm and Frobenius-norm attacks"
BATCH = 100  # images of one class
STEPS = 10
NUMBERED = 12  # classes up to which cells have numbers

NORMS = {"nuclear": losses.nuclear_norm, "Frobenius": tf.norm}


def norm_attack(logits_fn, x, *, norm, epsilon, steps=STEPS, seed=0, ball="linf"):
    """Returns images whose logits differ from those of x by a matrix (B, K) with a large norm.

    This is the attack of `tf_nuat.attacks.nuclear`, without the cross-entropy and for any norm. It starts at Bernoulli
    noise of epsilon / 2 and takes `steps` steps of 2.5 epsilon / steps, at most epsilon.

    Args:
        logits_fn: function of images (B, H, W, C) that returns logits (B, K).
        x: images, a tensor.
        norm: function of a matrix (B, K), for instance one of `NORMS`.
        epsilon, seed: as for `tf_nuat.attacks.nuclear`.
        ball: "linf" or "l2".

    Source: Sriramanan et al., 2021, section 5.1 and figure 2.
    """
    clean = tf.stop_gradient(logits_fn(x))

    def objective(x_adv):
        logits = logits_fn(x_adv)
        return norm(tf.cast(logits - clean, tf.float32)), logits

    start = bernoulli_start(x, epsilon / 2, seed, ball)
    step_size = min(2.5 * epsilon / steps, epsilon)
    return ascend(objective, x, start, epsilon=epsilon, step_size=step_size, steps=steps, norm=ball)


def entropy(rows):
    """Returns the entropy of each row, in nats: of counts or of probabilities, (K,) or (N, K)."""
    rows = np.asarray(rows, np.float64)
    share = rows / np.sum(rows, axis=-1, keepdims=True)
    return -np.sum(share * np.log(np.where(share > 0.0, share, 1.0)), axis=-1)


def measure(models, options):
    """Returns, for each model and norm, the confusion matrix of the predictions on the adversaries and two entropies.

    A batch has the images of one class, as in the paper. One entropy is that of the mean softmax (as in the paper), the
    other that of the counts of the predictions. Both are in nats, for each class and as means over the classes.
    """
    found = []
    for model in models:
        entry = {"name": model.name, "norms": {}}
        for name, norm in NORMS.items():
            classes, counts, softmax = _confusion(model.subject, norm)
            entropies = {"softmax": entropy(softmax), "counts": entropy(counts)}
            entry["norms"][name] = {
                "confusion": counts.tolist(),
                **{f"entropy_of_{kind}": float(np.mean(each)) for kind, each in entropies.items()},
                **{f"entropy_of_{kind}_by_class": each.tolist() for kind, each in entropies.items()},
            }
        found.append({**entry, "classes": classes})
    return {"sample": compared.about(models, options), "steps": STEPS, "models": found}


def _confusion(subject, norm):
    """Returns the classes of the sample, and counts of predictions and mean softmax with a row for each, (C, K)."""
    logits_fn = inference(subject.network)

    def attacked(x):
        return logits_fn(
            norm_attack(logits_fn, x, norm=norm, epsilon=subject.epsilon, seed=subject.seed, ball=subject.norm)
        )

    attacked = compiled(attacked, tf.TensorSpec((None, *subject.images.shape[1:])))
    classes, counts, softmax = [], [], []
    for label in range(subject.num_classes):
        images = subject.images[subject.labels == label]
        if not len(images):
            continue
        parts = [attacked(tf.constant(images[at : at + BATCH])) for at in range(0, len(images), BATCH)]
        logits = keras.ops.convert_to_numpy(tf.concat(parts, axis=0)).astype(np.float64)
        classes.append(label)
        counts.append(np.bincount(np.argmax(logits, axis=1), minlength=subject.num_classes))
        softmax.append(np.mean(np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)), axis=0))
    return classes, np.array(counts), np.array(softmax)


def draw(data):
    """Returns the figure of what `measure` returns: a row for each model, a column for each norm."""
    rows = data["models"]
    figure = Figure(figsize=(7.4, 0.7 + 3.5 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(NORMS), squeeze=False)
    for line, each in zip(grid, rows):
        for axes, (name, found) in zip(line, each["norms"].items()):
            drawn = _draw_matrix(axes, np.array(found["confusion"]), each["classes"])
            axes.set_title(
                f"{literal(each['name'])}, {name} norm\nentropy {found['entropy_of_softmax']:.2f} nats "
                f"(of counts {found['entropy_of_counts']:.2f})",
                fontsize=9,
            )
    figure.supxlabel("class predicted for the adversary", fontsize=9)
    figure.supylabel(f"true class ({data['sample']['images']} images; numbers: images)", fontsize=9)
    figure.colorbar(drawn, ax=grid, label="share of the class", shrink=min(1.0, 0.8 / len(rows) + 0.2))
    return figure


def _draw_matrix(axes, counts, classes):
    """Draws the shares of each row of a confusion matrix, for few classes with the counts; returns the image."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    drawn = axes.imshow(shares, cmap="cividis", vmin=0.0, vmax=1.0)
    if max(counts.shape) <= NUMBERED:
        axes.set_xticks(range(counts.shape[1]))
        axes.set_yticks(range(counts.shape[0]), classes)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "black" if shares[row, column] > 0.5 else "white"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
    return drawn


def caption(data):
    """Returns the caption, with the numbers."""
    numbers = "; ".join(
        "{}: {:.2f} and {:.2f}, higher for {} of {} classes".format(
            each["name"],
            *(found["entropy_of_softmax"] for found in each["norms"].values()),
            _higher(each),
            len(each["classes"]),
        )
        for each in data["models"]
    )
    return (
        f"What networks take adversaries for that increase the nuclear or the Frobenius norm of the change of the "
        f"logits alone, in {data['steps']} steps, in batches of one class. Entropy of the mean softmax of a class, in "
        f"nats, mean over the classes, of the nuclear and the Frobenius norm: {numbers}. {compared.threat(data)}."
    )


def _higher(each):
    nuclear, frobenius = (found["entropy_of_softmax_by_class"] for found in each["norms"].values())
    return sum(one > other for one, other in zip(nuclear, frobenius))
