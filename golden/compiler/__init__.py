"""From a compressed network to the memory image that the machine runs."""

from thresher.golden.compiler.passes import FitError
from thresher.golden.compiler.program import Program, compile_network

__all__ = ["FitError", "Program", "compile_network"]
