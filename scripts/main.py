"""The ``thresher`` command: finds the verb, and makes one line of an error."""

from __future__ import annotations

import keyword
import os
import sys
import traceback

from cyclopts import App, CycloptsError

__all__ = ["VERBS", "app", "main"]

OK, MISMATCH, BAD_USE = 0, 1, 2

app = App(
    name="thresher",
    help="Compressed neural networks on generated hardware, with open tools only.",
    help_on_error=False,
)
VERBS = {
    "demo": (
        "Run LeNet-5 on several digits, or SqueezeNet on a photograph, on the simulated hardware.",
        [
            "thresher demo",
            "thresher demo lenet-300-100 --input mnist:0-9 --lanes 2",
            "thresher demo --network squeezenet --photo cat.png --data DIR",
        ],
    ),
    "compress": (
        "Compress a dense network (.npz) to a .thr file.",
        ["thresher compress dense.npz -o net.thr --density 0.1 --calibration x.npy"],
    ),
    "import": (
        "Import a TFLite, ONNX or Deep Compression model to a .thr file.",
        [
            "thresher import model_int8.tflite -o net.thr",
            "thresher import model.onnx --calibrate x.npy --percentile 99.9",
            "thresher import model.tflite --check",
        ],
    ),
    "generate": (
        "Write the Verilog of a machine.",
        [
            "thresher generate lenet-5 --lanes 4 --multiplier shift -o rtl",
            "thresher generate --lanes 8 --set tap_depth=8192 --split -o rtl",
        ],
    ),
    "simulate": (
        "Run a network on the simulated hardware and compare it with golden.",
        [
            "thresher simulate lenet-5 --input mnist:0-9 --lanes 4 -o run",
            "thresher simulate net.thr --input x.npy --skip none --json figures.json",
        ],
    ),
    "estimate": (
        "Predict the cycles of a network without simulating its hardware.",
        [
            "thresher estimate lenet-5 --input mnist:0-9 --lanes 4",
            "thresher estimate --shapes resnet-50 --densities 0.3,0.5 --lanes 8",
        ],
    ),
    "compare": (
        "Compare a run with golden again, value by value.",
        ["thresher compare run"],
    ),
    "synth": (
        "Show the area and the clock of a machine on an ECP5.",
        [
            "thresher synth --lanes 4",
            "thresher synth --lanes 2 --place --seed 2 --path",
            "thresher synth --lanes 4 --multiplier all --place",
        ],
    ),
    "energy": (
        "Show the bytes that a run moved, and its energy.",
        ["thresher energy run", "thresher energy run --figures my_process.json --json -"],
    ),
    "bench": (
        "Measure the machine on workloads of published cycle counts.",
        ["thresher bench --quick", "thresher bench --groups peers,gemm --json figures.json"],
    ),
    "doctor": (
        "Show the tools that are found, and what to do about those that are not.",
        ["thresher doctor", "thresher doctor --json -"],
    ),
    "inspect": (
        "Show the table of a network.",
        ["thresher inspect lenet-5", "thresher inspect net.thr --json -"],
    ),
}
# A verb's module is imported when it is called, so that help comes at once.
for _name, (_help, _examples) in VERBS.items():
    _python_name = f"{_name}_" if keyword.iskeyword(_name) else _name
    app.command(
        f"thresher.scripts.{_python_name}:{_python_name}",
        name=_name,
        help=_help,
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
