"""Weight streams: Huffman-coded pairs of a zero run and a codebook index.

Two containers hold the pairs of :mod:`pairs`: that of :mod:`layer`, a layer in a file, and that of
:mod:`column`, what the hardware's weight loader reads, encoded by :mod:`column_encoder` and decoded
by :mod:`column_decoder`.

Reference
---------
S. Han, H. Mao, W. J. Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning,
Trained Quantization and Huffman Coding", ICLR 2016 (codebook indices and relative positions, each
with its own Huffman code).
"""

from thresher.golden.codes.weights.column import (
    ColumnRow,
    ColumnStream,
    ColumnTables,
    column_tables,
)
from thresher.golden.codes.weights.column_decoder import (
    Column,
    ColumnLoad,
    RowTaps,
    decode_column,
    read_tables,
)
from thresher.golden.codes.weights.column_encoder import encode_column
from thresher.golden.codes.weights.layer import best_format, decode_layer, encode_layer
from thresher.golden.codes.weights.pairs import WeightFormat, expand_runs, zero_runs

__all__ = [
    "Column",
    "ColumnLoad",
    "ColumnRow",
    "ColumnStream",
    "ColumnTables",
    "RowTaps",
    "WeightFormat",
    "best_format",
    "column_tables",
    "decode_column",
    "decode_layer",
    "encode_column",
    "encode_layer",
    "expand_runs",
    "read_tables",
    "zero_runs",
]
