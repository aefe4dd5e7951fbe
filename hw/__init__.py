"""Hardware: Amaranth components, a folder a family."""
