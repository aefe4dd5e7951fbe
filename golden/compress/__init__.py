"""From a dense network to a compressed one: prune, share, quantise, and count the bytes."""
