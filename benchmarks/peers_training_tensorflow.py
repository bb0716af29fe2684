"""PGD adversarial training as users of CleverHans and of ART write it in TensorFlow, for `benchmarks.peers_training`.

Needs TensorFlow, Keras, NumPy, and the requested one of the two. CleverHans' loop is that of its MNIST tutorial for
TensorFlow 2. ART's is `AdversarialTrainer` around `TensorFlowV2Classifier`; all images of a batch are adversarial. Both
get a training step that TensorFlow compiles once, as in the tutorials.
"""

import argparse
import importlib.metadata
import itertools
import json
import logging
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf

from benchmarks import turns

PACKAGES = {"cleverhans": "cleverhans", "art": "adversarial-robustness-toolbox"}


def training_step(network, settings, losses):
    """Returns the function (network, images, labels) that both call; it appends its loss, a tensor, to `losses`."""
    loss_object = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(settings["learning_rate"], momentum=settings["momentum"])
    mean_loss = keras.metrics.Mean()

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss = loss_object(labels, network(images, training=True))
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables))
        mean_loss(loss)
        return loss

    def train(_, images, labels):
        losses.append(step(images, labels))

    return train


def cleverhans(network, settings, losses):
    """Returns CleverHans' loop, a function of batches of images (N, B, H, W, C) and of labels (N, B)."""
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    train = training_step(network, settings, losses)
    attack = tuple(settings[name] for name in ("epsilon", "step_size", "steps"))

    def loop(x, y):
        for images, labels in tf.data.Dataset.from_tensor_slices((x, y)):
            x_adv = projected_gradient_descent(
                network, images, *attack, np.inf, clip_min=0.0, clip_max=1.0, y=labels, rand_init=False
            )
            train(network, x_adv, labels)

    return loop


def art(network, settings, losses):
    """Returns ART's loop, a function of batches of images (N, B, H, W, C) and of labels (N, B)."""
    from art.attacks.evasion import ProjectedGradientDescent
    from art.defences.trainer import AdversarialTrainer
    from art.estimators.classification import TensorFlowV2Classifier

    classifier = TensorFlowV2Classifier(
        network,
        nb_classes=network.output_shape[-1],
        input_shape=network.input_shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        train_step=training_step(network, settings, losses),
        clip_values=(0.0, 1.0),
    )

    def loop(x, y):
        batch_size = x.shape[1]
        attack = ProjectedGradientDescent(
            classifier,
            eps=settings["epsilon"],
            eps_step=settings["step_size"],
            max_iter=settings["steps"],
            num_random_init=0,
            batch_size=batch_size,
            verbose=False,
        )
        trainer = AdversarialTrainer(classifier, attack, ratio=1.0)
        trainer.fit(x.reshape(-1, *x.shape[2:]), y.reshape(-1), batch_size=batch_size, nb_epochs=1)

    return loop


PEERS = {"cleverhans": cleverhans, "art": art}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="what benchmarks.peers_training wrote")
    parser.add_argument("--peer", choices=sorted(PEERS), required=True)
    flags = parser.parse_args()
    logging.getLogger("art").setLevel(logging.WARNING)
    settings = json.loads((flags.folder / "settings.json").read_text(encoding="utf-8"))
    network = keras.saving.load_model(flags.folder / "network.keras", compile=False)
    with np.load(flags.folder / "batches.npz") as file:
        x, y = file["x"], file["y"]
    losses = []
    loop, checked = PEERS[flags.peer](network, settings, losses), settings["checked"]
    for number in range(checked):  # one call each, as ART shuffles the images of a call
        loop(x[number : number + 1], y[number : number + 1])
    found = [float(loss) for loss in losses]
    firsts = itertools.cycle(range(0, len(x), checked))

    def train(seconds):
        losses.clear()
        began = time.perf_counter()
        while (elapsed := time.perf_counter() - began) < seconds:
            first = next(firsts)
            loop(x[first : first + checked], y[first : first + checked])
            losses[-1].numpy()
        return {"images_per_second": len(losses) * x.shape[1] / elapsed}

    names = ("tensorflow", "keras", "numpy", PACKAGES[flags.peer])
    versions = {name: importlib.metadata.version(name) for name in names}
    turns.serve({"losses": found, "versions": versions}, {"train": train})


if __name__ == "__main__":
    main()
