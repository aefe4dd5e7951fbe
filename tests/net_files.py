"""Deep Compression's files, written by their description, for tests."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["PROTOTXT", "SHAPES", "Weights", "coded", "random_weights", "write"]

PROTOTXT = """
name: "Tiny"  # a comment: { not read }
input: "data"
input_shape { dim: 1 dim: 3 dim: 13 dim: 12 }
layer { name: "c1" type: "Convolution" bottom: "data" top: "c1"
  convolution_param { num_output: 8 kernel_size: 3 stride: 2 pad: 1
    weight_filler { type: "xavier" } } }
layer { name: "r1" type: "ReLU" bottom: "c1" top: "c1" }
layer { name: "p1" type: "Pooling" bottom: "c1" top: "p1"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "left" type: "Convolution" bottom: "p1" top: "left"
  convolution_param { num_output: 4 kernel_h: 1 kernel_w: 3 pad_h: 0 pad_w: 1 group: 2 } }
layer { name: "left_relu" type: "ReLU" bottom: "left" top: "left" }
layer { name: "right" type: "Convolution" bottom: "p1" top: "right"
  convolution_param { num_output: 5 kernel_size: 1 } }
layer { name: "both" type: "Concat" bottom: "left" bottom: "right" top: "both" }
layer { name: "drop" type: "Dropout" bottom: "both" top: "both"
  dropout_param: { dropout_ratio: 0.5 } }
layer { name: "last" type: "Convolution" bottom: "both" top: "last"
  convolution_param { num_output: 6 kernel_size: 1 pad: 1 } }
layer { name: "last_relu" type: "ReLU" bottom: "last" top: "last" }
layer { name: "mean" type: "Pooling" bottom: "last" top: "mean"
  pooling_param { pool: AVE global_pooling: true } }
layer { name: "prob" type: "Softmax" bottom: "mean" top: "prob" }
"""
SHAPES = {"c1": (8, 3, 3, 3), "left": (4, 4, 1, 3), "right": (5, 8, 1, 1), "last": (6, 9, 1, 1)}

Weights = dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]


def random_weights(rng: np.random.Generator, density: float = 0.3) -> Weights:
    made: Weights = {}
    for name, shape in SHAPES.items():
        values = rng.normal(size=20).astype(np.float32)
        weight = rng.choice(values, size=shape) * (rng.random(shape) < density)
        bias = (rng.normal(size=shape[0]) / 5).astype(np.float32)
        made[name] = weight.astype(np.float32), bias
    return made


def coded(weights: Weights) -> bytes:
    """A .net file, entry by entry."""
    counts, parts = [], []
    for weight, bias in weights.values():
        codebook = [0.0, *sorted({float(value) for value in weight.ravel() if value})]
        entries, zeros = [], 0
        for value in weight.ravel().tolist():
            if value:
                entries.append((zeros, codebook.index(value)))
                zeros = 0
            elif zeros == 15:
                entries.append((15, 0))
                zeros = 0
            else:
                zeros += 1
        counts.append(len(entries))
        gaps = [gap for gap, _ in entries] + [0] * (len(entries) % 2)
        parts += [
            struct.pack("<256f", *codebook, *[0.0] * (256 - len(codebook))),
            struct.pack(f"<{len(bias)}f", *bias),
            bytes(code for _, code in entries),
            bytes(low | high << 4 for low, high in zip(gaps[::2], gaps[1::2], strict=True)),
        ]
    return struct.pack(f"<{len(counts)}I", *counts) + b"".join(parts)


def write(folder: Path, net: bytes, prototxt: str | None = PROTOTXT) -> Path:
    (folder / "tiny.net").write_bytes(net)
    if prototxt is not None:
        (folder / "tiny.prototxt").write_text(prototxt)
    return folder / "tiny.net"
