"""The import root and the folders are one and the same code, and a wheel has all of it."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import thresher

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("golden", "hw", "sim", "scripts")


@pytest.mark.parametrize("name", FOLDERS)
def test_package_is_a_link_to_the_folder_of_its_name(name: str) -> None:
    link = ROOT / "src" / "thresher" / name
    assert link.is_symlink()
    assert link.readlink() == Path("../..") / name
    assert (Path(thresher.__file__).parent / name).resolve() == ROOT / name


@pytest.mark.parametrize("name", FOLDERS)
def test_every_folder_with_code_is_a_package(name: str) -> None:
    folders = {path.parent for path in (ROOT / name).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_golden_does_not_import_hardware() -> None:
    for path in (ROOT / "golden").rglob("*.py"):
        assert not re.search(r"(?m)^ *(from|import) thresher\.hw", path.read_text()), path


@pytest.mark.parametrize("name", ["demo", "test", "setup"])
def test_set_up_scripts_are_valid_shell(name: str) -> None:
    subprocess.run(["sh", "-n", str(ROOT / "scripts" / name)], check=True)


def test_wheel_has_every_file(tmp_path: Path) -> None:
    # The tools of this environment build it, so that the test needs no network.
    pytest.importorskip("setuptools", minversion="77")
    program = (
        "from setuptools import build_meta; import sys;"
        f"sys.argv[1:] = []; build_meta.build_wheel({str(tmp_path)!r},"
        f" {{'--build-option': ['--bdist-dir={tmp_path / 'build'}']}})"
    )
    source = tmp_path / "source"
    copied = ["pyproject.toml", "README.md", "LICENSE", "src", *FOLDERS]
    source.mkdir()
    subprocess.run(["cp", "-a", *(str(ROOT / name) for name in copied), str(source)], check=True)
    subprocess.run([sys.executable, "-c", program], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    suffixes = {".py", ".thr", ".npz", ".sv", ".vlt"}
    wanted = {
        f"thresher/{path.relative_to(ROOT)}"
        for name in FOLDERS
        for path in (ROOT / name).rglob("*")
        if path.suffix in suffixes
    }
    assert wanted - packed == set()
