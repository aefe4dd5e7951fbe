"""Parts that a design has many of: each kind is converted to Verilog once, and then instantiated.

Amaranth elaborates every instance anew. In the hierarchy of a machine of 64 processing elements
that takes most of the time; so in a conversion, :class:`PartLibrary` stands as the platform, and
:func:`place` puts an instance of the kind's module where a simulation has the component itself.
"""

import re

from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal, Value, ValueCastable
from amaranth.lib import wiring
from amaranth.lib.wiring import In

__all__ = ["PartLibrary", "place"]


class PartLibrary:
    """The kinds of parts that a conversion has met, by module name."""

    def __init__(self) -> None:
        self.kinds: dict[str, wiring.Component] = {}

    def instance(self, part: wiring.Component) -> Instance:
        """Return an instance of the module of ``part``'s class, connected to its ports."""
        name = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(part).__name__)
        if self.kinds.setdefault(name.lower(), part) is not part:
            part._MustUse__silence = True  # its module is another's; Amaranth need not warn
        ports: dict[str, object] = {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
        for path, member, value in part.signature.flatten(part):
            direction = "i" if member.flow is In else "o"
            port = value.as_value() if isinstance(value, ValueCastable) else value
            ports[f"{direction}_{'__'.join(map(str, path))}"] = Value.cast(port)
        return Instance(name.lower(), **ports)


def place(m: Module, name: str, part: wiring.Component, platform: object) -> None:
    """Add a part to a module, of which the design has several with the same parameters.

    Parameters
    ----------
    m
        Where to add it.
    name
        Its name there.
    part
        A component with a clock, of whose class all in the design have the same parameters.
    platform
        That of ``elaborate``.
    """
    m.submodules[name] = platform.instance(part) if isinstance(platform, PartLibrary) else part
