"""TFLite models of int8 or uint8: their graph as layers that compute the same integers."""

from thresher.golden.read.tflite.model import read_tflite

__all__ = ["read_tflite"]
