"""The house rules that a machine can check: arrows between layers, file lengths, names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "bsipatch"
CSRC = ROOT / "csrc"
MOST_LINES = 550

# Each unit may import itself and what is listed; everything may import the leaves.
LEAVES = {"__init__", "closing", "errors", "_error_texts", "limits", "parallel"}
LEAVES |= {"output", "reading"}
ARROWS: dict[str, set[str]] = {
    "_core": set(),
    "delta": {"_core"},
    "interop": {"delta", "_core"},
    "tree": set(),
    "manifest": {"tree"},
    "package": {"manifest", "tree"},
    "trust": {"package", "manifest", "tree"},
    "store": {"trust", "package", "manifest", "tree", "delta", "interop"},
    "feed": {"trust", "manifest"},
    "publish": {"feed", "trust", "package", "manifest", "tree", "delta", "interop"},
    "fleet": set(),
    "device": {"fleet", "feed", "store", "trust", "package", "manifest", "tree", "delta"},
    "bench": {"delta"},
    "report": {"fleet", "package", "manifest", "tree", "delta", "store", "bench"},
    "cli": {"*"},
    "demo": {"*"},
    "__main__": {"cli"},
}
# The package's own front door may name what it re-exports.
ARROWS["__init__"] = {"delta"}

C_ARROWS: dict[str, set[str]] = {
    "include": set(),
    "common": {"include"},
    "image": {"common"},
    "entropy": {"common"},
    "match": {"image", "common"},
    "predict": {"match", "image", "common"},
    "patch": {"predict", "match", "image", "entropy", "common"},
    "encode": {"patch", "predict", "match", "image", "entropy", "common"},
    "diff": {"encode", "patch", "predict", "match", "image", "entropy", "common", "include"},
    "prepare": {"patch", "predict", "match", "image", "entropy", "common", "include"},
    "apply": {"patch", "predict", "match", "image", "entropy", "common", "include"},
    "inspect": {"patch", "predict", "match", "image", "entropy", "common", "include"},
}

PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))
C_FILES = sorted([*CSRC.rglob("*.c"), *CSRC.rglob("*.h")])
OURS = [
    *PYTHON_FILES,
    *C_FILES,
    *sorted((ROOT / "tests").rglob("*.py")),
    *sorted((ROOT / "bench").rglob("*.py")),
]


def unit_of(path: Path) -> str:
    """The layer a Python file belongs to: its first folder, or its own name."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_units(path: Path) -> set[tuple[int, str]]:
    """Line and unit of every import of ours, those within functions too."""
    found: set[tuple[int, str]] = set()
    here = ("bsipatch", *path.relative_to(PACKAGE).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*here[: len(here) - node.level], *base.split(".")]).rstrip(".")
            names = (
                [f"{base}.{alias.name}" for alias in node.names] if base == "bsipatch" else [base]
            )
        for name in names:
            parts = name.split(".")
            if parts[0] != "bsipatch":
                continue
            unit = parts[1] if len(parts) > 1 else "__init__"
            if not (PACKAGE / unit).is_dir() and not (PACKAGE / f"{unit}.py").exists():
                unit = "__init__"  # a name that the package itself defines
            found.add((node.lineno, unit))
    return found


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_python_arrows(path: Path) -> None:
    unit = unit_of(path)
    if unit in LEAVES - {"__init__"}:
        allowed = LEAVES
    else:
        assert unit in ARROWS, f"{unit} is a new unit: give it a place in ARROWS"
        allowed = ARROWS[unit] | LEAVES | {unit}
    if "*" in allowed:
        return
    wrong = {(line, name) for line, name in imported_units(path) if name not in allowed}
    assert not wrong, f"{unit} must not import these (line, unit)"


def test_only_core_touches_ffi() -> None:
    for path in PYTHON_FILES:
        text = path.read_text()
        if unit_of(path) != "_core":
            assert "_bsipatch" not in text, path
            assert not re.search(r"^\s*(import cffi|from cffi)", text, re.M), path
    touching = [p.name for p in (PACKAGE / "_core").glob("*.py") if "import ffi" in p.read_text()]
    assert sorted(touching) == ["_account.py", "_guard.py", "_native.py", "_sha256.py"]


def test_trust_writes_no_files_and_store_knows_no_network() -> None:
    network = re.compile(r"^\s*(?:import|from) (socket|ssl|http|urllib|requests|httpx)\b", re.M)
    for path in (PACKAGE / "store").rglob("*.py"):
        assert not network.search(path.read_text()), path
    writing = re.compile(r"\.write_(?:bytes|text)\(|os\.write\(|O_CREAT|open\([^)]*['\"][wax]b?")
    for path in (PACKAGE / "trust").rglob("*.py"):
        assert not writing.search(path.read_text()), path


def c_unit(path: Path) -> str:
    return path.relative_to(CSRC).with_suffix("").parts[0]


@pytest.mark.parametrize(
    "path", [p for p in C_FILES if c_unit(p) != "fuzz"], ids=lambda p: str(p.relative_to(CSRC))
)
def test_c_arrows(path: Path) -> None:
    unit = c_unit(path)
    assert unit in C_ARROWS, f"{unit} is a new unit: give it a place in C_ARROWS"
    for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(), re.M):
        target = (path.parent / name).resolve()
        assert target.is_file(), f"{name} is not a file beside {path.name}"
        assert c_unit(target) in C_ARROWS[unit] | {unit}, f"{unit} must not include {name}"


@pytest.mark.parametrize(
    "path", [p for p in C_FILES if p.suffix == ".c" and c_unit(p) != "fuzz"], ids=lambda p: p.name
)
def test_c_files_open_with_their_job(path: Path) -> None:
    assert path.read_text().startswith("/* "), "one sentence on its job first"


def test_core_never_prints_aborts_or_exits() -> None:
    wrong = re.compile(r"\b(?:printf|fprintf|puts|perror|abort|exit|assert)\s*\(")
    for path in C_FILES:
        if c_unit(path) != "fuzz":
            code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
            assert not wrong.search(code), path


def test_only_the_heap_allocates() -> None:
    for path in C_FILES:
        if c_unit(path) != "fuzz" and path.name != "memory.c":
            code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
            assert not re.search(r"\b(?:malloc|calloc|realloc|free)\s*\(", code), path


@pytest.mark.parametrize("path", OURS, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_old_and_new_are_called_old_and_new() -> None:
    for path in C_FILES:
        code = re.sub(r'/\*.*?\*/|"[^"\n]*"', "", path.read_text(), flags=re.S)
        assert not re.search(r"\b\w*(?:\b|_)(?:src|dst)(?:\b|_)\w*", code), path
    for path in PYTHON_FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword):
                continue  # the standard library's own names, such as src_dir_fd
            name = getattr(node, "id", None) or getattr(node, "arg", None)
            if isinstance(name, str):
                assert not {"src", "dst"} & set(name.lower().split("_")), (path, name)
