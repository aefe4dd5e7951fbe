"""The jitted loops, compiled on first use."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Any

from thresher.golden.errors import ThresherError

__all__ = ["JITTED", "kernel"]

JITTED = [
    *("columns", "compiled", "fetch", "kernel", "lanes", "latencies", "port", "script", "state"),
    *("streams", "vectors"),
]
"""Modules that the machine code depends on."""


def kernel() -> Any:
    """Return the jitted loops.

    Their machine code is kept in ``~/.cache/thresher/loops``, by a hash of their sources: numba
    itself looks at the file of a function only, not at what it calls nor at the latencies.

    Raises
    ------
    ThresherError
        If numba is missing.
    """
    try:
        import numba  # noqa: F401, PLC0415
    except ImportError as error:
        raise ThresherError(
            "numba is missing, and the cycle model is compiled by it: pip install thresher[model]"
        ) from error
    return _loops()


@cache
def _loops() -> Any:
    from numba.core import config  # noqa: PLC0415

    sources = [Path(__file__).parent / f"{name}.py" for name in JITTED]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:24]
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("THRESHER_CACHE") or Path(base) / "thresher") / "loops" / digest
    before = config.CACHE_DIR  # type: ignore[attr-defined]
    config.CACHE_DIR = before or str(folder)  # type: ignore[attr-defined]
    try:
        from thresher.golden.cycles import kernel as jitted  # noqa: PLC0415
    finally:
        config.CACHE_DIR = before  # type: ignore[attr-defined]
    return jitted
