"""The ``thresher`` command: finds the verb, and makes one line of an error."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from cyclopts import App, CycloptsError

from thresher.scripts.bench import bench
from thresher.scripts.compare import compare
from thresher.scripts.compress import compress
from thresher.scripts.demo import demo
from thresher.scripts.doctor import doctor
from thresher.scripts.energy import energy
from thresher.scripts.estimate import estimate
from thresher.scripts.generate import generate
from thresher.scripts.import_ import import_
from thresher.scripts.inspect import inspect
from thresher.scripts.simulate import simulate
from thresher.scripts.synth import synth

__all__ = ["VERBS", "app", "main"]

OK, MISMATCH, BAD_USE = 0, 1, 2

app = App(
    name="thresher",
    help="Compressed neural networks on generated hardware, with open tools only.",
    help_on_error=False,
)
VERBS: dict[Callable[..., int], list[str]] = {
    demo: [
        "thresher demo",
        "thresher demo lenet-300-100 --input mnist:0-9 --lanes 2",
        "thresher demo --network squeezenet --photo cat.png --data DIR",
    ],
    compress: [
        "thresher compress dense.npz -o net.thr --density 0.1 --calibration x.npy",
    ],
    import_: [
        "thresher import model_int8.tflite -o net.thr",
        "thresher import model.onnx --calibrate x.npy --percentile 99.9",
        "thresher import model.tflite --check",
    ],
    generate: [
        "thresher generate lenet-5 --lanes 4 --multiplier shift -o rtl",
        "thresher generate --lanes 8 --set tap_depth=8192 --split -o rtl",
    ],
    simulate: [
        "thresher simulate lenet-5 --input mnist:0-9 --lanes 4 -o run",
        "thresher simulate net.thr --input x.npy --skip none --json figures.json",
    ],
    estimate: [
        "thresher estimate lenet-5 --input mnist:0-9 --lanes 4",
        "thresher estimate --shapes resnet-50 --densities 0.3,0.5 --lanes 8",
    ],
    compare: [
        "thresher compare run",
    ],
    synth: [
        "thresher synth --lanes 4",
        "thresher synth --lanes 2 --place --seed 2 --path",
        "thresher synth --lanes 4 --multiplier all --place",
    ],
    energy: [
        "thresher energy run",
        "thresher energy run --figures my_process.json --json -",
    ],
    bench: [
        "thresher bench --quick",
        "thresher bench --groups peers,gemm --json figures.json",
    ],
    doctor: [
        "thresher doctor",
        "thresher doctor --json -",
    ],
    inspect: [
        "thresher inspect lenet-5",
        "thresher inspect net.thr --json -",
    ],
}
"""Examples of each verb. The rest of its help is its docstring."""

for _verb, _examples in VERBS.items():
    app.command(
        _verb,
        name=_verb.__name__.rstrip("_"),
        help_epilogue="\n".join(["Examples:", "", *(f"    {line}" for line in _examples)]),
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0, 1 for a mismatch, 2 for bad use or input."""
    try:
        code = app(
            sys.argv[1:] if arguments is None else arguments,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        _fail(f"{error} (thresher --help shows what there is)")
    except MemoryError:
        _fail("not enough memory: run fewer inputs at once")
    except BrokenPipeError:  # the reader of the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(OK)
    except (ValueError, TypeError, OSError) as error:
        _fail(str(error) or type(error).__name__)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # not 1, which says that a value differs
        traceback.print_exc()
        _fail(f"this is a fault of Thresher, please report it: {error!r}")
    else:
        sys.exit(code if isinstance(code, int) else OK)


def _fail(text: str) -> None:
    print(f"thresher: error: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(BAD_USE)


if __name__ == "__main__":
    main()
