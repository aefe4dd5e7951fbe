"""CSR and CSC views against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from thresher.golden.codes.sparse import Order, SparseMatrix

orders = st.sampled_from(list(Order))


@given(orders, st.integers(1, 20), st.integers(1, 20), st.integers(0, 10), st.integers(0, 2**32))
def test_views_equal_scipys_and_read_back(
    order: Order, rows: int, columns: int, tenths: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = (rows, columns)
    dense = rng.integers(-100, 100, shape) * (rng.random(shape) < tenths / 10)
    ours = SparseMatrix.from_dense(dense, order)
    theirs = {Order.CSR: scipy.sparse.csr_array, Order.CSC: scipy.sparse.csc_array}[order](dense)
    assert np.array_equal(ours.pointers, theirs.indptr)
    assert np.array_equal(ours.indices, theirs.indices)
    assert np.array_equal(ours.values, theirs.data)
    assert np.array_equal(ours.to_dense(), dense)


def test_sizes_count_values_indices_and_pointers() -> None:
    matrix = SparseMatrix.from_dense(np.eye(300, 784, dtype=np.int64), Order.CSR)
    assert matrix.size_bits(value_bits=5) == 300 * (5 + 10) + 301 * 9
    assert matrix.size_bits(value_bits=8, index_bits=16, pointer_bits=32) == 300 * 24 + 301 * 32
    with pytest.raises(ValueError, match="indices up to 299"):
        matrix.size_bits(value_bits=8, index_bits=8)
    with pytest.raises(ValueError, match="pointers up to 300 do not fit"):
        matrix.size_bits(value_bits=8, pointer_bits=8)


def test_only_integer_matrices_are_taken() -> None:
    with pytest.raises(TypeError, match="must be integers"):
        SparseMatrix.from_dense(np.eye(2), Order.CSR)
    with pytest.raises(ValueError, match=r"must have shape \(rows, columns\), not \(3,\)"):
        SparseMatrix.from_dense([1, 2, 3], Order.CSR)


@pytest.mark.parametrize(
    ("pointers", "indices", "values", "message"),
    [
        ([0, 1], [0], [1], "pointers must have shape"),
        ([0, 2, 1], [0], [1], "pointers must rise"),
        ([0, 1, 2], [0], [1], "pointers must rise"),
        ([0, 1, 1], [3], [1], "indices must be in"),
        ([0, 2, 2], [1, 1], [1, 1], "indices must increase"),
        ([0, 1, 1], [0], [1, 2], "share a shape"),
    ],
)
def test_inconsistent_arrays_are_refused(
    pointers: list[int], indices: list[int], values: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SparseMatrix(
            order=Order.CSR,
            shape=(2, 3),
            pointers=np.array(pointers),
            indices=np.array(indices),
            values=np.array(values),
        )


def test_indices_may_fall_from_one_line_to_the_next() -> None:
    dense = [[0, 0, 1], [0, 0, 0], [1, 0, 1]]
    assert SparseMatrix.from_dense(dense, Order.CSC).to_dense().tolist() == dense
