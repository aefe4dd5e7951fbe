"""From dense weights to a compressed network: prune, share, quantise, code."""
