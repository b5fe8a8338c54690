"""Whether anybody uses the machine: load, pressure, and logind's idle hint."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ._answer import Answer, Runner, read_text, run_command

PROC = Path("/proc")
_LOGIND = "org.freedesktop.login1"
_BUSCTL = (
    *("busctl", "--system", "--json=short", "--timeout=3", "get-property", _LOGIND),
    *("/org/freedesktop/login1", f"{_LOGIND}.Manager", "IdleHint"),
)
_LOGINCTL = ("loginctl", "show-session", "--property=IdleHint")


@dataclass(frozen=True, slots=True)
class Idle:
    """Ok while load and pressure are low and no session is in use.

    `load` is the load average of one minute for each processor; `pressure` percent
    of the last ten seconds in which something waited for a processor, the disk or memory.
    What the system does not tell (no PSI, no logind) does not count.
    """

    load: float = 0.7
    pressure: float = 25.0
    root: Path = PROC
    run: Runner = run_command
    cpus: int | None = None
    name: str = "idle"

    def ask(self, now: float) -> Answer:
        """Reads /proc and asks logind."""
        busy: list[str] = []
        evidence: dict[str, object] = {}
        load = self._load()
        if load is not None:
            evidence["load"] = load
            if load > self.load:
                busy.append(f"the load is {load:.2f} for each processor, over {self.load:.2f}")
        for resource in ("cpu", "io", "memory"):
            share = self._pressure(resource)
            if share is not None:
                evidence[f"pressure_{resource}"] = share
                if share > self.pressure:
                    what = {"cpu": "processors", "io": "the disk", "memory": "memory"}[resource]
                    busy.append(f"something waited for {what} {share:.0f} % of the time")
        hint = self._hint()
        if hint is not None:
            evidence["idle_hint"] = hint
            if not hint:
                busy.append("somebody is using it")
        return Answer(
            name=self.name,
            ok=not busy,
            code="idle",
            text=f"in use: {busy[0]}" if busy else "idle",
            known=bool(evidence),
            evidence={**evidence, "busy": busy},
        )

    def _load(self) -> float | None:
        text = read_text(self.root / "loadavg")
        try:
            return round(float((text or "").split()[0]) / self._processors(), 2)
        except (ValueError, IndexError):
            return None

    def _processors(self) -> int:
        return self.cpus or os.cpu_count() or 1

    def _pressure(self, resource: str) -> float | None:
        for line in (read_text(self.root / "pressure" / resource) or "").splitlines():
            words = line.split()
            if words and words[0] == "some":
                for word in words[1:]:
                    name, _, value = word.partition("=")
                    if name == "avg10":
                        try:
                            return float(value)
                        except ValueError:
                            return None
        return None

    def _hint(self) -> bool | None:
        """logind's hint over all sessions: True when nobody is there."""
        output = self.run(_BUSCTL)
        if output is not None:
            try:
                data = json.loads(output)["data"]
            except (ValueError, KeyError, TypeError):
                data = None
            if isinstance(data, bool):
                return data
        output = self.run(_LOGINCTL)
        words = {"IdleHint=yes": True, "IdleHint=no": False}
        return words.get((output or "").strip())
