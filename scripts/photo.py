"""A photograph on the simulated hardware: ``thresher demo --network squeezenet --photo FILE``."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thresher.scripts.classes import said, top
from thresher.scripts.options import plural, progress_bar, read_inputs, write_json

if TYPE_CHECKING:
    from thresher.golden.config import Config
    from thresher.golden.network import CompressedNetwork

__all__ = ["SQUEEZENET", "find_data", "show_photo", "squeezenet"]

SQUEEZENET = "squeezenet"
VARIABLE = "THRESHER_DATA"
PLACES = ("data", "../shared/data")
MODEL = "deep_compression/compressed_SqueezeNet.net"
PHOTOS = "photos"
CLASSES = "imagenet_classes.txt"
SUFFIXES = {".png", ".jpg", ".jpeg"}


def find_data(data: Path | None, file: str = MODEL) -> Path:
    """Return the folder that has a file, by default SqueezeNet's.

    It is looked for in ``data`` if given; else in the folder that the environment variable
    THRESHER_DATA names, if it is set; else in ``data`` and ``../shared/data`` of this folder.

    Raises
    ------
    ThresherError
        If none has it.
    """
    from thresher.golden.errors import ThresherError  # noqa: PLC0415

    if data is not None:
        places = [data]
    elif variable := os.environ.get(VARIABLE):
        places = [Path(variable)]
    else:
        places = [Path(place) for place in PLACES]
    for place in places:
        if (place / file).is_file():
            return place
    looked = " and ".join(str(place / file) for place in places)
    if file != MODEL:
        raise ThresherError(
            f"{Path(file).name} is not part of Thresher, and not there: {looked}; give its folder"
            f" with --data or {VARIABLE}"
        )
    raise ThresherError(
        f"SqueezeNet's weights are not part of Thresher, and not there: {looked}; give their folder"
        f" with --data or {VARIABLE}, the file and its .prototxt are those of"
        " github.com/songhan/SqueezeNet-Deep-Compression"
    )


def squeezenet(data: Path, photo: Path) -> CompressedNetwork:
    """Return SqueezeNet, imported once and kept in the cache folder.

    It is calibrated with the photographs of the data folder, or with ``photo`` if there are none.
    """
    from thresher.golden import compress, read, thr_file  # noqa: PLC0415
    from thresher.sim.builds import cache_folder  # noqa: PLC0415

    model = data / MODEL
    samples = photographs(data) or [photo]
    sources = [Path(module.__file__ or "").parent for module in (compress, read)]
    files = [
        *sorted(model.parent.glob("*")),
        *samples,
        *(file for folder in sources for file in sorted(folder.rglob("*.py"))),
    ]
    digest = hashlib.sha256(str(thr_file.VERSION).encode())
    for file in files:
        if file.is_file():
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    kept = cache_folder() / "networks" / f"{SQUEEZENET}-{digest.hexdigest()[:16]}.thr"
    if kept.is_file():
        try:
            return thr_file.load(kept)
        except thr_file.ThrError:  # it was damaged: make it again
            kept.unlink()
    network = read.read_model(model, read.Calibration(files=tuple(samples)))
    kept.parent.mkdir(exist_ok=True)
    thr_file.save(network, kept)
    return network


def photographs(data: Path) -> list[Path]:
    """Return the photographs of a data folder, by name."""
    folder = data / PHOTOS
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)


def class_names(data: Path | None, count: int) -> list[str] | None:
    """Return the names of the classes, one a line of a file of the data folder, if it fits."""
    file = (data or Path()) / PHOTOS / CLASSES
    if data is None or not file.is_file():
        return None
    names = file.read_text(errors="replace").splitlines()
    return names if len(names) == count else None


def show_photo(
    network: CompressedNetwork,
    photo: Path,
    config: Config,
    *,
    data: Path | None,
    simulator: str | None,
    json: Path | None,
) -> int:
    """Run a network on a photograph, compare all values with golden, and print what it saw."""
    from thresher.sim.run import simulate  # noqa: PLC0415  # heavy

    inputs, _ = read_inputs(str(photo), network)
    with progress_bar(2) as progress:
        done = simulate(
            network, inputs, config, simulator=simulator, every_layer=False, progress=progress
        )
    report = done.report
    output = done.outputs[network.output]
    report["photo"] = str(photo)
    report["top"] = top(network, output, class_names(data, output.size))
    write_json(json, report)
    if str(json) != "-":
        _print(report)
    return 0 if done.comparison is None or done.comparison.equal else 1


def _print(report: dict[str, Any]) -> None:
    sizes, macs = report["bytes"], report["macs_in_bounds"]
    size = f"{report['lanes']} x {report['lanes']}"
    print(f"{report['photo']}:")
    for entry in report["top"]:
        print(f"  {said(entry, gap='  ')}")
    print(
        f"\n{report['network']} in RTL on {size} multipliers, {plural(report['inputs'], 'photo')}:"
    )
    print(
        f"  {report['cycles']:,} cycles, {report['cycles_load']:,} of them loading weights;"
        f" efficiency {report['efficiency']:.3f}"
    )
    print(f"  {macs['both']:,} multiplications of {macs['dense']:,}: the others are by zero")
    print(
        f"  weights {sizes['weights_dense']:,} bytes dense, {sizes['weights_coded']:,} coded;"
        f" activations {sizes['activations_dense']:,} dense, {sizes['activations_coded']:,} coded"
    )
    print(
        f"  {report['sim_cycles_per_second']:,} cycles a second,"
        f" simulator built in {report['build_seconds']:.1f} s"
    )
    if report["first_difference"]:
        print(f"  {report['first_difference']}")
    print(
        f"{report['values_compared']:,} values compared, {report['values_different']} differ;"
        f" {report['counters_compared']} counters, {report['counters_different']} differ"
    )
