"""Inputs of an ONNX node, as its operation needs them: constant, known, or a tensor."""

from __future__ import annotations

import numpy as np

from thresher.golden.read.onnx.graph import Node
from thresher.golden.read.onnx.values import (
    Array,
    Floats,
    Refusal,
    Scores,
    Tensor,
    Unclear,
    Unknown,
    Value,
    Weights,
)

__all__ = [
    "array_of",
    "bias_of",
    "check_known",
    "constant_of",
    "is_constant",
    "one_a_channel",
    "optional",
    "real_of",
    "tensor_of",
]


def constant_of(node: Node) -> Array:
    """Return what a Constant node gives."""
    attributes = node.attributes
    for name, kind in (("value_float", np.float32), ("value_floats", np.float32),
                       ("value_int", np.int64), ("value_ints", np.int64)):  # fmt: skip
        if name in attributes:
            return np.array(attributes[name], kind)
    return np.asarray(attributes["value"])


def is_constant(value: Value | None) -> bool:
    """Whether a value is known."""
    return isinstance(value, np.ndarray | Weights)


def tensor_of(value: Value | None) -> Tensor:
    """Return a value that is a tensor of activations."""
    if not isinstance(value, Tensor):
        raise Refusal("its input is constant", "fold it at export")
    return value


def array_of(value: Value | None, what: str) -> Array:
    """Return a value that is a plain constant."""
    if isinstance(value, Unknown):
        raise Unclear
    if not isinstance(value, np.ndarray):
        raise Refusal(f"its {what} is not constant", "give it as an initializer")
    return value


def optional(value: Value | None) -> Array | None:
    """Return a value that is a plain constant, or left out."""
    return None if value is None else array_of(value, "parameter")


def real_of(value: Value | None) -> Array:
    """Return the real values of a constant."""
    return value.real() if isinstance(value, Weights) else array_of(value, "constant")


def check_known(value: Tensor) -> None:
    """Go on only if the node that computes a value is sound, and no softmax."""
    if isinstance(value, Unknown):
        raise Unclear
    if isinstance(value, Scores):
        raise Refusal("it comes after a softmax, which the host takes", "end the model there")


def one_a_channel(weights: Weights) -> Floats:
    """Return the scale of each output channel of weights."""
    rows = weights.scale.reshape(len(weights.scale), -1)
    if (rows != rows[:, :1]).any():
        raise Refusal(
            "its weights have several scales in one output channel",
            "quantise weights with one scale, or one an output channel",
        )
    low, high = weights.values.min(), weights.values.max()
    if np.issubdtype(weights.values.dtype, np.integer) and (low < -256 or high > 255):
        raise Refusal(
            f"its weights reach {low}..{high} without their zero point",
            "quantise them to int8 or uint8",
        )
    return rows[:, 0].astype(np.float64)


def bias_of(value: Value | None, channels: int) -> Floats:
    """Return a real bias a channel, zeros if there is none."""
    if value is None:
        return np.zeros(channels)
    real = value.values * value.scale if isinstance(value, Weights) else array_of(value, "bias")
    if not np.issubdtype(real.dtype, np.floating):
        raise Refusal(f"its bias is of {real.dtype}", "put a DequantizeLinear before it")
    if real.size not in {1, channels}:
        raise Refusal(f"its bias has shape {real.shape}", f"give one of {channels} values")
    return np.broadcast_to(real.ravel(), (channels,)).astype(np.float64)
