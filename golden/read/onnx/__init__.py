"""ONNX models: of integers as they are, of floats with calibration samples."""

from thresher.golden.read.onnx.model import read_onnx, read_onnx_dense

__all__ = ["read_onnx", "read_onnx_dense"]
