"""Options that several verbs share, and how verbs talk to their user."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
    "Classes",
    "JsonFile",
    "Lanes",
    "Multiplier",
    "Preset",
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
Classes = Annotated[
    Path | None,
    Parameter(
        name=["--classes", "--labels"],
        help="Names of the classes: a text file, one a line in the order of the outputs.",
    ),
]
Preset = Annotated[
    Literal["ulx3s"] | None,
    Parameter(help="Sizes for a device: ulx3s, an ECP5-85F."),
]
Settings = Annotated[
    list[str] | None,
    Parameter(
        name="--set",
        negative="",
        help="Another parameter of the machine, NAME=VALUE, e.g. tap_depth=8192; repeatable.",
    ),
]


def make_config(
    lanes: int, multiplier: str, settings: Sequence[str] | None, preset: str | None = None
) -> Config:
    """Return the machine that the options ask for; settings go over those of the preset."""
    from dataclasses import fields  # noqa: PLC0415

    from thresher.golden.config import Config, MultiplierKind, preset_sizes  # noqa: PLC0415
    from thresher.golden.errors import ThresherError  # noqa: PLC0415

    names = {field.name for field in fields(Config)} - {"lanes", "multiplier"}
    values: dict[str, Any] = {"lanes": lanes, "multiplier": MultiplierKind(multiplier)}
    values |= preset_sizes(preset, lanes) if preset else {}
    for setting in settings or []:
        name, separator, text = setting.partition("=")
        if name in {"lanes", "multiplier"}:
            raise ThresherError(f"--set {setting}: use --{name}")
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
    """Return the inputs that ``spec`` names, as the network takes them, and labels.

    Parameters
    ----------
    spec
        ``mnist:FIRST-LAST``; or a .npy or .npz file, ``:FIRST-LAST`` behind it for some of its
        inputs; or a picture.
    network
        Says what types, shapes and layouts an array may have: see
        :func:`thresher.golden.read.inputs.network_inputs`.

    Returns
    -------
    inputs, labels
        int64 (n, C, H, W). Labels are those of the digits, or the array ``y`` of an .npz file.
    """
    from thresher.golden.builtin import mnist_digits  # noqa: PLC0415
    from thresher.golden.errors import ThresherError  # noqa: PLC0415
    from thresher.golden.read.inputs import network_inputs, quantised  # noqa: PLC0415
    from thresher.golden.read.pictures import SUFFIXES  # noqa: PLC0415
    from thresher.golden.read.samples import read_arrays  # noqa: PLC0415

    if spec == "mnist" or spec.startswith("mnist:"):
        digits, labels = mnist_digits(spec)
        if digits[0].size != math.prod(network.input_shape):
            wanted = ", ".join(str(size) for size in network.input_shape)
            raise ThresherError(
                f"network {network.name} takes (n, {wanted}), not digits: give its inputs,"
                " --input X.npy"
            )
        return network_inputs(digits, network, spec), labels
    if Path(spec).suffix.lower() in SUFFIXES:
        return quantised(_read_picture(Path(spec), network)[None], network, spec), None
    arrays = read_arrays(spec)
    x, y = arrays["x"], arrays.get("y")
    inputs = network_inputs(x, network, spec)
    if y is None or y.shape != x.shape[:1] or y.dtype.kind not in "iu":
        return inputs, None
    return inputs, y.astype("int64")


def read_array(path: Path) -> npt.NDArray[Any]:
    """Return the array of a .npy file, or the array x or only array of an .npz file."""
    from thresher.golden.read.samples import read_arrays  # noqa: PLC0415

    return read_arrays(path)["x"]


def _read_picture(path: Path, network: CompressedNetwork) -> npt.NDArray[Any]:
    """Return a picture as a real input (C, H, W)."""
    from thresher.golden.errors import ThresherError  # noqa: PLC0415
    from thresher.golden.read.pictures import read_picture  # noqa: PLC0415  # needs its extra

    image = network.metadata.get("image")
    if not isinstance(image, Mapping):
        raise ThresherError(
            f"{path}: network {network.name} does not say how it takes pictures; give a .npy file"
        )
    return read_picture(path, image, network.input_shape)


def make_folder_of(target: Path) -> None:
    """Make the folders above a file that -o names."""
    from thresher.golden.errors import ThresherError  # noqa: PLC0415

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ThresherError(
            f"{target} cannot be written ({error.strerror}): give another place (-o)"
        ) from None


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
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    left: int = 1,
    fit: bool = False,
) -> None:
    """Print a table; columns after the first ``left`` ones are numbers, to the right.

    With ``fit`` columns that are too many for the terminal follow below, behind the first
    ``left`` ones again.
    """
    lines = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
    room = shutil.get_terminal_size((120, 24)).columns if fit else 1 << 16
    first = list(range(left))
    shown: list[int] = []
    print(title)
    for place in range(left, len(header)):
        if shown and sum(widths[k] + 2 for k in [*first, *shown, place]) > room:
            _print_columns(lines, widths, shown, left)
            print()
            shown = []
        shown.append(place)
    _print_columns(lines, widths, shown, left)


def _print_columns(
    lines: Sequence[Sequence[str]], widths: Sequence[int], shown: Sequence[int], left: int
) -> None:
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line[:left], widths, strict=False)]
        cells += [line[k].rjust(widths[k]) for k in shown]
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
