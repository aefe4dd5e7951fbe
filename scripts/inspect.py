"""``thresher inspect``: the table of a network."""

from __future__ import annotations

from dataclasses import asdict

from thresher.scripts.options import JsonFile, check_json, print_table, write_json

__all__ = ["inspect"]


def inspect(network: str, /, *, json: JsonFile = None) -> int:
    """Show shapes, densities, bits, bytes, entropy bound and multiplications of a network.

    Parameters
    ----------
    network
        A .thr file, lenet-300-100 or lenet-5, or a model that needs no calibration.
    """
    from thresher.golden.builtin import resolve_network  # noqa: PLC0415
    from thresher.golden.compress.funnel import funnel  # noqa: PLC0415
    from thresher.golden.inspect import inspect_network  # noqa: PLC0415

    check_json(json)
    net = resolve_network(network)
    rows = inspect_network(net)
    stages = funnel(net)
    write_json(
        json,
        {
            "network": net.name,
            "input_shape": net.input_shape,
            "input_range": net.input_range,
            "multiplier": str(net.multiplier),
            "layers": [{**asdict(row), "density": round(row.weights.density, 4)} for row in rows],
            "funnel": [{"stage": stage.name, "bytes": stage.bytes} for stage in stages],
        },
    )
    if str(json) == "-":
        return 0
    table: list[tuple[object, ...]] = [
        (
            row.name,
            row.kind,
            " x ".join(str(size) for size in row.weight_shape) or "-",
            " x ".join(str(size) for size in row.output_shape),
            f"{row.weights.density:.1%}" if row.weight_shape else "-",
            row.codebook_entries or "-",
            row.weight_bits or "-",
            f"{row.weights.bytes_dense:,}",
            f"{row.weights.bytes_coded:,}",
            f"{row.weights.bytes_entropy:,.0f}",
            f"{row.macs.dense:,}",
            f"{row.macs.weights:,}",
        )
        for row in rows
    ]
    sums = [sum(values) for values in zip(*(_figures(row) for row in rows), strict=True)]
    table.append(("total", "", "", "", "", "", "", *(f"{value:,.0f}" for value in sums)))
    header = ["layer", "kind", "weights", "output", "density", "codebook", "bits"]
    header += ["dense B", "coded B", "entropy B", "MACs", "non-zero MACs"]
    print_table(
        f"{net.name}: input {net.input_shape}, multiplier {net.multiplier}", header, table, left=4
    )
    print("\nbytes: " + " -> ".join(f"{stage.name} {stage.bytes:,}" for stage in stages))
    return 0


def _figures(row: object) -> tuple[float, ...]:
    weights, macs = row.weights, row.macs  # type: ignore[attr-defined]
    sizes = weights.bytes_dense, weights.bytes_coded, weights.bytes_entropy
    return (*sizes, macs.dense, macs.weights)
