"""What stands in the way of importing a model, node by node."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from thresher.golden.errors import ThresherError

__all__ = ["Problem", "Problems", "ReadError"]


class ReadError(ThresherError):
    """A model that cannot be imported; one line: file, node, op, reason, fix."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that has to be changed in a model.

    Parameters
    ----------
    node
        Name of the node or tensor, or its number if it has none; empty for the whole file.
    op
        Its operation as the file names it; empty where there is none.
    reason
        What is not supported or not consistent, with the values that are.
    instead
        What would work.
    """

    node: str = ""
    op: str = ""
    reason: str
    instead: str

    def __str__(self) -> str:
        where = f"node {self.node!r} ({self.op}): " if self.op else ""
        where = where or (f"{self.node}: " if self.node else "")
        return f"{where}{self.reason}; {self.instead}"


@dataclass
class Problems:
    """The problems of one file, in the order in which they were found."""

    path: Path
    found: list[Problem] = field(default_factory=list)

    def add(self, reason: str, instead: str, *, node: str = "", op: str = "") -> None:
        """Note a problem; the same one is noted once."""
        problem = Problem(node=node, op=op, reason=reason, instead=instead)
        if problem not in self.found:
            self.found.append(problem)

    def raise_if_any(self) -> None:
        """Raise a :class:`ReadError` of the first problem, if there is one."""
        if not self.found:
            return
        more = len(self.found) - 1
        tail = f" (and {more} more: see --check)" if more else ""
        raise ReadError(f"{self.path}: {self.found[0]}{tail}")
