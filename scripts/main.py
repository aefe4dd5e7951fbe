"""The ``thresher`` command: finds the verb, and makes one line of an error."""

from __future__ import annotations

import sys

from cyclopts import App, CycloptsError

__all__ = ["app", "main"]

OK, MISMATCH, BAD_USE = 0, 1, 2

app = App(
    name="thresher",
    help="Compressed neural networks on generated hardware, with open tools only.",
    help_on_error=False,
)
# A verb's module is imported when it is called, so that help comes at once.
for _name, _help in {
    "demo": "Run LeNet-5 on several digits on the simulated hardware.",
    "compress": "Compress a dense network (.npz) to a .thr file.",
    "generate": "Write the Verilog of a machine.",
    "simulate": "Run a network on the simulated hardware and compare it with golden.",
    "compare": "Compare a run with golden again, value by value.",
    "doctor": "Show the tools that are found, and what to do about those that are not.",
    "inspect": "Show the table of a network.",
}.items():
    app.command(f"thresher.scripts.{_name}:{_name}", name=_name, help=_help)


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
    except (ValueError, TypeError, OSError) as error:
        _fail(str(error) or type(error).__name__)
    except KeyboardInterrupt:
        sys.exit(130)
    else:
        sys.exit(code if isinstance(code, int) else OK)


def _fail(text: str) -> None:
    print(f"thresher: error: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(BAD_USE)


if __name__ == "__main__":
    main()
