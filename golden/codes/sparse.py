"""Compressed sparse rows and columns (CSR, CSC): views of a weight matrix, and their sizes.

They are what the Huffman-coded streams are compared with. As in EIE, an index may be relative to
the one before it; such an entry is coded by :func:`thresher.golden.codes.weights.zero_runs`.

Reference
---------
W. F. Tinney, J. W. Walker, "Direct Solutions of Sparse Network Equations by Optimally Ordered
Triangular Factorization", Proceedings of the IEEE 55(11), 1967. S. Han et al., "EIE: Efficient
Inference Engine on Compressed Deep Neural Network", ISCA 2016 (CSC of compressed weights).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from thresher.golden.integers import integers

__all__ = ["Order", "SparseMatrix"]

Int64Array = npt.NDArray[np.int64]


class Order(StrEnum):
    """Which lines of a matrix are compressed."""

    CSR = "csr"
    CSC = "csc"


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseMatrix:
    """A matrix as the non-zero values of its lines, which are rows (CSR) or columns (CSC).

    Parameters
    ----------
    order
        Which lines.
    shape
        (rows, columns) of the matrix.
    pointers
        int64 of shape ``(lines + 1,)``: line ``k`` has the entries ``pointers[k]`` to
        ``pointers[k + 1] - 1``.
    indices
        int64 of shape ``(n,)``: place of each entry in its line, increasing within the line.
    values
        int64 of shape ``(n,)``.

    Raises
    ------
    ValueError
        If the arrays are not those of a matrix of this shape.

    Examples
    --------
    >>> matrix = SparseMatrix.from_dense([[0, 5, 0], [7, 0, -1]], Order.CSC)
    >>> matrix.pointers.tolist(), matrix.indices.tolist(), matrix.values.tolist()
    ([0, 1, 2, 3], [1, 0, 1], [7, 5, -1])
    >>> matrix.to_dense().tolist()
    [[0, 5, 0], [7, 0, -1]]
    >>> matrix.size_bits(value_bits=8), matrix.size_bits(value_bits=8, index_bits=4)
    (35, 44)
    """

    order: Order
    shape: tuple[int, int]
    pointers: Int64Array
    indices: Int64Array
    values: Int64Array

    def __post_init__(self) -> None:
        if self.indices.ndim != 1 or self.indices.shape != self.values.shape:
            raise ValueError(
                f"indices and values must share a shape (n,), not {self.indices.shape}, "
                f"{self.values.shape}"
            )
        if self.pointers.shape != (self.lines + 1,):
            raise ValueError(f"pointers must have shape ({self.lines + 1},)")
        lengths = np.diff(self.pointers)
        if self.pointers[0] != 0 or self.pointers[-1] != self.values.size or lengths.min() < 0:
            raise ValueError(f"pointers must rise from 0 to {self.values.size}")
        if self.values.size:
            if self.indices.min() < 0 or self.indices.max() >= self.line_length:
                raise ValueError(f"indices must be in 0..{self.line_length - 1}")
            inside = np.diff(np.repeat(np.arange(self.lines), lengths)) == 0
            if np.any(np.diff(self.indices)[inside] <= 0):
                raise ValueError("indices must increase within a line")

    @property
    def lines(self) -> int:
        """Number of lines."""
        return self.shape[0] if self.order is Order.CSR else self.shape[1]

    @property
    def line_length(self) -> int:
        """Places in a line."""
        return self.shape[1] if self.order is Order.CSR else self.shape[0]

    @classmethod
    def from_dense(cls, matrix: npt.ArrayLike, order: Order) -> SparseMatrix:
        """Take the non-zero values of an integer matrix of shape ``(rows, columns)``.

        Raises
        ------
        TypeError
            If the values are not integers.
        ValueError
            If it is no matrix, or has no rows or columns.
        """
        array = integers("values", matrix)
        if array.ndim != 2 or array.size == 0:
            raise ValueError(f"matrix must have shape (rows, columns), not {array.shape}")
        lines = array if order is Order.CSR else array.T
        line, index = np.nonzero(lines)
        counts = np.bincount(line, minlength=len(lines))
        return cls(
            order=order,
            shape=(array.shape[0], array.shape[1]),
            pointers=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            indices=index.astype(np.int64),
            values=lines[line, index].astype(np.int64),
        )

    def to_dense(self) -> Int64Array:
        """Return the matrix, int64 of shape ``shape``."""
        lines = np.zeros((self.lines, self.line_length), dtype=np.int64)
        lines[np.repeat(np.arange(self.lines), np.diff(self.pointers)), self.indices] = self.values
        return lines if self.order is Order.CSR else lines.T.copy()

    def size_bits(
        self, *, value_bits: int, index_bits: int | None = None, pointer_bits: int | None = None
    ) -> int:
        """Size in memory when each kind of entry has one width.

        Parameters
        ----------
        value_bits
            Bits of a value, or of a codebook index in its place.
        index_bits
            Bits of an index; by default the fewest that hold every place of a line.
        pointer_bits
            Bits of a pointer; by default the fewest that hold the number of entries.

        Raises
        ------
        ValueError
            If an index or a pointer does not fit its width.
        """
        least_index = (self.line_length - 1).bit_length()
        least_pointer = self.values.size.bit_length()
        index_bits = least_index if index_bits is None else index_bits
        pointer_bits = least_pointer if pointer_bits is None else pointer_bits
        largest = int(self.indices.max()) if self.indices.size else 0
        if index_bits < largest.bit_length() or pointer_bits < least_pointer:
            raise ValueError(
                f"indices up to {largest} and pointers up to {self.values.size} do not fit "
                f"{index_bits} and {pointer_bits} bits"
            )
        return self.values.size * (value_bits + index_bits) + self.pointers.size * pointer_bits
