"""Train the two built-in networks again: dense, pruned, weights shared, quantised.

The stages are those of Deep Compression (Han, Mao, Dally, ICLR 2016): dense training, magnitude
pruning with retraining (section 2), weight sharing with fine-tuned centroids (section 3). Only
these need gradients; the integer network is made by ``golden.compress.funnel.compress``, as for any
other dense network. Training images are distorted, and the logits of the dense LeNet-5 are learned
beside the labels while pruning; both make up for the few weights that are left.

The last 5,000 training images are held out and choose the checkpoint; the 10,000 test images are
looked at once, at the end, through the integer golden. Run it with::

    python -m thresher.scripts.train_lenets --mnist DIRECTORY --work DIRECTORY
"""

from __future__ import annotations

import argparse
import gzip
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]  # the extra `train`
from torch import Tensor  # type: ignore[import-not-found, unused-ignore]
from torch.nn import functional  # type: ignore[import-not-found, unused-ignore]

from thresher.golden.compress.dense_file import from_arrays
from thresher.golden.compress.funnel import compress, funnel
from thresher.golden.compress.share import share
from thresher.golden.inference import infer
from thresher.golden.network import CompressedNetwork, WeightedLayer
from thresher.golden.thr_file import save

__all__ = ["main"]

HELD_OUT = 5000
BATCH = 250
SHARE_COPIES = 4  # distorted copies for the few parameters of the last stage
CALIBRATION = 2000
PERCENTILES = (100.0, 99.99, 99.9, 99.5)

LENET_300_100: list[dict[str, Any]] = [
    {"name": "flatten", "kind": "flatten"},
    {"name": "ip1", "kind": "linear", "relu": True},
    {"name": "ip2", "kind": "linear", "relu": True},
    {"name": "ip3", "kind": "linear"},
]
LENET_5: list[dict[str, Any]] = [
    {"name": "conv1", "kind": "convolution", "relu": True},
    {"name": "pool1", "kind": "max_pool", "kernel": [2, 2], "stride": [2, 2]},
    {"name": "conv2", "kind": "convolution", "relu": True},
    {"name": "pool2", "kind": "max_pool", "kernel": [2, 2], "stride": [2, 2]},
    {"name": "flatten", "kind": "flatten"},
    {"name": "ip1", "kind": "linear", "relu": True},
    {"name": "ip2", "kind": "linear"},
]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one network is trained; densities and codebook sizes are by layer."""

    name: str
    architecture: list[dict[str, Any]]
    shapes: dict[str, tuple[int, ...]]
    density: dict[str, float]
    entries: dict[str, int]
    dense_epochs: int
    prune_epochs: int
    share_epochs: int
    copies: int
    seed: int = 1


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="lenet-5",
            architecture=LENET_5,
            shapes={
                "conv1": (20, 1, 5, 5),
                "conv2": (50, 20, 5, 5),
                "ip1": (500, 800),
                "ip2": (10, 500),
            },
            density={"conv1": 0.5, "conv2": 0.12, "ip1": 0.05, "ip2": 0.2},
            entries={"conv1": 64, "conv2": 64, "ip1": 16, "ip2": 16},
            dense_epochs=8,
            prune_epochs=10,
            share_epochs=2,
            copies=8,
        ),
        Recipe(
            name="lenet-300-100",
            architecture=LENET_300_100,
            shapes={"ip1": (300, 784), "ip2": (100, 300), "ip3": (10, 100)},
            density={"ip1": 0.05, "ip2": 0.09, "ip3": 0.26},
            entries={"ip1": 16, "ip2": 16, "ip3": 16},
            dense_epochs=30,
            prune_epochs=40,
            share_epochs=8,
            copies=16,
        ),
    )
}

Parameters = dict[str, Tensor]


def read_idx(path: Path) -> np.ndarray:
    """The array of a gzipped idx file of unsigned bytes."""
    data = gzip.decompress(path.read_bytes())
    dimensions = data[3]
    shape = np.frombuffer(data, ">u4", dimensions, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def distort(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate, scale, shear, shift and bend (n, 28, 28) bytes at random."""
    made = []
    for part in images.split(1000):
        n = len(part)

        def uniform(low: float, high: float, n: int = n) -> Tensor:
            return low + (high - low) * torch.rand(n, generator=generator)

        angle, shear = uniform(-0.2, 0.2), uniform(-0.2, 0.2)
        wide, high = uniform(0.88, 1.12), uniform(0.88, 1.12)
        theta = torch.zeros(n, 2, 3)
        theta[:, 0, 0], theta[:, 0, 1] = wide * angle.cos(), angle.sin() + shear
        theta[:, 1, 0], theta[:, 1, 1] = -angle.sin(), high * angle.cos()
        theta[:, :, 2] = torch.stack([uniform(-0.1, 0.1), uniform(-0.1, 0.1)], 1)
        grid = functional.affine_grid(theta, [n, 1, 28, 28], align_corners=False)
        bend = 0.06 * torch.randn(n, 2, 6, 6, generator=generator)
        bend = functional.interpolate(bend, size=(28, 28), mode="bicubic", align_corners=True)
        moved = functional.grid_sample(
            part[:, None].float(), grid + bend.permute(0, 2, 3, 1), align_corners=False
        )
        made.append(moved[:, 0].round().clamp(0, 255).to(torch.uint8))
    return torch.cat(made)


def forward(architecture: list[dict[str, Any]], parameters: Parameters, images: Tensor) -> Tensor:
    """Logits of byte images (n, 28, 28); pixels are divided by 255 and nothing else."""
    x = images[:, None].float() / 255
    for layer in architecture:
        weight = parameters.get(f"{layer['name']}.weight")
        bias = parameters.get(f"{layer['name']}.bias")
        match layer["kind"]:
            case "convolution":
                x = functional.conv2d(x, weight, bias)
            case "linear":
                x = functional.linear(x, weight, bias)
            case "max_pool":
                x = functional.max_pool2d(x, layer["kernel"], layer["stride"])
            case "flatten":
                x = x.flatten(1)
        if layer.get("relu"):
            x = x.relu()
    return x


@dataclass
class Data:
    """Training images in several distorted copies, copy 0 undistorted, and the held-out images."""

    copies: Tensor  # (copies, n, 28, 28) bytes
    labels: Tensor
    held_images: Tensor
    held_labels: Tensor
    taught: Tensor | None = None  # (copies, n, 10) logits of the teacher

    def batches(self, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
        """One epoch: (copy, image) index pairs, a random copy for each image."""
        count, n = self.copies.shape[:2]
        order = torch.randperm(n, generator=generator)
        copy = torch.randint(count, (n,), generator=generator)
        return list(zip(copy.split(BATCH), order.split(BATCH), strict=True))


def make_data(mnist: Path, copies: int, seed: int) -> Data:
    """Read MNIST's training images and distort them; more copies do not change the first."""
    print(f"making {copies} copies of the training images", flush=True)
    images = torch.from_numpy(read_idx(mnist / "train-images-idx3-ubyte.gz").copy())
    labels = torch.from_numpy(read_idx(mnist / "train-labels-idx1-ubyte.gz").copy()).long()
    generator = torch.Generator().manual_seed(seed)
    seen = images[:-HELD_OUT]
    return Data(
        copies=torch.stack([seen, *(distort(seen, generator) for _ in range(copies - 1))]),
        labels=labels[:-HELD_OUT],
        held_images=images[-HELD_OUT:],
        held_labels=labels[-HELD_OUT:],
    )


def teach(data: Data, architecture: list[dict[str, Any]], parameters: Parameters) -> Data:
    """The data with the teacher's logits."""
    with torch.no_grad():
        taught = torch.stack(
            [
                torch.cat([forward(architecture, parameters, part) for part in copy.split(1000)])
                for copy in data.copies
            ]
        )
    return replace(data, taught=taught)


def held_out_error(architecture: list[dict[str, Any]], parameters: Parameters, data: Data) -> float:
    """Share of the held-out images that are classified wrongly."""
    with torch.no_grad():
        wrong = sum(
            int((forward(architecture, parameters, part).argmax(1) != labels).sum())
            for part, labels in zip(
                data.held_images.split(1000), data.held_labels.split(1000), strict=True
            )
        )
    return wrong / len(data.held_labels)


def train(
    recipe: Recipe,
    data: Data,
    leaves: Parameters,
    *,
    epochs: int,
    rate: float,
    stage: str,
    build: Callable[[Parameters], Parameters] = lambda leaves: leaves,
    after_step: Callable[[float], bool] = lambda _: True,
) -> Parameters:
    """Adam with a cosine rate; the parameters of the best held-out epoch.

    ``build`` makes the network's parameters of the trained leaves. ``after_step`` is told the part
    of the training that is done and answers whether a checkpoint taken now would count.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    for leaf in leaves.values():
        leaf.requires_grad_()
    optimiser = torch.optim.Adam(list(leaves.values()), lr=rate)
    steps = epochs * -(-len(data.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.1)
    best, best_error = leaves, 2.0
    step = 0
    for epoch in range(epochs):
        began, total, counts = time.monotonic(), 0.0, True
        for copy, index in data.batches(generator):
            logits = forward(recipe.architecture, build(leaves), data.copies[copy, index])
            loss = functional.cross_entropy(logits, data.labels[index])
            if data.taught is not None:
                # distillation (Hinton, Vinyals, Dean 2015) at temperature 3
                wanted = functional.softmax(data.taught[copy, index] / 3, 1)
                loss = 0.3 * loss + 3 * functional.cross_entropy(logits / 3, wanted)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            with torch.no_grad():
                counts = after_step(step / steps)
            total += loss.item()
        with torch.no_grad():
            made = {name: value.detach().clone() for name, value in build(leaves).items()}
        error = held_out_error(recipe.architecture, made, data)
        if counts and error <= best_error:
            best, best_error = made, error
        print(
            f"{recipe.name} {stage} epoch {epoch + 1}/{epochs}: loss {total * epochs / steps:.4f}, "
            f"held-out error {100 * error:.2f} %, {time.monotonic() - began:.0f} s",
            flush=True,
        )
    return best


def train_dense(recipe: Recipe, data: Data) -> Parameters:
    """Train from He's initialisation."""
    generator = torch.Generator().manual_seed(recipe.seed)
    leaves: Parameters = {}
    for name, shape in recipe.shapes.items():
        fan_in = int(np.prod(shape[1:]))
        leaves[f"{name}.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        leaves[f"{name}.bias"] = torch.zeros(shape[0])
    return train(recipe, data, leaves, epochs=recipe.dense_epochs, rate=2e-3, stage="dense")


def prune(recipe: Recipe, data: Data, dense: Parameters) -> Parameters:
    """Prune in many small steps, retraining all along (cubic schedule: Zhu, Gupta 2017)."""
    leaves = {name: value.clone() for name, value in dense.items()}
    masks = {name: torch.ones_like(leaves[f"{name}.weight"]) for name in recipe.shapes}
    calls = 0

    def after_step(done: float) -> bool:
        nonlocal calls
        calls += 1
        pruned = done >= 0.5
        left = (1 - min(done / 0.5, 1.0)) ** 3
        for name, mask in masks.items():
            weight = leaves[f"{name}.weight"]
            if (calls % 40 == 0 and not pruned) or (pruned and mask.mean() > recipe.density[name]):
                density = recipe.density[name] + (1 - recipe.density[name]) * left
                keep = int(density * mask.numel())
                magnitude = (weight * mask).abs().flatten()
                threshold = magnitude.kthvalue(mask.numel() - keep).values
                mask.copy_((magnitude > threshold).reshape(mask.shape))
            weight.mul_(mask)
        return pruned

    return train(
        recipe,
        data,
        leaves,
        epochs=recipe.prune_epochs,
        rate=1e-3,
        stage="prune",
        after_step=after_step,
    )


def share_weights(recipe: Recipe, data: Data, pruned: Parameters) -> Parameters:
    """Share the weights and fine-tune centroids and biases.

    A centroid's gradient is the sum of its weights' gradients, which is what differentiating
    the look-up gives.
    """
    leaves: Parameters = {}
    places: dict[str, tuple[Tensor, Tensor]] = {}
    for name in recipe.shapes:
        shared = share(pruned[f"{name}.weight"].numpy(), recipe.entries[name])
        indices = torch.from_numpy(shared.indices).long().flatten()
        kept = indices.nonzero()[:, 0]
        places[name] = kept, indices[kept] - 1
        leaves[f"{name}.weight"] = torch.from_numpy(shared.codebook[1:]).float()
        leaves[f"{name}.bias"] = pruned[f"{name}.bias"].clone()

    def build(leaves: Parameters) -> Parameters:
        made = dict(leaves)
        for name, shape in recipe.shapes.items():
            kept, codes = places[name]
            weight = torch.zeros(int(np.prod(shape)))
            weight = weight.index_put((kept,), leaves[f"{name}.weight"][codes])
            made[f"{name}.weight"] = weight.reshape(shape)
        return made

    return train(
        recipe,
        data,
        leaves,
        epochs=recipe.share_epochs,
        rate=3e-4,
        stage="share",
        build=build,
    )


def finish(recipe: Recipe, data: Data, shared: Parameters, mnist: Path) -> CompressedNetwork:
    """Quantise, and measure the integer network on the test images."""
    dense = from_arrays(
        {
            "name": recipe.name,
            "input_shape": [1, 28, 28],
            "input_range": [0, 255],
            "input_scale": 1 / 255,
            "layers": recipe.architecture,
        },
        {name: value.numpy() for name, value in shared.items()},
    )
    # Held-out images choose how much of the activations' range is clipped.
    held = data.held_images.numpy()
    candidates = [
        compress(
            dense,
            data.copies[0, :CALIBRATION, None].numpy(),
            entries=recipe.entries,
            percentile=percentile,
            metadata={"dataset": "MNIST", "trained_by": "scripts/train_lenets.py"},
        )
        for percentile in PERCENTILES
    ]
    errors = [integer_error(made, held, data.held_labels.numpy()) for made in candidates]
    best = int(np.argmin(errors))
    network = candidates[best]
    print(f"percentile {PERCENTILES[best]}: held-out error {100 * errors[best]:.2f} % in integers")

    images = read_idx(mnist / "t10k-images-idx3-ubyte.gz")
    labels = read_idx(mnist / "t10k-labels-idx1-ubyte.gz")
    error = integer_error(network, images, labels)
    print(f"{recipe.name}: test error {100 * error:.2f} % in integers")
    for layer in network.layers:
        if isinstance(layer, WeightedLayer):
            density = np.count_nonzero(layer.dense_weights()) / layer.weights.size
            entries = np.count_nonzero(layer.codebook)
            print(f"  {layer.name}: density {density:.4f}, {entries} values")
    for name, size in funnel(network):
        print(f"  {name}: {size} bytes")
    return replace(network, metadata={**network.metadata, "test_error": error})


def integer_error(network: CompressedNetwork, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of the images that the integer golden classifies wrongly."""
    logits = infer(network, images[:, None], keep=[network.output]).outputs[network.output]
    return float(np.mean(logits[:, :, 0, 0].argmax(1) != labels))


def make_network(recipe: Recipe, teacher: Recipe, mnist: Path, work: Path) -> CompressedNetwork:
    """Go through the stages, skipping those whose files are in ``work``."""

    def stage(recipe: Recipe, name: str, make: Callable[[], Parameters]) -> Parameters:
        path = work / f"{recipe.name}.{name}.npz"
        if not path.exists():
            np.savez(path, **{key: value.detach().numpy() for key, value in make().items()})
        with np.load(path) as file:
            return {key: torch.from_numpy(file[key]) for key in file.files}

    def dense_stage(recipe: Recipe) -> Parameters:
        return stage(
            recipe,
            "dense",
            lambda: train_dense(recipe, make_data(mnist, recipe.copies, recipe.seed)),
        )

    @cache
    def taught(copies: int) -> Data:
        data = make_data(mnist, copies, recipe.seed)
        return teach(data, teacher.architecture, dense_stage(teacher))

    dense = dense_stage(recipe)
    pruned = stage(recipe, "pruned", lambda: prune(recipe, taught(recipe.copies), dense))
    shared = stage(recipe, "shared", lambda: share_weights(recipe, taught(SHARE_COPIES), pruned))
    return finish(recipe, make_data(mnist, 1, recipe.seed), shared, mnist)


def main() -> None:
    """Train, compress and write what was asked for."""
    parser = argparse.ArgumentParser(description="train the built-in networks again")
    parser.add_argument(
        "--mnist", type=Path, required=True, help="folder of the four idx .gz files"
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for the stages; those there are not redone"
    )
    parser.add_argument("--out", type=Path, help="folder for the .thr files; --work if left out")
    parser.add_argument("--network", choices=list(RECIPES), action="append")
    chosen = parser.parse_args()
    torch.set_num_threads(1)  # repeatable sums
    chosen.work.mkdir(parents=True, exist_ok=True)
    for name in chosen.network or RECIPES:
        network = make_network(RECIPES[name], RECIPES["lenet-5"], chosen.mnist, chosen.work)
        path = (chosen.out or chosen.work) / f"{name}.thr"
        save(network, path)
        print(f"{path}: {path.stat().st_size} bytes", flush=True)


if __name__ == "__main__":
    main()
