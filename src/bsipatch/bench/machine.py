"""The machine and the commit, for the head of the results."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from bsipatch import __version__
from bsipatch.bench.contenders import Contender
from bsipatch.bench.measure import fields
from bsipatch.bench.results import Machine, Program, Results
from bsipatch.parallel import job_count


def machine(work: Path) -> Machine:
    """This one; `work` is where files will be written."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory = fields(Path("/proc/meminfo")).get("MemTotal", pages)
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor(),
        cores=job_count(None, 1 << 16),
        memory=memory,
        file_system=_file_system(work),
        python=platform.python_version(),
        load=round(os.getloadavg()[0], 2),
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model"):
                return value.strip()
    except OSError:
        if sys.platform == "darwin":
            return _output("sysctl", "-n", "machdep.cpu.brand_string")
    return platform.processor() or platform.machine()


def _file_system(path: Path) -> str:
    """The kind of file system below which `path` lies."""
    best, kind = "", "unknown"
    try:
        mounts = Path("/proc/self/mounts").read_text()
    except OSError:
        return kind
    real = os.path.realpath(path)
    for line in mounts.splitlines():
        point, found = line.split(" ")[1:3]
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, found
    return kind


def _output(*command: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def commit() -> str:
    """The commit of the checkout this runs from, "+" behind it when files differ; else the
    release."""
    here = Path(__file__).resolve().parent
    name = _output("git", "rev-parse", "--short=12", "HEAD", cwd=here)
    if not name or not _output("git", "ls-files", "__init__.py", cwd=here.parent):
        return __version__
    changed = _output("git", "status", "--porcelain", "--untracked-files=no", cwd=here)
    return name + ("+" if changed else "")


def begin(contenders: tuple[Contender, ...], work: Path) -> Results:
    """Results without any runs yet."""
    programs = []
    for one in contenders:
        missing = one.missing()
        programs.append(
            Program(
                name=one.name,
                label=one.label,
                version="" if missing else one.version(),
                missing=missing,
                verifies=one.verifies,
                durable=one.durable,
                ours=one.ours,
            )
        )
    return Results(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit(),
        machine=machine(work),
        contenders=programs,
        pairs=[],
        runs=[],
        skipped=[],
        phases={},
    )
