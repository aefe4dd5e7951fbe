"""``thresher compare``: compare a run with golden again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from thresher.scripts.options import JsonFile, check_json, plural, progress_bar, write_json

__all__ = ["compare"]


def compare(run: Path, /, *, json: JsonFile = None) -> int:
    """Compare every layer, value and counter of a run with golden; exit 1 if any differs.

    Parameters
    ----------
    run
        A directory that `thresher simulate -o` wrote.
    """
    from thresher.sim import compare as comparing  # noqa: PLC0415  # heavy

    check_json(json)
    with progress_bar(1) as progress:
        progress("compare with golden")
        result = comparing.compare(run)
    write_json(json, asdict(result))
    if str(json) != "-":
        print(
            f"{plural(len(result.layers), 'layer')}: {result.values_compared:,} values compared,"
            f" {result.values_different} differ;"
            f" {result.counters_compared} counters, {result.counters_different} differ"
        )
        if result.first:
            print(f"first difference: {result.first}")
    return 0 if result.equal else 1
