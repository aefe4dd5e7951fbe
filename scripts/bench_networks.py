"""Cases of ``thresher bench`` that need files which are not part of the project."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thresher.scripts.options import read_inputs
from thresher.scripts.photo import MODEL, PHOTOS, find_data, squeezenet

if TYPE_CHECKING:
    from thresher.sim.bench import Case, Published

__all__ = ["network_cases", "published_figures"]

PHOTO = "chelsea.png"
TINY = "mlperf_tiny"
FPGAS = "mlperf_tiny_fpga.json"
# Task, model, inputs: of MLPerf Tiny's networks.
TASKS = (
    ("IC", "ic_pretrainedResnet_int8.tflite", "cifar10_500_lossless.npz"),
    ("KWS", "kws_ref_model_int8.tflite", "kws01.npz"),
    ("VWW", "vww_96_int8.tflite", "vww01_rgb_100.npz"),
)
SAMPLES = 16  # inputs, others than the one that is run, that tell the densities


def published_figures(data: Path | None, name: str) -> dict[str, Any]:
    """Return a file of published figures, or nothing if the folder is not known."""
    from thresher.golden.errors import ThresherError  # noqa: PLC0415

    file = f"published/{name}"
    try:
        path = find_data(data, file) / file
    except ThresherError:
        if data is not None:
            raise
        return {}
    try:
        figures = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ThresherError(f"{path} cannot be read ({error}): give another --data") from None
    return figures if isinstance(figures, dict) else {}


def network_cases(
    data: Path | None, lanes: int, seed: int, groups: Sequence[str], *, must_have: bool
) -> Iterator[Case]:
    """Yield the cases of whole networks.

    Parameters
    ----------
    data
        The folder, or None to look for it.
    seed
        Which input is run, 1 for the first.
    groups
        ``mlperf`` and ``squeezenet`` are of interest.
    must_have
        A file that is missing is an error.
    """
    from thresher.golden.errors import ThresherError  # noqa: PLC0415

    makers = {"mlperf": _mlperf, "squeezenet": _squeezenet}
    for group, make in makers.items():
        if group not in groups:
            continue
        try:
            yield from make(data, lanes, seed)
        except ThresherError:
            if must_have or data is not None:
                raise


def _mlperf(data: Path | None, lanes: int, seed: int) -> Iterator[Case]:
    from dataclasses import replace  # noqa: PLC0415

    from thresher.golden.config import Config  # noqa: PLC0415
    from thresher.golden.densities import with_densities  # noqa: PLC0415
    from thresher.golden.read import read_model  # noqa: PLC0415
    from thresher.sim.bench import FAST, WIDE_PORT, network_case  # noqa: PLC0415

    folder = find_data(data, f"{TINY}/{TASKS[0][1]}") / TINY
    submissions = published_figures(data, FPGAS).get("submissions", [])
    for task, model, inputs in TASKS:
        network = replace(read_model(folder / model), name=task)
        x, _ = read_inputs(str(folder / inputs), network)
        samples = [k for k in range(len(x)) if k != seed - 1][:SAMPLES]
        yield network_case(
            "mlperf",
            with_densities(network, x[samples]),
            x[seed - 1 : seed],
            Config(lanes=lanes, port_bits=WIDE_PORT, **FAST),
            published=_submitted(submissions, task),
            quick=task == "KWS",
        )


def _submitted(submissions: Sequence[Mapping[str, Any]], task: str) -> dict[str, Published]:
    """Return cycles and DSP blocks of each submission for a task."""
    from thresher.sim.bench import Published  # noqa: PLC0415

    return {
        f"{entry['design']} {entry['board']}": Published(
            entry["cycles_per_inference"], entry["dsps"]
        )
        for entry in submissions
        if entry["task"] == task
    }


def _squeezenet(data: Path | None, lanes: int, seed: int) -> Iterator[Case]:
    from thresher.golden.config import Config  # noqa: PLC0415
    from thresher.sim.bench import network_case  # noqa: PLC0415

    folder = find_data(data, MODEL)
    photo = folder / PHOTOS / PHOTO
    network = squeezenet(folder, photo)
    inputs, _ = read_inputs(str(photo), network)
    yield network_case("squeezenet", network, inputs, Config(lanes=lanes))
