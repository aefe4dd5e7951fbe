"""Turn a component into readable Verilog.

Amaranth's own elaboration gives RTLIL with a module for each instance, but for the parts of a
:class:`~thresher.hw.parts.PartLibrary`. Identical modules are merged, and Yosys (the native
library of the ``pyosys`` wheel, in a child process since it ends badly inside a process that goes
on) writes the Verilog.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from amaranth.back import rtlil  # type: ignore[attr-defined]  # the stubs leave it out
from amaranth.lib import wiring

from thresher.hw.parts import PartLibrary

__all__ = [
    "merge_identical_modules",
    "private_inputs",
    "split_modules",
    "stop_clocks",
    "to_rtlil",
    "to_verilog",
]

_MODULE = re.compile(r"((?:^attribute [^\n]*\n)*)^module (\S+)\n(.*?)^end\n", re.S | re.M)
_CELL = re.compile(r"^(\s*cell )(\S+)( )", re.M)
_PORT = re.compile(r" (input|output|inout) \d+ ")
_NAMELESS = re.compile(r"\\port\$\d+\$(\d+)")
_MEMORY = re.compile(r"(?m)^  reg (?:\[\d+:0\] )?(\w+ |\\\S+ ) ?\[(\d+):0\];\n")
_INSTANCE = re.compile(r"(?m)^  (\w+) \S+ \(\n((?:    \.[^\n]*\n)+)  \);$")
_CONNECTION = re.compile(r"(?m)^    \.\\?(\w+) ?\((.*?)\),?$")  # a keyword begins with \
_INPUT = re.compile(r"(?m)^  input (?:signed )?(?:\[\S+\] )?\\?(\w+) ?;$")
_TRIGGER = re.compile(r"(?m)^  reg (\\\$process\$\d+ ) = 0;\n")
_SHORT_PROCESS = re.compile(r"(?m)^  always @\*\n    ([^;\n]*;)$")
_REGISTER = re.compile(
    r"(?m)^  always @\(posedge (?P<clock>\w+)\)\n    (?P<name>\w+ |\\\S+ )<= (?P<next>\\\$\d+ );\n"
)
_PROCESS = re.compile(
    r"(?ms)^  always @\* begin\n    if \(\\\$process\$\d+ \) begin end\n(?P<body>.*?)^  end\n"
)
_ASSIGNMENT = re.compile(r"(?m)^(?P<indent> +)(?P<target>\w+ |\\\S+ ) ?(?P<slice>(?:\[\S+\] )?)= ")
_SOURCE = re.compile(r"^\s*attribute \\src [^\n]*\n", re.M)

# Run with the paths of the RTLIL to read and of the Verilog to write. Yosys' attributes that
# only repeat what Amaranth knows are left out. Leaving by _exit avoids a double free at exit.
_YOSYS = """
import os, sys
from pyosys import libyosys
source, target = sys.argv[1:]
strip = "-remove generator -remove top -remove src -remove amaranth.hierarchy"
for command in (
    f"read_rtlil {source}",
    "proc -nomux -norom",
    "memory_collect",
    f"attrmap {strip}",
    f"attrmap -modattr {strip}",
    f"write_verilog -norename {target}",
):
    libyosys.run_pass("tee -q " + command)
os._exit(0)
"""


def to_rtlil(component: wiring.Component, name: str) -> tuple[str, list[str]]:
    """Return the RTLIL of ``component`` as a module ``name``, with a module for each kind of part.

    Returns
    -------
    text
        The modules.
    kinds
        Names of the modules of parts, as :class:`~thresher.hw.parts.PartLibrary` has them.
    """
    library = PartLibrary()
    with _empty_memories():
        texts = [rtlil.convert(component, name=name, platform=library, emit_src=False)]
        while len(texts) <= len(library.kinds):  # a kind may have parts of its own
            kind, part = list(library.kinds.items())[len(texts) - 1]
            texts.append(rtlil.convert(part, name=kind, platform=library, emit_src=False))
    return merge_identical_modules("\n".join(texts)), list(library.kinds)


def to_verilog(component: wiring.Component, name: str) -> str:
    """Return the Verilog of ``component`` as a module ``name``, with its submodules.

    The same component always gives the same text. Struct ports are one packed vector each.

    Raises
    ------
    RuntimeError
        If Yosys fails; the message ends with what it wrote.
    """
    text, _ = to_rtlil(component, name)
    with tempfile.TemporaryDirectory(prefix="thresher-") as folder:
        source, target = Path(folder, "in.il"), Path(folder, "out.v")
        source.write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", _YOSYS, str(source), str(target)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not target.exists():
            raise RuntimeError(
                f"Yosys could not write {name}: {(done.stderr or done.stdout)[-500:]}"
            )
        verilog = target.read_text()
    # Yosys numbers its helper signals by its own source line: cut that, it says nothing.
    verilog = re.sub(r"\$auto\$verilog_backend\.cc:\d+:dump_module", "$process", verilog)
    verilog = re.sub(r"(?ms)^module .*?^endmodule$", _assign_registers, verilog)
    verilog = re.sub(r"(?ms)^module .*?^endmodule$", _start_processes, verilog)
    return _MEMORY.sub(_clear_memory, verilog)


def _assign_registers(module: re.Match[str]) -> str:
    """Assign registers in clocked processes of their own.

    Yosys writes a register as a signal of its next value, which a combinational process drives,
    and a copy at each clock. A simulator has nothing to do for a register that is left alone.
    """
    text = module[0]
    copies = {copy["next"]: copy for copy in _REGISTER.finditer(text)}
    merged: list[str] = []

    def clocked(process: re.Match[str]) -> str:
        first = _ASSIGNMENT.match(process["body"])
        copy = copies.get(first["target"]) if first else None
        if copy is None:
            return process[0]
        value, name = copy["next"], copy["name"]

        def assign(one: re.Match[str]) -> str:
            return f"{one['indent']}{name}{one['slice']}<= " if one["target"] == value else one[0]

        body = _ASSIGNMENT.sub(assign, process["body"])
        if value in body or text.count(value) != process[0].count(value) + 2:
            return process[0]  # it is read elsewhere than in the copy
        merged.append(value)
        keeps, _, changes = body.partition("\n")
        if keeps.rstrip(" ;") == f"    {name}<= {name}".rstrip():
            body = changes
        return f"  always @(posedge {copy['clock']}) begin\n{body}  end\n"

    result = _PROCESS.sub(clocked, text)
    for value in merged:
        result = result.replace(copies[value][0], "", 1)
        result = re.sub(rf"(?m)^  reg [^;\n]*{re.escape(value)};\n", "", result, count=1)
    return result if _PROCESS.search(result) else _TRIGGER.sub("", result)


def _start_processes(module: re.Match[str]) -> str:
    """Let Icarus run each process at time 0: its trigger must change after the process waits."""
    text = module[0]
    if _SHORT_PROCESS.search(text):  # drives a part of a signal, and has no trigger of its own
        if not _TRIGGER.search(text):
            text = text.replace(";\n", ";\n  reg \\$process$0  = 0;\n", 1)
        trigger = _TRIGGER.findall(text)[0]
        start = f"  always @* begin\n    if ({trigger}) begin end\n    "
        text = _SHORT_PROCESS.sub(lambda process: f"{start}{process[1]}\n  end", text)
    triggers = _TRIGGER.findall(text)
    if not triggers:
        return text
    changes = "".join(f"    {name}= 1;\n" for name in triggers)
    start = f"`ifdef __ICARUS__\n  initial #0 begin\n{changes}  end\n`endif\n"
    return f"{text.removesuffix('endmodule')}{start}endmodule"


@contextlib.contextmanager
def _empty_memories() -> Iterator[None]:
    """Let Amaranth leave out the contents of memories that are all zero.

    It writes them bit by bit, which takes most of the time of a conversion and a line of Verilog
    for each word; :func:`_clear_memory` says the same in one line.
    """
    emit_memory = rtlil.ModuleEmitter.emit_memory

    def emit_unless_zero(emitter: Any, index: int, cell: Any) -> None:
        if any(cell.init):
            emit_memory(emitter, index, cell)

    rtlil.ModuleEmitter.emit_memory = emit_unless_zero
    try:
        yield
    finally:
        rtlil.ModuleEmitter.emit_memory = emit_memory


def _clear_memory(declaration: re.Match[str]) -> str:
    """Add to the declaration of a memory that it begins as zeros, if nothing else follows."""
    name, last = declaration[1], int(declaration[2])
    if declaration.string.startswith("  initial begin", declaration.end()):
        return declaration[0]
    return (
        f"{declaration[0]}  initial begin : \\{name.strip().removeprefix(chr(92))}$clear\n"
        "    integer \\$word ;\n"
        f"    for (\\$word = 0; \\$word <= {last}; \\$word = \\$word + 1) {name}[\\$word ] = 0;\n"
        "  end\n"
    )


def merge_identical_modules(text: str) -> str:
    """Return RTLIL in which modules with equal contents are one module, named as the first."""
    # A port without a name has one made of a number that differs from instance to instance: cut
    # that, unless two ports of one module would then be the same.
    kept = set()
    for match in _MODULE.finditer(text):
        names = {(port[0], port[1]) for port in _NAMELESS.finditer(match[3])}
        short = [number for _, number in names]
        kept |= {name for name, number in names if short.count(number) > 1}
    text = _NAMELESS.sub(lambda m: m[0] if m[0] in kept else rf"\port${m[1]}", text)
    modules = {match[2]: (match[1], match[3]) for match in _MODULE.finditer(text)}
    alias: dict[str, str] = {}
    while True:
        seen: dict[str, str] = {}
        merged = False
        for name, (attributes, body) in modules.items():
            if name in alias or "\\top" in attributes:
                continue
            first = seen.setdefault(_canonical(body), name)
            if first != name:
                alias[name] = first
                merged = True
        if not merged:
            break
        for name, (attributes, body) in modules.items():
            renamed = _CELL.sub(lambda cell: cell[1] + alias.get(cell[2], cell[2]) + cell[3], body)
            modules[name] = (attributes, renamed)
    return "".join(
        f"{attributes}module {name}\n{body}end\n\n"
        for name, (attributes, body) in modules.items()
        if name not in alias
    )


def _canonical(body: str) -> str:
    """The body of a module but for the order of its ports, which follows their use outside."""
    wires, others = [], []
    for block in _SOURCE.sub("", body).split("\n\n"):
        lines = block.strip("\n").split("\n")
        if lines[-1].startswith("  wire "):
            lines[-1] = _PORT.sub(r" \1 ", lines[-1])
            wires.append("\n".join(lines))
        elif lines[0].startswith("  cell "):
            others.append("\n".join([lines[0], *sorted(lines[1:])]))
        else:
            others.append(block)
    return "\n".join(sorted(wires) + others)


def split_modules(verilog: str) -> dict[str, str]:
    """Return the text of each module of ``verilog``, by name, in the order of the text."""
    parts = re.split(r"(?m)^(?=(?:\(\*[^\n]*\*\)\n)*module )", verilog)
    modules = {}
    for part in parts[1:]:
        match = re.search(r"(?m)^module (\\\S+|\w+)", part)
        assert match is not None, "a part begins with its module"
        modules[match[1].removeprefix("\\")] = part
    return modules


def private_inputs(verilog: str) -> dict[str, list[str]]:
    """Return, of each kind of part with several instances, the inputs that are not common to all.

    A kind is a module of a :class:`~thresher.hw.parts.PartLibrary`; an input is common if all
    instances have it from the same signal.
    """
    modules = split_modules(verilog)
    connections: dict[str, list[dict[str, str]]] = {}
    for text in modules.values():
        for kind, ports in _INSTANCE.findall(text):  # a part of a part has a path for its name
            connections.setdefault(kind, []).append(dict(_CONNECTION.findall(ports)))
    return {
        kind: [
            name
            for name in _INPUT.findall(modules[kind])
            if len({instance[name] for instance in instances}) > 1
        ]
        for kind, instances in connections.items()
        if len(instances) > 1
    }


def stop_clocks(verilog: str, top: str, clocks: Mapping[str, Collection[str]]) -> str:
    """Return Verilog in which parts have no clock while they have nothing to do.

    For a simulator, which then does not evaluate what depends on their registers alone.

    Parameters
    ----------
    verilog
        Of a module ``top`` whose clock is ``clk``.
    clocks
        By the name of a signal of ``top`` that is high when they have anything to do, the kinds of
        these parts.
    """
    modules = split_modules(verilog)
    text, gates = modules[top], ""
    for awake, kinds in clocks.items():
        gates += (
            f"  reg {awake}$held = 1;\n"
            f"  wire {awake}$clk = clk & {awake}$held;\n"
            f"  always @(negedge clk) {awake}$held <= {awake};\n"
        )
        for instance in _INSTANCE.finditer(text):
            if instance[1] in kinds:
                gated = instance[0].replace(".clk(clk)", f".clk({awake}$clk)")
                text = text.replace(instance[0], gated)
    modules[top] = text.replace("  assign ", f"{gates}  assign ", 1)
    return "".join(modules.values())
