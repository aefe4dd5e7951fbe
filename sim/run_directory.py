"""A run's directory: it appears when the run is complete, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from thresher.golden.errors import ThresherError

__all__ = ["new_directory"]


@contextmanager
def new_directory(run_dir: Path | None) -> Iterator[Path | None]:
    """Give a folder to write a run to, which becomes ``run_dir`` unless the block raises.

    Parameters
    ----------
    run_dir
        Missing folders above it are made; an earlier run there is replaced. None: there is no
        folder.

    Raises
    ------
    ThresherError
        If it cannot be written, or has files that are not a run's.
    """
    if run_dir is None:
        yield None
        return
    _check_target(run_dir)
    folders = _missing_folders(run_dir)
    work = None
    try:
        work = _temporary_beside(run_dir)
        yield work
        _replace(work, run_dir)
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
        for folder in folders:
            with suppress(OSError):  # it has the run
                folder.rmdir()


def _check_target(run_dir: Path) -> None:
    if run_dir.exists() and not run_dir.is_dir():
        raise ThresherError(f"{run_dir} is a file: give another place for the run (-o)")
    if run_dir.exists() and any(run_dir.iterdir()) and not (run_dir / "run.json").exists():
        raise ThresherError(
            f"{run_dir} has files that are not a run's: give another place for the run (-o)"
        )


def _temporary_beside(run_dir: Path) -> Path:
    try:
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{run_dir.name}-", dir=run_dir.parent))
    except OSError as error:
        raise ThresherError(
            f"{run_dir} cannot be written ({error.strerror}): give another place for the run (-o)"
        ) from error


def _missing_folders(run_dir: Path) -> list[Path]:
    """Folders above ``run_dir`` that are to be made, the innermost first."""
    return [folder for folder in run_dir.parents if not folder.exists()]


def _replace(work: Path, run_dir: Path) -> None:
    work.chmod(0o777 & ~_umask())
    for wave in work.glob("wave.gtkw"):  # it names the waveform where it will be
        wave.write_text(wave.read_text().replace(str(work.resolve()), str(run_dir.resolve())))
    if run_dir.exists():
        shutil.rmtree(run_dir)
    work.rename(run_dir)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
