"""Output stage of a column: requantise, clip, pool."""
