"""Options that several verbs share, and how verbs talk to their user."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    import numpy.typing as npt
    from rich.progress import Progress

    from thresher.golden.config import Config
    from thresher.golden.network import CompressedNetwork

__all__ = [
    "JsonFile",
    "Lanes",
    "Multiplier",
    "Settings",
    "SimulatorName",
    "SkipMode",
    "make_config",
    "print_table",
    "progress_bar",
    "read_inputs",
    "write_json",
]

Lanes = Literal[1, 2, 4, 8, 16]
Multiplier = Literal["exact", "shift", "shift1", "lut"]
SkipMode = Literal["none", "gate", "weights", "activations", "both"]
SimulatorName = Literal["verilator", "icarus", "amaranth"]
JsonFile = Annotated[
    Path | None,
    Parameter(
        name="--json",
        help="Write the figures to this file; - is the terminal.",
        allow_leading_hyphen=True,
    ),
]
Settings = Annotated[
    list[str] | None,
    Parameter(
        name="--set",
        help="Another parameter of the machine, NAME=VALUE, e.g. tap_depth=8192; repeatable.",
    ),
]


def make_config(lanes: int, multiplier: str, settings: Sequence[str] | None) -> Config:
    """Return the machine that the options ask for."""
    from dataclasses import fields  # noqa: PLC0415

    from thresher.golden.config import Config, MultiplierKind  # noqa: PLC0415
    from thresher.golden.errors import ThresherError  # noqa: PLC0415

    names = {field.name for field in fields(Config)} - {"lanes", "multiplier"}
    values: dict[str, Any] = {"lanes": lanes, "multiplier": MultiplierKind(multiplier)}
    for setting in settings or []:
        name, separator, text = setting.partition("=")
        if not separator or name not in names:
            raise ThresherError(
                f"--set {setting}: give NAME=VALUE, NAME one of {', '.join(sorted(names))}"
            )
        try:
            values[name] = int(text, 0)
        except ValueError:
            raise ThresherError(f"--set {setting}: {text!r} is not an integer") from None
    return Config(**values)


def read_inputs(
    spec: str, network: CompressedNetwork
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Return the inputs that ``spec`` names (a .npy file, or mnist:FIRST-LAST), and labels."""
    import numpy as np  # noqa: PLC0415

    from thresher.golden.builtin import mnist_digits  # noqa: PLC0415
    from thresher.golden.errors import ThresherError  # noqa: PLC0415

    labels = None
    if spec == "mnist" or spec.startswith("mnist:"):
        inputs, labels = mnist_digits(spec)
    else:
        try:
            inputs = np.load(spec, allow_pickle=False)
        except FileNotFoundError:
            raise ThresherError(
                f"{spec}: there is no such file; give a .npy file or mnist:0-9"
            ) from None
        except (OSError, ValueError, EOFError) as error:
            raise ThresherError(f"{spec} cannot be read as a .npy file: {error}") from None
        if not isinstance(inputs, np.ndarray):
            raise ThresherError(f"{spec} has several arrays: give a .npy file with one")
    if inputs.shape == network.input_shape:
        inputs = inputs[None]
    if inputs.ndim != 4 or inputs.shape[1:] != network.input_shape or len(inputs) == 0:
        wanted = ", ".join(str(size) for size in network.input_shape)
        raise ThresherError(
            f"{spec} has shape {inputs.shape}: network {network.name} takes (n, {wanted})"
        )
    if not np.issubdtype(inputs.dtype, np.integer):
        raise ThresherError(
            f"{spec} holds {inputs.dtype}: give integers in"
            f" {network.input_range[0]}..{network.input_range[1]}"
        )
    return inputs, labels


def write_json(path: Path | None, figures: Any) -> None:
    """Write ``figures`` where --json says, whole or not at all."""
    if path is None:
        return
    text = json.dumps(figures, indent=2) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
        return
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent or None)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    mask = os.umask(0)
    os.umask(mask)
    Path(name).chmod(0o666 & ~mask)
    Path(name).rename(path)


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[object]], *, left: int = 1
) -> None:
    """Print a table; columns after the first ``left`` ones are numbers, to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[k]) for line in [list(header), *texts]) for k in range(len(header))]
    print(title)
    for line in [list(header), *texts]:
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  " + "  ".join(cells).rstrip())


@contextmanager
def progress_bar(total: int) -> Iterator[Any]:
    """A bar of ``total`` steps on the error stream: call the result with what begins now."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    console = Console(stderr=True)
    bar: Progress
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("begin", total=total)
        begun = False

        def begin(what: str) -> None:
            nonlocal begun
            bar.update(task, description=what, advance=1 if begun else 0)
            begun = True

        yield begin
