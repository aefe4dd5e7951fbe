"""What quantising a float model takes: samples, and how much of their range is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.golden.errors import ThresherError
from thresher.golden.read.samples import read_samples

__all__ = ["Calibration"]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What quantising a float model takes.

    Parameters
    ----------
    samples
        Real inputs, shape (n, *shape of one input as the model has it).
    files
        Where there are no ``samples``: arrays of such inputs, and pictures, for models of which
        it is known how they take these.
    percentile
        Of the magnitudes of a value's activations that is still represented; 100 is the maximum.
    """

    samples: npt.NDArray[np.floating] | None = None
    files: tuple[Path, ...] = ()
    percentile: float = 100.0

    def inputs(
        self, shape: tuple[int, ...], image: Mapping[str, Any] | None = None
    ) -> npt.NDArray[np.floating]:
        """Return the samples, (n, *shape); a reader calls it.

        Parameters
        ----------
        shape
            Of one input as the model has it.
        image
            How a picture becomes an input of shape (C, H, W), as
            :func:`thresher.golden.read.pictures.read_picture` has it; None where it is not known.

        Raises
        ------
        ThresherError
            If a file cannot be read, or the samples are no such inputs.
        """
        if self.samples is None:
            return read_samples(self.files, image, shape)
        if self.samples.shape[1:] != shape or not len(self.samples):
            wanted = ", ".join(map(str, shape))
            raise ThresherError(
                f"samples have shape {self.samples.shape}: the network takes (n, {wanted})"
            )
        return self.samples
