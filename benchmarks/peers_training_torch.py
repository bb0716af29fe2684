"""NuAT as a plain PyTorch loop, for `benchmarks.peers_training`, in an environment with PyTorch and NumPy alone.

The loop follows algorithm 1 of Sriramanan et al. (2021), as one would write it in PyTorch: eager, `torch.autograd.grad`
for the adversary, `torch.optim.SGD`. In the style "published", the attack also does what the authors' public scripts do
beyond the algorithm: it has a clean forward pass with its graph for every batch, and its `backward` goes on to the
weights.
"""

import argparse
import contextlib
import json
import pathlib
import time

import numpy as np
import torch

from benchmarks import keras_to_torch, turns


class Loop:
    """Training of a network by NuAT.

    Args:
        network: images (B, C, H, W) in [0, 1] -> logits (B, K).
        settings: a dict, see `benchmarks.peers_training.settings`.
        style: "plain" or "published".
        precision: "float32", or "bfloat16" by PyTorch's automatic casts.
    """

    def __init__(self, network, settings, *, style, precision):
        self.network, self.settings, self.is_published = network, settings, style == "published"
        self.cross_entropy = torch.nn.CrossEntropyLoss()
        rate, momentum, decay = (settings[name] for name in ("learning_rate", "momentum", "weight_decay"))
        self.optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=momentum, weight_decay=decay)
        self.casts = (
            torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()
        )
        self.taken = 0

    def logits(self, x):
        with self.casts:
            logits = self.network(x)
        return logits.float()  # PyTorch has no singular values in 16 bits

    def penalty(self, change):
        return self.settings["nuclear_weight"] * nuclear_norm(change) / len(change)

    def adversary(self, x, y, start):
        if start is None:
            start = (x + self.settings["alpha"] * torch.sign(0.5 - torch.rand_like(x))).clamp(0.0, 1.0)
        is_nuclear = self.taken % 2 == 1
        self.network.eval()
        start = start.clone().requires_grad_()
        if self.is_published:
            clean = self.logits(x)
        elif is_nuclear:
            with torch.no_grad():
                clean = self.logits(x)
        logits = self.logits(start)
        loss = self.cross_entropy(logits, y)
        if is_nuclear:
            loss = loss + self.penalty(logits - clean)
        if self.is_published:
            loss.backward()
            gradient = start.grad
        else:
            (gradient,) = torch.autograd.grad(loss, start)
        epsilon = self.settings["epsilon"]
        x_adv = start.detach() + epsilon * gradient.sign()
        return (x + (x_adv - x).clamp(-epsilon, epsilon)).clamp(0.0, 1.0)

    def step(self, x, y, start=None):
        """Returns the loss of a training step; `start` is where the adversary begins, instead of a random draw."""
        x_adv = self.adversary(x, y, start)
        self.network.train()
        self.optimizer.zero_grad()
        adversarial_logits, logits = self.logits(x_adv), self.logits(x)
        loss = self.cross_entropy(logits, y) + self.penalty(adversarial_logits - logits)
        loss.backward()
        self.optimizer.step()
        self.taken += 1
        return loss.item()


def nuclear_norm(matrix):
    return torch.linalg.matrix_norm(matrix, "nuc")


def parts(loop, x, y):
    """Returns a dict of name to a function that does one part of a step."""
    network, number_of_classes = loop.network, loop.logits(x).shape[1]
    change = torch.randn(len(x), number_of_classes)
    images = x.clone().requires_grad_()

    def forward():
        with torch.no_grad():
            loop.logits(x)

    def input_gradient():
        torch.autograd.grad(loop.cross_entropy(loop.logits(images), y), images)

    def training():
        network.zero_grad()
        loop.cross_entropy(loop.logits(x), y).backward()

    def singular_values():
        matrix = change.clone().requires_grad_()
        nuclear_norm(matrix).backward()

    return {
        "forward": forward,
        "input_gradient": input_gradient,
        "training": training,
        "nuclear_norm": singular_values,
        "optimizer": loop.optimizer.step,  # `training` has left it gradients
    }


def repeated(function, seconds):
    """Calls `function` in pairs for `seconds`; returns the number of calls and how long they took."""
    calls, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        function()
        function()  # NuAT's batches alternate
        calls += 2
    return calls, elapsed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="what benchmarks.peers_training wrote")
    parser.add_argument("--style", choices=("plain", "published"), default="plain")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    flags = parser.parse_args()
    settings = json.loads((flags.folder / "settings.json").read_text(encoding="utf-8"))
    torch.set_num_threads(settings["threads"])
    with np.load(flags.folder / "network.npz") as file:
        network = keras_to_torch.build(file)
    with np.load(flags.folder / "batches.npz") as file:
        x, starts = (torch.from_numpy(file[name]).movedim(-1, 2).contiguous() for name in ("x", "starts"))
        y = torch.from_numpy(file["y"])
    loop = Loop(network, settings, style=flags.style, precision=flags.precision)
    losses = [loop.step(*batch) for batch in zip(x, y, starts)]  # only the first batches have starts

    def step():
        number = loop.taken % len(x)
        loop.step(x[number], y[number])

    def train(seconds):
        steps, elapsed = repeated(step, seconds)
        return {"images_per_second": steps * x.shape[1] / elapsed}

    def time_parts(seconds):
        found = {}
        for name, function in parts(loop, x[0], y[0]).items():
            calls, elapsed = repeated(function, seconds)
            found[name] = elapsed / calls
        return found

    versions = {"torch": torch.__version__, "numpy": np.__version__}
    turns.serve({"losses": losses, "versions": versions}, {"train": train, "parts": time_parts})


if __name__ == "__main__":
    main()
