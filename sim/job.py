"""A run of a machine, as every bench takes it, and what a bench saw of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thresher.golden.config import Config

__all__ = ["Image", "Job", "Seen"]

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Job:
    """What a bench needs to know of a run; ``sim.machine.run_machine`` tells what it means."""

    config: Config
    image: Image
    program: int
    timeout_cycles: int
    latency: int
    stall: int


@dataclass(frozen=True)
class Seen:
    """What a bench saw; the names are those of the signals of ``bench.sv``."""

    was_done: int
    was_error: int
    outside: int
    refused: int
    bad_address: int
    cycles: int
    code: int
    layer: int
    lane: int
    position: int
    seconds: float
