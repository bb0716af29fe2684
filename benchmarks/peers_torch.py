"""The half of `benchmarks.peers` that PyTorch runs: torchattacks' AutoAttack on a network that Keras trained.

    python benchmarks/peers_torch.py --network network.npz --images images.npz --epsilon 0.3 --threads 2

Needs no more than torch, torchattacks and NumPy, in an environment without TensorFlow. Builds the network from the
file that `benchmarks.peers` wrote, makes sure that its logits are those of Keras, attacks batch by batch, and prints
one line of JSON. Nothing but the attack is in its `seconds`.

torchattacks 3.5.1 gives the attacks of AutoAttack 10 steps where the publication has 100; `--steps` sets them.
"""

import argparse
import json
import time

import numpy as np
import torch
import torchattacks

LARGEST_DIFFERENCE = 1e-3  # of logits


def build(arrays):
    """Returns the network that `benchmarks.peers.exported` describes, images (B, C, H, W) -> logits (B, K)."""
    modules = []
    for number, layer in enumerate(json.loads(str(arrays["layers"]))):
        kind = layer["kind"]
        if kind == "pool":
            modules.append(torch.nn.MaxPool2d(layer["size"], layer["strides"]))
            continue
        if kind == "flatten":
            modules.append(torch.nn.Flatten())
            continue
        if kind == "relu":
            modules.append(torch.nn.ReLU())
            continue
        kernel, bias = (torch.from_numpy(arrays[f"{number}_{name}"]) for name in ("kernel", "bias"))
        outputs, inputs = kernel.shape[:2]
        if kind == "convolution":
            module = torch.nn.Conv2d(inputs, outputs, kernel.shape[2:], layer["strides"], layer["padding"])
        else:
            module = torch.nn.Linear(inputs, outputs)
        with torch.no_grad():
            module.weight.copy_(kernel)
            module.bias.copy_(bias)
        modules.append(module)
    # Without this FAB would also compute the gradients of the weights, which nothing uses.
    return torch.nn.Sequential(*modules).eval().requires_grad_(False)


def timed(attack, seconds):
    """Has `attack` add the time of its calls to the dict `seconds` under its name."""
    forward = attack.forward

    def run(*arguments):
        began = time.perf_counter()
        result = forward(*arguments)
        seconds[attack.attack] = seconds.get(attack.attack, 0.0) + time.perf_counter() - began
        return result

    attack.forward = run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", required=True, help="file of weights and logits")
    parser.add_argument("--images", required=True, help="file of images and labels")
    parser.add_argument("--epsilon", type=float, required=True, help="radius, L-infinity")
    parser.add_argument("--steps", type=int, default=100, help="of APGD and FAB")
    parser.add_argument("--batch_size", type=int, default=250)
    parser.add_argument("--threads", type=int, default=2)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    with np.load(flags.network) as file:
        arrays = dict(file)
    with np.load(flags.images) as file:
        x = torch.from_numpy(file["images"]).permute(0, 3, 1, 2).contiguous()
        y = torch.from_numpy(file["labels"])
    network = build(arrays)

    def logits(x):
        with torch.no_grad():
            return torch.cat([network(batch) for batch in x.split(flags.batch_size)])

    clean = logits(x)
    difference = float(np.abs(clean.numpy() - arrays["logits"]).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise SystemExit(f"the logits differ from those of Keras by {difference:g}; allowed: {LARGEST_DIFFERENCE:g}")

    stages = {}
    classes = clean.shape[1]
    attack = torchattacks.AutoAttack(
        network, norm="Linf", eps=flags.epsilon, version="standard", n_classes=classes, seed=0
    )
    parts = attack._autoattack.attacks
    shipped = {part.attack: part.steps for part in parts if hasattr(part, "steps")}
    for part in parts:
        if hasattr(part, "steps"):
            part.steps = flags.steps
        timed(part, stages)
    began = time.perf_counter()
    batches = zip(x.split(flags.batch_size), y.split(flags.batch_size))
    x_adv = torch.cat([attack(*batch).detach() for batch in batches])
    seconds = time.perf_counter() - began

    robust = logits(x_adv).argmax(dim=1) == y
    distance = float((x_adv - x).abs().max())
    if distance > flags.epsilon + 1e-5 or x_adv.min() < 0 or x_adv.max() > 1:
        raise SystemExit(f"an adversary is {distance:g} from its image, or not an image")
    print(
        json.dumps(
            {
                "seconds": seconds,
                "stages": stages,
                "clean": float((clean.argmax(dim=1) == y).float().mean()),
                "robust": robust.tolist(),
                "threads": torch.get_num_threads(),
                "difference_of_logits": difference,
                "steps": flags.steps,
                "shipped_steps": shipped,
                "versions": {"torch": torch.__version__, "torchattacks": torchattacks.__version__},
            }
        )
    )


if __name__ == "__main__":
    main()
