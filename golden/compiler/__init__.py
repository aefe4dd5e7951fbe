"""From a compressed network to the memory image that the machine runs."""
