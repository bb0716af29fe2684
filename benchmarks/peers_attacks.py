"""The half of `benchmarks.peers` that attacks a Keras network with other libraries.

    python -m benchmarks.peers_attacks --peer torchattacks --attack pgd --folder FOLDER --epsilon 0.3

Needs the requested library and its PyTorch or TensorFlow, not this package's dependencies. Loads the network that
`benchmarks.peers` wrote, checks that its logits are those of Keras, attacks batch by batch, and prints one line of
JSON. Its `seconds` only count the attack.
"""

import argparse
import functools
import importlib.metadata
import json
import pathlib
import sys
import time
import types

import numpy as np

from benchmarks import keras_to_torch

LARGEST_DIFFERENCE = 1e-3  # of logits
STEPS, QUERIES = 100, 5000  # of AutoAttack's gradient attacks, and of its Square
TARGETS = 3  # of APGD-T alone


def in_torch(folder):
    """Returns the network in PyTorch, and two functions of arrays: its logits, and the layout of its images."""
    import torch

    with np.load(folder / "network.npz") as file:
        # Otherwise FAB would also compute the gradients of the weights, which nothing uses.
        network = keras_to_torch.build(file).requires_grad_(False)

    def logits(x):
        with torch.no_grad():
            return network(torch.from_numpy(x)).numpy()

    return network, logits, lambda images: np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def in_tensorflow(folder):
    """Returns the network in TensorFlow, and two functions of arrays: its logits, and the layout of its images."""
    import keras

    network = keras.saving.load_model(folder / "network.keras", compile=False)
    return network, lambda x: network(x, training=False).numpy(), lambda images: images


def of_torch_tensors(attack):
    """Returns `attack`, a function of PyTorch tensors, as a function of arrays."""
    import torch

    return lambda x, y: attack(torch.from_numpy(x), torch.from_numpy(y)).detach().numpy()


def of_tensorflow_tensors(attack):
    """Returns `attack`, a function of TensorFlow tensors, as a function of arrays."""
    import tensorflow as tf

    return lambda x, y: attack(tf.constant(x), tf.constant(y)).numpy()


def timed(parts, method, stages):
    """Makes `method` of each of `parts` add the time of its calls to the dict `stages`, under the name of the class."""

    def wrapped(part):
        function = getattr(part, method)

        @functools.wraps(function)
        def run(*arguments, **options):
            began = time.perf_counter()
            result = function(*arguments, **options)
            name = type(part).__name__
            stages[name] = stages.get(name, 0.0) + time.perf_counter() - began
            return result

        return run

    for part in parts:
        setattr(part, method, wrapped(part))


# Each of these returns an attack: a function of arrays, (images, labels) -> images.


def torchattacks_pgd(network, settings, stages):
    import torchattacks

    options = {"eps": settings.epsilon, "alpha": settings.step_size, "steps": settings.steps}
    return of_torch_tensors(torchattacks.PGD(network, **options, random_start=True))


def torchattacks_autoattack(network, settings, stages):
    """torchattacks 3.5.1 gives APGD and FAB 10 steps, not the published 100. Here they get 100, unless as shipped."""
    import torchattacks

    attack = torchattacks.AutoAttack(network, norm="Linf", eps=settings.epsilon, n_classes=settings.classes, seed=0)
    parts = attack._autoattack.attacks
    if not settings.as_shipped:
        for part in parts:
            if hasattr(part, "steps"):
                part.steps = STEPS
    timed(parts, "forward", stages)
    return of_torch_tensors(attack)


def cleverhans_torch(network, settings, stages):
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    lengths = settings.epsilon, settings.step_size, settings.steps, np.inf
    options = {"clip_min": 0.0, "clip_max": 1.0, "rand_init": True, "sanity_checks": False}
    return of_torch_tensors(lambda x, y: projected_gradient_descent(network, x, *lengths, y=y, **options))


def cleverhans_tensorflow(network, settings, stages):
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

    lengths = settings.epsilon, settings.step_size, settings.steps, np.inf
    options = {"clip_min": 0.0, "clip_max": 1.0, "rand_init": True, "sanity_checks": False}
    return of_tensorflow_tensors(lambda x, y: projected_gradient_descent(network, x, *lengths, y=y, **options))


def foolbox(model, settings):
    import foolbox

    attack = foolbox.attacks.LinfPGD(abs_stepsize=settings.step_size, steps=settings.steps, random_start=True)
    return lambda x, y: attack.run(model, x, foolbox.criteria.Misclassification(y), epsilon=settings.epsilon)


def foolbox_torch(network, settings, stages):
    import foolbox as library

    return of_torch_tensors(foolbox(library.PyTorchModel(network, bounds=(0, 1), device="cpu"), settings))


def foolbox_tensorflow(network, settings, stages):
    import foolbox as library

    return of_tensorflow_tensors(foolbox(library.TensorFlowModel(network, bounds=(0, 1), device="/CPU:0"), settings))


def art_classifier(network, settings):
    """Returns ART's estimator around a network of either library."""
    from art.estimators import classification

    common = {"nb_classes": settings.classes, "input_shape": settings.input_shape, "clip_values": (0.0, 1.0)}
    if settings.library == "torch":
        import torch

        loss = torch.nn.CrossEntropyLoss()
        return classification.PyTorchClassifier(model=network, loss=loss, device_type="cpu", **common)
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return classification.TensorFlowV2Classifier(model=network, loss_object=loss, **common)


def art_pgd(network, settings, stages):
    from art.attacks.evasion import ProjectedGradientDescent

    attack = ProjectedGradientDescent(
        art_classifier(network, settings),
        eps=settings.epsilon,
        eps_step=settings.step_size,
        max_iter=settings.steps,
        num_random_init=1,
        batch_size=settings.batch_size,
        verbose=False,
    )
    return attack.generate


def art_autoattack(network, settings, stages):
    """ART has APGD with two losses, DeepFool and Square, not the four published attacks.

    They get the published steps and single start; as shipped, APGD and Square start five times.
    """
    from art.attacks import evasion

    classifier = art_classifier(network, settings)
    attack = evasion.AutoAttack(classifier, eps=settings.epsilon, batch_size=settings.batch_size)
    for part in () if settings.as_shipped else attack.attacks:
        if isinstance(part, evasion.AutoProjectedGradientDescent):
            part.set_params(nb_random_init=1, max_iter=STEPS, eps_step=2 * settings.epsilon)
        elif isinstance(part, evasion.SquareAttack):
            part.set_params(nb_restarts=1, max_iter=QUERIES)
    timed(attack.attacks, "generate", stages)
    return attack.generate


def slide(network, settings, stages):
    """SLIDE (Tramer and Boneh, 2019), which is PGD in L1, without the pixels that cannot follow the gradient."""
    from cleverhans.torch.attacks.sparse_l1_descent import sparse_l1_descent

    lengths = settings.epsilon, settings.step_size, settings.steps
    options = {"clip_min": 0.0, "clip_max": 1.0, "rand_init": True, "clip_grad": True, "sanity_checks": False}
    return of_torch_tensors(lambda x, y: sparse_l1_descent(network, x, *lengths, y=y, **options))


def adv_lib(function, **options):
    """Returns a builder of an attack: adv_lib's APGD in L1, in balls of three radii, as AutoAttack runs it."""

    def attack(network, settings, stages):
        # adv_lib imports them for a distance and for plots, which none of these attacks uses.
        for name in ("torchvision", "torchvision.models", "visdom"):
            sys.modules.setdefault(name, types.ModuleType(name))
        setattr(sys.modules["torchvision"], "models", sys.modules["torchvision.models"])  # noqa: B010
        from adv_lib.attacks import auto_pgd

        run = getattr(auto_pgd, function)
        given = {"eps": settings.epsilon, "norm": 1, "n_iter": settings.steps, "use_large_reps": True, **options}
        return of_torch_tensors(lambda x, y: run(network, x, y, **given))

    return attack


ART = "adversarial-robustness-toolbox"
# Name of a peer to its package, the library that it works with, and its attacks by the norm.
PEERS = {
    "torchattacks": (
        "torchattacks",
        "torch",
        {"linf": {"pgd": torchattacks_pgd, "autoattack": torchattacks_autoattack}},
    ),
    "CleverHans (TensorFlow)": ("cleverhans", "tensorflow", {"linf": {"pgd": cleverhans_tensorflow}}),
    "CleverHans (PyTorch)": ("cleverhans", "torch", {"linf": {"pgd": cleverhans_torch}, "l1": {"pgd": slide}}),
    "Foolbox (TensorFlow)": ("foolbox", "tensorflow", {"linf": {"pgd": foolbox_tensorflow}}),
    "Foolbox (PyTorch)": ("foolbox", "torch", {"linf": {"pgd": foolbox_torch}}),
    "ART (TensorFlow)": (ART, "tensorflow", {"linf": {"pgd": art_pgd, "autoattack": art_autoattack}}),
    "ART (PyTorch)": (ART, "torch", {"linf": {"pgd": art_pgd, "autoattack": art_autoattack}}),
    "adv_lib": (
        "adv-lib",
        "torch",
        {
            "l1": {
                "apgd_ce": adv_lib("apgd", loss_function="ce"),
                "apgd_t": adv_lib("apgd_targeted", loss_function="dlr", num_targets=TARGETS),
            }
        },
    ),
}
ORDERS = {"linf": np.inf, "l1": 1}  # of the norms
LIBRARIES = {"torch": in_torch, "tensorflow": in_tensorflow}


def by_batches(function, batch_size, *arrays):
    """Returns what `function` makes of arrays, batch by batch."""
    starts = range(0, len(arrays[0]), batch_size)
    return np.concatenate([function(*(array[start : start + batch_size] for array in arrays)) for start in starts])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", choices=sorted(PEERS), required=True)
    parser.add_argument("--attack", choices=("pgd", "autoattack", "apgd_ce", "apgd_t"), required=True)
    parser.add_argument("--norm", choices=sorted(ORDERS), default="linf")
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="of the network and the images")
    parser.add_argument("--epsilon", type=float, required=True, help="radius")
    parser.add_argument("--steps", type=int, default=40, help="of PGD and APGD")
    parser.add_argument("--step_size", type=float, default=0.01, help="of PGD")
    parser.add_argument("--as_shipped", action="store_true", help="AutoAttack with its own number of steps and starts")
    parser.add_argument("--batch_size", type=int, default=250)
    parser.add_argument("--threads", type=int, default=2)
    settings = parser.parse_args()
    package, settings.library, attacks = PEERS[settings.peer]
    if settings.library == "torch":
        import torch

        torch.set_num_threads(settings.threads)
    network, logits, laid_out = LIBRARIES[settings.library](settings.folder)
    with np.load(settings.folder / "images.npz") as file:
        x, y = laid_out(file["images"]), file["labels"]
    expected = np.load(settings.folder / "logits.npy")
    settings.classes, settings.input_shape = expected.shape[1], x.shape[1:]
    clean = by_batches(logits, settings.batch_size, x)
    difference = float(np.abs(clean - expected).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise SystemExit(f"the logits differ from those of Keras by {difference:g}; allowed: {LARGEST_DIFFERENCE:g}")

    stages = {}
    attack = attacks[settings.norm][settings.attack](network, settings, stages)
    began = time.perf_counter()
    x_adv = by_batches(attack, settings.batch_size, x, y)
    seconds = time.perf_counter() - began

    changes = (x_adv - x).reshape(len(x), -1)
    distance = float(np.linalg.norm(changes, ORDERS[settings.norm], axis=1).max())
    if distance > settings.epsilon + 1e-4 or x_adv.min() < 0.0 or x_adv.max() > 1.0:
        raise SystemExit(f"an adversary is {distance:g} from its image, or not an image")
    found = {
        "seconds": seconds,
        "stages": stages,
        "clean": float(np.mean(clean.argmax(axis=1) == y)),
        "robust": (by_batches(logits, settings.batch_size, x_adv).argmax(axis=1) == y).tolist(),
        "difference_of_logits": difference,
        "versions": {name: importlib.metadata.version(name) for name in (package, settings.library)},
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
