"""Names of the classes that a network tells apart: from a file, or from what a model brings."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from thresher.golden.errors import ThresherError
from thresher.golden.network import CompressedNetwork

__all__ = ["attached_classes", "classes_of", "read_classes", "with_classes"]

_LONGEST = 1 << 22  # bytes of a file of names
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,  # a compression that zipfile does not know
    OSError,
    RuntimeError,  # encrypted
    ValueError,
)


def with_classes(network: CompressedNetwork, names: Sequence[str]) -> CompressedNetwork:
    """Return the network with names of its classes: ``metadata["classes"]``."""
    return replace(network, metadata={**network.metadata, "classes": list(names)})


def classes_of(network: CompressedNetwork) -> list[str] | None:
    """Return the names of the network's classes, one an output value; None if it has none."""
    names = network.metadata.get("classes")
    if (
        isinstance(names, list)
        and len(names) == _outputs(network)
        and all(isinstance(name, str) for name in names)
    ):
        return names
    return None


def read_classes(path: Path, network: CompressedNetwork) -> list[str]:
    """Return the names in a text file, one a line in the order of the network's outputs.

    Raises
    ------
    ThresherError
        If the file cannot be read, or has not as many names as the network has outputs.
    """
    try:
        if path.stat().st_size > _LONGEST:
            raise ThresherError(f"{path} is too long for names; give one name a line")
        names = _lines(path.read_bytes())
    except OSError as error:
        raise ThresherError(
            f"{path} cannot be read ({error.strerror}); give a text file of one name a line"
        ) from None
    except ValueError:
        raise ThresherError(f"{path} is no text; give one name a line, in UTF-8") from None
    outputs = _outputs(network)
    if len(names) != outputs:
        more = (
            "; leave its first line out, if that is a background"
            if len(names) == outputs + 1
            else ""
        )
        raise ThresherError(
            f"{path} has {len(names)} names, and {network.name} has {outputs} outputs;"
            f" give one name a line{more}"
        )
    return names


def attached_classes(path: Path, network: CompressedNetwork) -> list[str] | None:
    """Return the names that a TFLite model brings in its metadata, if they fit its outputs.

    TFLite's metadata are files in a zip archive behind the model; one of them has the names.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for item in archive.infolist():
                if item.filename.endswith(".txt") and item.file_size <= _LONGEST:
                    names = _lines(archive.read(item))
                    if len(names) == _outputs(network):
                        return names
    except _DAMAGE:
        pass
    return None


def _outputs(network: CompressedNetwork) -> int:
    return math.prod(network.shapes()[network.output])


def _lines(content: bytes) -> list[str]:
    text = content.decode("utf-8-sig")
    if not text.replace("\t", " ").replace("\r", "").replace("\n", "").isprintable():
        raise ValueError
    return [line.strip() for line in text.rstrip().splitlines()]
