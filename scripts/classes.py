"""What a classifying network says: the classes of its greatest outputs, with their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    from thresher.golden.network import CompressedNetwork

__all__ = ["print_classes", "top"]

SHOWN = 5
IN_FULL = 10  # inputs


def top(
    network: CompressedNetwork,
    output: npt.NDArray[Any],
    names: list[str] | None,
    count: int = SHOWN,
) -> list[dict[str, Any]]:
    """Return the classes of the greatest outputs, with their probabilities.

    Parameters
    ----------
    network
        Its metadata has the step of the outputs.
    output
        Integers of any shape, one a class.
    names
        Of the classes, or None.
    count
        How many.

    Returns
    -------
    classes
        ``index``, ``name`` (None if not known) and ``probability``, a softmax that the host takes;
        None where the step of the outputs is not known, or they are a function's values, as a
        sigmoid's.
    """
    import numpy as np  # noqa: PLC0415

    from thresher.golden.network import Lookup  # noqa: PLC0415

    values = np.asarray(output, dtype=np.float64).ravel()
    said = network.metadata.get("output")
    known = said if isinstance(said, dict) else {}
    step = known.get("scale")
    shares = None
    is_function = isinstance(network.layers[-1], Lookup) and not known.get("softmax")
    if isinstance(step, float | int) and not is_function:
        exponentials = np.exp((values - values.max()) * step)
        shares = exponentials / exponentials.sum()
    order = np.argsort(-values, kind="stable")[:count].tolist()
    return [
        {
            "index": index,
            "name": names[index] if names else None,
            "probability": None if shares is None else round(float(shares[index]), 4),
        }
        for index in order
    ]


def print_classes(
    found: Sequence[list[dict[str, Any]]], names: list[str], labels: Sequence[int] | None
) -> None:
    """Print the classes of each input: one input's in lines, several inputs' a line each.

    Parameters
    ----------
    found
        Of each input, what :func:`top` returns.
    names
        Of all classes.
    labels
        What the inputs are, if known.
    """
    if len(found) == 1:
        print("predictions")
        for entry in found[0]:
            print(f"  {said(entry, gap='  ')}")
    else:
        whole = len(found) <= IN_FULL
        print("predictions" if whole else "predictions (--json has five of each)")
        width = len(str(len(found) - 1))
        for number, entries in enumerate(found):
            shown = ", ".join(said(entry) for entry in (entries if whole else entries[:1]))
            print(f"  {number:{width}}  {shown}{is_label(names, labels, number)}")
    if labels is not None:
        right = sum(
            entries[0]["index"] == label for entries, label in zip(found, labels, strict=True)
        )
        print(f"{right} of {len(found)} as labelled")


def said(entry: dict[str, Any], gap: str = " ") -> str:
    """Return a class as text: its probability, if known, and its name."""
    share = "" if entry["probability"] is None else f"{entry['probability']:.3f}{gap}"
    name = f"class {entry['index']}" if entry["name"] is None else entry["name"]
    return f"{share}{name}"


def is_label(names: list[str], labels: Sequence[int] | None, number: int) -> str:
    """Return what an input is, as text behind what the network says."""
    if labels is None:
        return ""
    label = labels[number]
    return f"; is {names[label] if 0 <= label < len(names) else f'class {label}'}"
