"""Array: multipliers, processing element, systolic array."""
