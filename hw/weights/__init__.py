"""Weights: bit reader, Huffman decoder, zero-run expansion, loader of a column."""
