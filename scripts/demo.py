"""``thresher demo``: LeNet-5 on several digits, or SqueezeNet on a photograph, in RTL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from thresher.scripts.options import (
    JsonFile,
    Lanes,
    SimulatorName,
    check_json,
    make_config,
    plural,
    progress_bar,
    read_inputs,
    write_json,
)

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["demo"]

SHADES = " .:-=+*#%@"
ACROSS = 4  # digits beside one another


def demo(
    network: str = "lenet-5",
    *,
    photo: Path | None = None,
    input: Annotated[str, Parameter(name=["--input", "-i"])] = "mnist:0-3",
    data: Path | None = None,
    lanes: Lanes | None = None,
    simulator: SimulatorName | None = None,
    json: JsonFile = None,
) -> int:
    """Run LeNet-5 on several digits, or SqueezeNet on a photograph, on the simulated hardware.

    Digits are run with and without skipping zeros. SqueezeNet is that of Deep Compression's
    authors.

    Parameters
    ----------
    network
        A .thr file, or lenet-300-100, lenet-5 or squeezenet.
    photo
        A picture, for a network that takes pictures; by default, of squeezenet, the first one of
        the data folder. It prints what the network sees.
    input
        Digits, as mnist:0-9, or a .npy file.
    data
        Folder of deep_compression/compressed_SqueezeNet.net, which is not part of Thresher; by
        default the environment's THRESHER_DATA, or else ./data or ../shared/data.
    lanes
        P; the array has P x P multipliers. By default 4, and 8 for a photograph.
    simulator
        By default Verilator, or the environment's SIM.
    """
    from thresher.scripts.photo import SQUEEZENET  # noqa: PLC0415

    check_json(json)
    if network == SQUEEZENET or photo is not None:
        return _show_photo(network, photo, data, lanes=lanes or 8, simulator=simulator, json=json)
    return _show_digits(network, input, lanes or 4, simulator, json)


def _show_photo(
    network: str,
    photo: Path | None,
    data: Path | None,
    *,
    lanes: int,
    simulator: str | None,
    json: Path | None,
) -> int:
    """Run a network on a picture."""
    from thresher.golden.builtin import resolve_network  # noqa: PLC0415
    from thresher.golden.errors import ThresherError  # noqa: PLC0415
    from thresher.scripts.photo import (  # noqa: PLC0415
        SQUEEZENET,
        find_data,
        photographs,
        show_photo,
        squeezenet,
    )

    if network == SQUEEZENET:
        data = find_data(data)
        photo = photo or next(iter(photographs(data)), None)
        if photo is None:
            raise ThresherError(f"{data} has no photographs: give one with --photo")
    assert photo is not None
    net = squeezenet(data, photo) if data and network == SQUEEZENET else resolve_network(network)
    config = make_config(lanes, str(net.multiplier), None)
    return show_photo(net, photo, config, data=data, simulator=simulator, json=json)


def _show_digits(
    network: str, spec: str, lanes: int, simulator: str | None, json: Path | None
) -> int:
    """Run a network on digits, with and without skipping zeros."""
    from thresher.golden.builtin import resolve_network  # noqa: PLC0415
    from thresher.golden.config import Skip  # noqa: PLC0415
    from thresher.sim.run import simulate  # noqa: PLC0415  # heavy

    net = resolve_network(network)
    inputs, labels = read_inputs(spec, net)
    config = make_config(lanes, str(net.multiplier), None)
    with progress_bar(6) as progress:
        runs = {
            skip: simulate(net, inputs, config, skip, simulator=simulator, progress=progress)
            for skip in (Skip.BOTH, Skip.NONE)
        }
    both, none = (runs[skip].report for skip in (Skip.BOTH, Skip.NONE))
    speed_up = (none["cycles"] - none["cycles_load"]) / (both["cycles"] - both["cycles_load"])
    figures = {
        "both": both,
        "none": none,
        "speed_up": round(speed_up, 3),
        "labels": None if labels is None else labels.tolist(),
    }
    write_json(json, figures)
    if str(json) != "-":
        _print_digits(inputs, both["predictions"], figures["labels"])
        _print_runs(both, none, speed_up)
    equal = all(
        report["values_different"] == report["counters_different"] == 0 for report in (both, none)
    )
    return 0 if equal else 1


def _print_runs(both: dict[str, Any], none: dict[str, Any], speed_up: float) -> None:
    """Print what skipping zeros bought."""
    sizes, lanes = both["bytes"], both["lanes"]
    print(
        f"{both['network']} in RTL on {lanes} x {lanes} multipliers,"
        f" {plural(both['inputs'], 'input')}:"
    )
    print(
        f"  {both['cycles']:,} cycles, {both['cycles_load']:,} of them loading weights;"
        f" {both['cycles_per_input']:,.0f} an input"
    )
    print(
        f"  {speed_up:.2f} times as fast as mode none on the same array"
        f" ({none['cycles_per_input']:,.0f} cycles an input)"
    )
    print(
        f"  weights {sizes['weights_dense']:,} bytes dense, {sizes['weights_coded']:,} coded;"
        f" activations {sizes['activations_dense']:,} dense,"
        f" {sizes['activations_coded']:,} coded"
    )
    print(
        f"  {both['sim_cycles_per_second']:,} cycles a second,"
        f" simulator built in {both['build_seconds']:.1f} s"
    )
    for report in (both, none):
        if report["first_difference"]:
            print(f"  mode {report['skip']}: {report['first_difference']}")
    compared = both["values_compared"] + none["values_compared"]
    different = both["values_different"] + none["values_different"]
    print(f"{compared:,} values compared, {different} differ")


def _print_digits(
    inputs: npt.NDArray[Any], predictions: list[int], labels: list[int] | None
) -> None:
    """Print one-channel maps as text, with what the machine took them for."""
    for first in range(0, len(inputs), ACROSS):
        group = range(first, min(first + ACROSS, len(inputs)))
        if inputs.shape[1] == 1:
            arts = [_text_art(inputs[number, 0]) for number in group]
            for lines in zip(*arts, strict=True):
                print("".join(lines).rstrip())
        width = inputs.shape[3]
        captions = [
            f"says {predictions[number]}" + (f", is {labels[number]}" if labels is not None else "")
            for number in group
        ]
        print("".join(caption.center(max(width, 12)) for caption in captions).rstrip())
        print()


def _text_art(image: npt.NDArray[Any]) -> list[str]:
    """Two rows of pixels to a line of text."""
    import numpy as np  # noqa: PLC0415

    rows = image[: len(image) // 2 * 2].reshape(-1, 2, image.shape[1]).mean(axis=1)
    span = max(1, int(image.max()) - int(image.min()))
    shades = np.rint((rows - image.min()) / span * (len(SHADES) - 1)).astype(int)
    return ["".join(SHADES[shade] for shade in row) for row in shades]
