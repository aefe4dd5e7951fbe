"""Memory port and its arbiter."""
