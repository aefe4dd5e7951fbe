"""``thresher compress``: dense weights to a .thr file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from thresher.scripts.options import (
    JsonFile,
    check_json,
    make_folder_of,
    print_table,
    progress_bar,
    read_array,
    write_json,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from thresher.golden.compress.dense import DenseNetwork

__all__ = ["compress"]


def compress(
    dense: Path,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    calibration: str | None = None,
    density: float | None = None,
    entries: int = 32,
    percentile: float = 100.0,
    weight_bits: int = 8,
    json: JsonFile = None,
) -> int:
    """Compress a dense network (.npz) to a .thr file: prune, share weights, code runs and indices.

    Parameters
    ----------
    dense
        The .npz file with the dense weights and the architecture.
    output
        The .thr file; by default beside the .npz file.
    calibration
        Inputs from which the scales of the activations are taken: a .npy file of integers
        (n, C, H, W), or mnist:0-99. By default the built-in digits, if they have the right shape.
    density
        Part of the weights to keep, of every layer; by default all that are not zero.
    entries
        Size of the codebooks, with their zero.
    percentile
        Of a hidden layer's outputs to represent without clipping.
    weight_bits
        Width of the integer weights.
    """
    from thresher.golden import thr_file  # noqa: PLC0415
    from thresher.golden.compress.dense_file import load_dense  # noqa: PLC0415
    from thresher.golden.compress.funnel import compress as compress_dense  # noqa: PLC0415
    from thresher.golden.compress.funnel import funnel  # noqa: PLC0415

    check_json(json)
    target = output or dense.with_suffix(".thr")
    network = load_dense(dense)
    samples = _samples(calibration, network)
    with progress_bar(2) as progress:
        progress("compress")
        made = compress_dense(
            network,
            samples,
            density=density,
            entries=entries,
            percentile=percentile,
            weight_bits=weight_bits,
        )
        progress("write")
        make_folder_of(target)
        thr_file.save(made, target)
    stages = funnel(made)
    size = target.stat().st_size
    write_json(
        json,
        {
            "network": made.name,
            "file": str(target),
            "file_bytes": size,
            "funnel": [{"stage": stage.name, "bytes": stage.bytes} for stage in stages],
        },
    )
    if str(json) != "-":
        first = max(1, stages[0].bytes)
        rows = [(s.name, f"{s.bytes:,}", f"{first / max(1, s.bytes):.1f}x") for s in stages]
        print_table(f"{made.name}", ["stage", "bytes", "smaller"], rows)
        print(f"written to {target}, {size:,} bytes")
    return 0


def _samples(calibration: str | None, network: DenseNetwork) -> npt.NDArray[Any]:
    """Return the inputs that --calibration names, if the network takes them."""
    from thresher.golden.builtin import mnist_digits  # noqa: PLC0415
    from thresher.golden.errors import ThresherError  # noqa: PLC0415

    if calibration is None or calibration.startswith("mnist"):
        samples = mnist_digits(calibration or "mnist")[0]
    else:
        samples = read_array(Path(calibration))
    if samples.shape[1:] != tuple(network.input_shape):
        wanted = ", ".join(str(size) for size in network.input_shape)
        raise ThresherError(
            f"{calibration or 'built-in digits'}: calibration inputs have shape {samples.shape},"
            f" network {network.name} takes (n, {wanted}); give --calibration X.npy"
        )
    return samples
