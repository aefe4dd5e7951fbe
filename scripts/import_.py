"""``thresher import``: a model of another tool to a .thr file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from thresher.scripts.options import (
    Classes,
    JsonFile,
    check_json,
    make_folder_of,
    plural,
    print_table,
    progress_bar,
    read_inputs,
    write_json,
)

if TYPE_CHECKING:
    from thresher.golden.inspect import LayerRow
    from thresher.golden.network import CompressedNetwork
    from thresher.golden.read import Calibration

__all__ = ["import_"]


def import_(
    model: Path,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    calibrate: Annotated[
        list[str] | None,
        Parameter(name=["--calibrate", "--calibration"], consume_multiple=True, negative=""),
    ] = None,
    percentile: float = 100.0,
    check: Annotated[bool, Parameter(negative="")] = False,
    classes: Classes = None,
    json: JsonFile = None,
) -> int:
    """Import a TFLite, ONNX or Deep Compression model to a .thr file.

    Integers are taken as they are, floats by calibration.

    Parameters
    ----------
    model
        A .tflite file of int8 or uint8, an .onnx file, or a Deep Compression .net file with its
        .prototxt beside it.
    output
        The .thr file; by default beside the model.
    calibrate
        Inputs: .npy and .npz files and, where the model says how it takes them, pictures. A float
        model takes the scales of its activations from them; of an integer model they say which
        channels are often zero, which balances the machine.
    percentile
        Of the magnitudes of a float model's activations to represent without clipping.
    check
        List all that has to be changed in the model, one thing a line, and do nothing else; exit
        code 2 if there is any.
    """
    from thresher.golden import thr_file  # noqa: PLC0415
    from thresher.golden.errors import ThresherError  # noqa: PLC0415
    from thresher.golden.inspect import inspect_network  # noqa: PLC0415
    from thresher.golden.read import Calibration  # noqa: PLC0415

    check_json(json)
    if not 0 < percentile <= 100:
        raise ThresherError(f"--percentile {percentile}: give more than 0, and 100 at most")
    files = tuple(Path(spec) for spec in calibrate or ())
    samples = Calibration(files=files, percentile=percentile) if files else None
    if check:
        return _check(model, samples, json)
    target = output or model.with_suffix(".thr")
    if target.is_dir():
        raise ThresherError(f"{target} is a folder: give a file (-o)")
    with progress_bar(3) as progress:
        progress("read")
        net = _named(_network(model, samples), model, classes)
        progress("count")
        rows = inspect_network(net)
        progress("write")
        make_folder_of(target)
        thr_file.save(net, target)
    size = target.stat().st_size
    write_json(json, _figures(net, rows, model, target))
    if str(json) != "-":
        _print_network(net, rows)
        print(f"written to {target}, {size:,} bytes; the model has {model.stat().st_size:,}")
    return 0


def _check(model: Path, samples: Calibration | None, json: Path | None) -> int:
    """Print all that has to be changed in a model."""
    from thresher.golden.read import check_model  # noqa: PLC0415

    problems = check_model(model, None if model.suffix.lower() == ".tflite" else samples)
    found = [
        {"node": one.node, "op": one.op, "reason": one.reason, "instead": one.instead}
        for one in problems
    ]
    write_json(json, {"file": str(model), "problems": found})
    if str(json) != "-":
        for problem in problems:
            print(problem)
        print(f"{model}: {plural(len(problems), 'problem')}")
    return 2 if problems else 0


def _network(model: Path, samples: Calibration | None) -> CompressedNetwork:
    """Return the network, with the densities of its channels if there are samples."""
    import numpy as np  # noqa: PLC0415

    from thresher.golden.densities import with_densities  # noqa: PLC0415
    from thresher.golden.read import read_model  # noqa: PLC0415

    if samples is None or model.suffix.lower() != ".tflite":
        return read_model(model, samples)
    net = read_model(model)  # has scales of its own
    inputs = np.concatenate([read_inputs(str(file), net)[0] for file in samples.files])
    return with_densities(net, inputs)


def _named(net: CompressedNetwork, model: Path, classes: Path | None) -> CompressedNetwork:
    """Return the network with names of its classes: of the file, or those that a model brings."""
    from thresher.golden.read.classes import (  # noqa: PLC0415
        attached_classes,
        read_classes,
        with_classes,
    )

    if classes is not None:
        return with_classes(net, read_classes(classes, net))
    names = attached_classes(model, net) if model.suffix.lower() == ".tflite" else None
    return net if names is None else with_classes(net, names)


def _figures(
    net: CompressedNetwork, rows: list[LayerRow], model: Path, target: Path
) -> dict[str, Any]:
    weights = sum(row.weights.values for row in rows)
    return {
        "network": net.name,
        "model": str(model),
        "model_bytes": model.stat().st_size,
        "file": str(target),
        "file_bytes": target.stat().st_size,
        "input_shape": net.input_shape,
        "input_range": net.input_range,
        "weights": weights,
        "nonzero_weights": sum(row.weights.nonzero for row in rows),
        "macs": sum(row.macs.dense for row in rows),
        "nonzero_macs": sum(row.macs.weights for row in rows),
        "layers": [
            {
                "name": row.name,
                "kind": row.kind,
                "output_shape": row.output_shape,
                "weights": row.weights.values,
                "density": round(row.weights.density, 4),
                "macs": row.macs.dense,
            }
            for row in rows
        ],
    }


def _print_network(net: CompressedNetwork, rows: list[LayerRow]) -> None:
    table: list[tuple[object, ...]] = [
        (
            row.name,
            row.kind,
            " x ".join(str(size) for size in row.output_shape),
            f"{row.weights.values:,}" if row.weight_shape else "-",
            f"{row.weights.density:.1%}" if row.weight_shape else "-",
            f"{row.macs.dense:,}" if row.weight_shape else "-",
        )
        for row in rows
    ]
    weights = sum((row.weights for row in rows), start=type(rows[0].weights)())
    macs = sum(row.macs.dense for row in rows)
    table.append(("total", "", "", f"{weights.values:,}", f"{weights.density:.1%}", f"{macs:,}"))
    low, high = net.input_range
    shape = " x ".join(str(size) for size in net.input_shape)
    header = ["layer", "kind", "output", "weights", "density", "MACs"]
    print_table(f"{net.name}: input {shape}, {low}..{high}", header, table, left=3)
    kinds = Counter(row.kind for row in rows)
    print(
        f"\n{plural(len(rows), 'layer')}: "
        + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    )
