"""Runs under every simulator: the same answer, the same cycles, and errors that say why."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from dummy_machine import OFFSET, IncrementMachine

from thresher.golden.config import Config
from thresher.golden.descriptors import ErrorCode
from thresher.golden.errors import ThresherError
from thresher.hw.parts import place
from thresher.hw.verilog import (
    merge_identical_modules,
    private_inputs,
    split_modules,
    to_verilog,
)
from thresher.sim.builds import build_simulator
from thresher.sim.machine import run_machine
from thresher.sim.runner import run_cocotb

ICARUS = pytest.param(
    "icarus",
    marks=pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not installed"),
)


class Register(wiring.Component):
    """A stream register."""

    i: In(stream.Signature(16))
    o: Out(stream.Signature(16))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.i.ready.eq(~self.o.valid | self.o.ready)
        with m.If(self.i.ready):
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
        return m


class Pair(wiring.Component):
    """Two registers in a row."""

    i: In(stream.Signature(16))
    o: Out(stream.Signature(16))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.first = first = Register()
        m.submodules.second = second = Register()
        wiring.connect(m, wiring.flipped(self.i), first.i)
        wiring.connect(m, first.o, second.i)
        wiring.connect(m, second.o, wiring.flipped(self.o))
        return m


class Row(wiring.Component):
    """Placed parts: registers side by side, which come and go with one another."""

    i: In(stream.Signature(16))
    o: Out(stream.Signature(16)).array(2)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for number, o in enumerate(self.o):
            place(m, f"register_{number}", register := Register(), platform)
            m.d.comb += [register.i.valid.eq(self.i.valid), register.i.payload.eq(number)]
            wiring.connect(m, register.o, wiring.flipped(o))
        return m


def image_of(config: Config, count: int, program: int = 0) -> npt.NDArray[np.uint8]:
    image = np.random.default_rng(7).integers(0, 255, (600, config.port_bits // 8), np.uint8)
    image[program] = 0
    image[program, -2:] = divmod(count, 256)
    return image


@pytest.mark.cocotb
@pytest.mark.parametrize("simulator", ["verilator", ICARUS])
def test_component_passes_its_cocotb_tests(simulator: str) -> None:
    assert run_cocotb(Pair(), test_module="cocotb_delay", simulator=simulator) == 4


@pytest.mark.cocotb
def test_failure_tells_seed_and_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(
        AssertionError, match=r"4 of 4 cocotb tests .*COCOTB_RANDOM_SEED=\d+ pytest"
    ):
        run_cocotb(
            Register(), test_module="cocotb_delay", build_dir=tmp_path, env={"WRONG_VALUE": "1"}
        )
    assert "to repeat" in capsys.readouterr().out


@pytest.mark.cocotb
@pytest.mark.parametrize("lanes", [1, 8, 16])
@pytest.mark.parametrize("simulator", ["verilator", ICARUS, "amaranth"])
def test_machine_changes_its_memory(simulator: str, lanes: int) -> None:
    config = Config(lanes=lanes)
    image = image_of(config, 100)
    result = run_machine(config, image, 0, simulator=simulator, component=IncrementMachine)
    expected = image.copy()
    expected[OFFSET + 1 : OFFSET + 101] = image[1:101]
    expected[OFFSET + 1 : OFFSET + 101, -1] += 1  # no byte of the image is 255
    np.testing.assert_array_equal(result.memory, expected)
    assert result.error is None


@pytest.mark.cocotb
@pytest.mark.parametrize(("latency", "stall"), [(1, 0), (4, 0), (63, 0), (7, 100)])
def test_all_simulators_take_the_same_cycles(latency: int, stall: int) -> None:
    config = Config(lanes=1)
    names = ["verilator", "amaranth", *(["icarus"] if shutil.which("iverilog") else [])]
    results = [
        run_machine(
            config,
            image_of(config, 50, program=3),
            3,
            simulator=name,
            latency=latency,
            stall=stall,
            component=IncrementMachine,
        )
        for name in names
    ]
    if not stall:  # the start, the count, and for each word a read and a write
        assert results[0].cycles == 51 * (latency + 1) + 50 + 2
        assert len({result.cycles for result in results}) == 1
    for result in results[1:]:
        np.testing.assert_array_equal(result.memory, results[0].memory)


@pytest.mark.cocotb
@pytest.mark.parametrize("simulator", ["verilator", ICARUS, "amaranth"])
def test_error_of_the_machine_is_returned(simulator: str) -> None:
    config = Config(lanes=1)
    image = image_of(config, 300, program=5)
    result = run_machine(config, image, 5, simulator=simulator, component=IncrementMachine)
    assert result.error == (ErrorCode.DESCRIPTOR, 0, 0, 5)


@pytest.mark.cocotb
@pytest.mark.parametrize("simulator", ["verilator", ICARUS, "amaranth"])
def test_machine_that_hangs_is_given_up(simulator: str) -> None:
    config = Config(lanes=1)
    with pytest.raises(ThresherError, match="did not finish in 500 cycles"):
        run_machine(
            config,
            image_of(config, 0),
            0,
            simulator=simulator,
            timeout_cycles=500,
            component=IncrementMachine,
        )


@pytest.mark.cocotb
@pytest.mark.parametrize("simulator", ["verilator", ICARUS, "amaranth"])
def test_write_outside_the_image_is_named(simulator: str) -> None:
    config = Config(lanes=1)
    image = image_of(config, 4)[:258]
    with pytest.raises(ThresherError, match="used word 0x102, outside its memory image of 0x102"):
        run_machine(config, image, 0, simulator=simulator, component=IncrementMachine)


@pytest.mark.cocotb
@pytest.mark.parametrize("simulator", ["verilator", ICARUS, "amaranth"])
def test_waveform_comes_with_a_save_file(simulator: str, tmp_path: Path) -> None:
    config = Config(lanes=1)
    run_machine(
        config,
        image_of(config, 4),
        0,
        simulator=simulator,
        wave=tmp_path / "run",
        component=IncrementMachine,
    )
    (wave,) = [path for path in tmp_path.iterdir() if path.suffix in {".vcd", ".fst"}]
    assert wave.stat().st_size > 1000
    save = (tmp_path / "run.gtkw").read_text()
    assert str(wave) in save
    assert ".request__payload[88:0]" in save


def test_equal_builds_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path))
    sources = {"dut.v": to_verilog(Register(), "dut")}
    with ThreadPoolExecutor(2) as pool:
        builds = list(pool.map(lambda _: build_simulator(sources, "dut"), range(2)))
    assert builds[0].folder == builds[1].folder
    assert min(build.seconds for build in builds) == 0 < max(build.seconds for build in builds)
    assert build_simulator(sources, "dut").seconds == 0
    changed = {"dut.v": sources["dut.v"] + "// changed\n"}
    assert build_simulator(changed, "dut").folder != builds[0].folder
    assert len(list((tmp_path / "builds").glob("*/build.json"))) == 2


def test_failed_build_leaves_nothing_but_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path))
    with pytest.raises(ThresherError, match=r"dut could not be built: %Error.*see"):
        build_simulator({"dut.v": "module dut(input x; endmodule\n"}, "dut")
    assert not [path for path in (tmp_path / "builds").iterdir() if path.is_dir()]


@pytest.mark.parametrize("tool", ["g++", "make"])
def test_missing_compiler_is_named(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"g++": "make", "make": "g++"}[tool]
    found = shutil.which(other)
    assert found is not None
    (tmp_path / other).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path))
    config = Config(lanes=1)
    with pytest.raises(ThresherError, match=rf"{tool.replace('+', '.')} not found.*install"):
        run_machine(config, image_of(config, 1), 0, component=IncrementMachine)


def test_unknown_simulator_is_refused() -> None:
    config = Config(lanes=1)
    with pytest.raises(ThresherError, match="simulator 'modelsim' is unknown: choose verilator"):
        run_machine(config, image_of(config, 1), 0, simulator="modelsim")


def test_inputs_that_differ_among_instances_are_found() -> None:
    assert private_inputs(to_verilog(Row(), "row")) == {"register": ["o__ready", "i__payload"]}
    assert private_inputs(to_verilog(Pair(), "pair")) == {}


def test_identical_modules_become_one() -> None:
    verilog = to_verilog(Pair(), "pair")
    assert list(split_modules(verilog)) == ["pair", "pair.first"]
    assert "".join(split_modules(verilog).values()) in verilog
    assert to_verilog(Pair(), "pair") == verilog
    assert merge_identical_modules("") == ""
