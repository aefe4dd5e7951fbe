"""``thresher bench``: the machine on the workloads that others published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from thresher.scripts.options import (
    JsonFile,
    Lanes,
    check_json,
    print_table,
    progress_bar,
    write_json,
)

if TYPE_CHECKING:
    from thresher.sim.bench import Row

__all__ = ["bench"]


def bench(
    *,
    groups: Annotated[str | None, Parameter(name=["--groups", "-g"])] = None,
    quick: Annotated[bool, Parameter(negative="")] = False,
    lanes: Lanes = 8,
    modes: str | None = None,
    seed: int = 1,
    densities: str | None = None,
    data: Path | None = None,
    json: JsonFile = None,
) -> int:
    """Run layers and networks of published cycle counts in RTL, in all modes of skipping.

    The column ``model`` is what `thresher estimate` says, with its error: of the mode both, or of
    the last one. It needs the extra ``model``.

    Parameters
    ----------
    groups
        Of peers (six shapes, operands resident), memory (the same from memory to memory), gemm
        (256 x 256 x 256 at 16 densities), eie (the nine layers of EIE), lenet (weights streamed
        from memory); joined by commas. By default all.
    quick
        A selection that takes under two minutes when the simulator is built.
    lanes
        P; the array has P x P multipliers.
    modes
        Modes of skipping, joined by commas; by default all five, with --quick none and both.
    seed
        Of the random patterns.
    densities
        Densities of weights/activations in percent for the peers' shapes, as 50/50,10/35.
    data
        The folder of models, inputs and published figures; by default the environment's
        THRESHER_DATA, or else ./data or ../shared/data. Without it the groups that need it are
        left out, and others' figures but EIE's are not shown.
    """
    from thresher.golden.config import Skip  # noqa: PLC0415
    from thresher.golden.errors import ThresherError  # noqa: PLC0415
    from thresher.scripts.bench_networks import network_cases, published_figures  # noqa: PLC0415
    from thresher.sim.bench import GROUPS, PEER_DENSITIES, cases, measure  # noqa: PLC0415  # heavy

    check_json(json)
    wanted = groups.split(",") if groups else list(GROUPS)
    for group in wanted:
        if group not in GROUPS:
            raise ThresherError(f"--groups {group}: give some of {', '.join(GROUPS)}")
    chosen = modes.split(",") if modes else ["none", "both"] if quick else [*Skip]
    for mode in chosen:
        if mode not in {*Skip}:
            raise ThresherError(f"--modes {mode}: give some of {', '.join(Skip)}")
    pairs = _densities(densities) if densities else PEER_DENSITIES
    figures = published_figures(data, "peers.json")
    every = cases(lanes, seed=seed, densities=pairs, published=figures)
    every += network_cases(data, lanes, seed, wanted, must_have=groups is not None)
    selected = [case for case in every if case.group in wanted and (case.quick or not quick)]
    rows = []
    with progress_bar(len(selected)) as progress:
        for case in selected:
            progress(f"{case.group} {case.name}")
            rows.append(measure(case, [Skip(mode) for mode in chosen]))
    write_json(
        json,
        {"lanes": lanes, "seed": seed, "modes": chosen, "rows": [row.as_dict() for row in rows]},
    )
    if str(json) == "-":
        return 0
    for group in wanted:
        table = [
            (
                row.name,
                *(f"{row.cycles[mode]:,}" for mode in chosen),
                _model(row, chosen),
                f"{row.bound:,}",
                f"{row.bound / min(row.cycles.values()):.2f}",
                ", ".join(f"{name} {ratio:.2f}x" for name, ratio in row.ratios.items()) or "-",
            )
            for row in rows
            if row.group == group
        ]
        if table:
            header = [
                "workload",
                *chosen,
                "model",
                "bound",
                "bound/ours",
                "others, at equal multipliers",
            ]
            print_table(f"\n{group}, {lanes} x {lanes} multipliers, cycles", header, table)
    print(
        f"\n{len(rows)} workloads in {len(chosen)} modes; every value and counter equals golden's"
    )
    return 0


def _model(row: Row, modes: list[str]) -> str:
    """Return the model's cycles of the mode ``both``, or the last one, and its error."""
    mode = "both" if "both" in modes else modes[-1]
    if mode not in row.model:
        return "-"
    return f"{row.model[mode]:,} {row.model_errors[mode]:+.1f} %"


def _densities(text: str) -> list[tuple[float, float]]:
    """Return (weights, activations) of each W/A in percent."""
    from thresher.golden.errors import ThresherError  # noqa: PLC0415

    pairs = []
    for item in text.split(","):
        try:
            weights, activations = (float(part) / 100 for part in item.split("/"))
        except ValueError:
            raise ThresherError(f"--densities {item}: give percents, as 50/50,10/35") from None
        if not (0 < weights <= 1 and 0 < activations <= 1):
            raise ThresherError(f"--densities {item}: percents are above 0 and at most 100")
        pairs.append((weights, activations))
    return pairs
