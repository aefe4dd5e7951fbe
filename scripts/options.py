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
    "check_json",
    "make_config",
    "plural",
    "print_table",
    "progress_bar",
    "read_array",
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
    """Return the inputs that ``spec`` names (a .npy file, or mnist:FIRST-LAST), and labels.

    One input alone will do, and maps of one channel need no axis for it.
    """
    import numpy as np  # noqa: PLC0415

    from thresher.golden.builtin import mnist_digits  # noqa: PLC0415
    from thresher.golden.errors import ThresherError  # noqa: PLC0415

    labels = None
    if spec == "mnist" or spec.startswith("mnist:"):
        inputs, labels = mnist_digits(spec)
    else:
        inputs = read_array(Path(spec))
    channels, height, width = network.input_shape
    if inputs.shape == network.input_shape:
        inputs = inputs[None]
    elif channels == 1 and inputs.ndim in {2, 3} and inputs.shape[-2:] == (height, width):
        inputs = inputs.reshape(-1, 1, height, width)
    if inputs.ndim != 4 or inputs.shape[1:] != network.input_shape or len(inputs) == 0:
        wanted = ", ".join(str(size) for size in network.input_shape)
        raise ThresherError(
            f"{spec} has shape {inputs.shape}: network {network.name} takes (n, {wanted})"
        )
    low, high = network.input_range
    if not np.issubdtype(inputs.dtype, np.integer):
        raise ThresherError(f"{spec} holds {inputs.dtype}: give integers in {low}..{high}")
    least, most = int(inputs.min()), int(inputs.max())
    if least < low or most > high:
        raise ThresherError(
            f"{spec} has values in {least}..{most}: network {network.name} takes {low}..{high}"
        )
    return inputs.astype(np.int64), labels


def read_array(path: Path) -> npt.NDArray[Any]:
    """Return the array of a .npy file."""
    import numpy as np  # noqa: PLC0415

    from thresher.golden.errors import ThresherError  # noqa: PLC0415

    write = "write one array of integers with numpy.save"
    try:
        with path.open("rb") as file:
            magic = file.read(6)
            if magic[:4] == b"PK\x03\x04":
                raise ThresherError(f"{path} is an archive, .npz or the like: {write}")
            if magic != b"\x93NUMPY":
                raise ThresherError(f"{path} is not a .npy file: {write}")
            file.seek(0)
            array = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise ThresherError(
            f"{path}: there is no such file; give a .npy file or mnist:0-9"
        ) from None
    except OSError as error:
        raise ThresherError(f"{path} cannot be read ({error.strerror}): {write}") from None
    except ThresherError:
        raise
    except (ValueError, EOFError, SyntaxError) as error:
        raise ThresherError(f"{path} cannot be read as a .npy file ({error}): {write}") from None
    assert isinstance(array, np.ndarray)
    return array


def check_json(path: Path | None) -> None:
    """Raise if --json cannot be written; called before the work that the figures are of."""
    from thresher.golden.errors import ThresherError  # noqa: PLC0415

    if path is None or str(path) == "-":
        return
    if path.is_dir():
        raise ThresherError(f"--json {path} is a folder: give a file")
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ThresherError(
            f"--json {path} cannot be written ({error.strerror}): give another place"
        ) from None


def write_json(path: Path | None, figures: Any) -> None:
    """Write ``figures`` where --json says, whole or not at all."""
    if path is None:
        return
    text = json.dumps(figures, indent=2) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
        return
    check_json(path)
    if path.exists() and not path.is_file():  # /dev/stdout, a pipe
        path.write_text(text)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).rename(path)
    finally:
        Path(name).unlink(missing_ok=True)


def plural(count: int, thing: str) -> str:
    """Return "1 input", "2 inputs"."""
    return f"{count} {thing}" + ("" if count == 1 else "s")


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
