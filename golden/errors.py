"""The error that a user sees as one line: what is wrong, why, and what to do."""

from __future__ import annotations

__all__ = ["ThresherError"]


class ThresherError(ValueError):
    """Bad use, bad input or a missing tool; the command line prints it and exits with 2."""
