"""``thresher bench``: the machine on the workloads that others published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from thresher.scripts.bench_tables import print_losses, print_others, print_rows
from thresher.scripts.options import JsonFile, Lanes, check_json, progress_bar, write_json

__all__ = ["bench"]


def bench(
    *,
    groups: Annotated[str | None, Parameter(name=["--groups", "-g"])] = None,
    quick: Annotated[bool, Parameter(negative="")] = False,
    lanes: Lanes = 8,
    modes: str | None = None,
    seed: int = 1,
    densities: str | None = None,
    others: Annotated[bool, Parameter(negative="")] = False,
    data: Path | None = None,
    json: JsonFile = None,
) -> int:
    """Run layers and networks of published cycle counts in RTL, in all modes of skipping.

    The column ``model`` is by how much the cycles that `thresher estimate` says are wrong: of the
    mode both, or of the last one. It needs the extra ``model``. The column ``closest`` is the one
    of the others that needs least, at equal multipliers: its cycles times its multipliers over
    ours in our best mode; below 1 we lose.

    Parameters
    ----------
    groups
        Of peers (six shapes, operands resident), memory (the same from memory to memory), gemm
        (256 x 256 x 256 at 16 densities), eie (the nine layers of EIE), lenet (weights streamed
        from memory), mlperf (MLPerf Tiny's networks), squeezenet (on a photograph); joined by
        commas. By default all.
    quick
        A selection that takes under two minutes when the simulator is built.
    lanes
        P; the array has P x P multipliers.
    modes
        Modes of skipping, joined by commas; by default all five, with --quick none and both. VGG-6,
        of 103 million weights, is run only in those that skip weights of zero.
    seed
        Of the random patterns.
    densities
        Densities of weights/activations in percent for the peers' shapes, as 50/50,10/35.
    others
        Show all others, too, with their cycles and multipliers; those of MLPerf Tiny, whose
        multipliers are the DSP blocks of a whole design, are always shown.
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
    selected = [
        (case, [Skip(mode) for mode in chosen if mode in case.modes])
        for case in every
        if case.group in wanted and (case.quick or not quick)
    ]
    selected = [(case, its_modes) for case, its_modes in selected if its_modes]
    rows = []
    with progress_bar(len(selected)) as progress:
        for case, its_modes in selected:
            progress(f"{case.group} {case.name}")
            rows.append(measure(case, its_modes))
    write_json(
        json,
        {
            "lanes": lanes,
            "seed": seed,
            "modes": chosen,
            "rows": [row.as_dict() for row in rows],
            "losses": {f"{row.group} {row.name}": row.losses for row in rows if row.losses},
        },
    )
    if str(json) == "-":
        return 0
    for group in wanted:
        mine = [row for row in rows if row.group == group]
        if mine:
            print_rows(f"{group}, {lanes} x {lanes} multipliers, cycles", mine, chosen)
        if mine and (others or group == "mlperf"):
            print_others(mine)
    print_losses(rows)
    print(
        f"\n{len(rows)} workloads in {len(chosen)} modes; every value and counter equals golden's"
    )
    return 0


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
