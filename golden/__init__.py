"""Reference models in integer numpy, the compressed network, its compiler; free of hardware."""
