"""Entropy and run-length codes of weights and activations."""
