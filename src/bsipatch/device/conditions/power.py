"""Power source and battery floor, from /sys/class/power_supply."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ._answer import Answer, read_text

SUPPLIES = Path("/sys/class/power_supply")
_MAINS = frozenset({"Mains", "USB", "USB_C", "USB_PD", "Wireless"})
_CHARGED = frozenset({"Charging", "Full", "Not charging"})


@dataclass(frozen=True, slots=True)
class _Battery:
    name: str
    percent: int
    status: str
    #: energy (or charge) when full, to weigh several batteries; 0 when unknown
    full: int


@dataclass(frozen=True, slots=True)
class Power:
    """Ok on mains power, or with at least `floor` percent of battery."""

    floor: int
    root: Path = SUPPLIES
    name: str = "power"

    def ask(self, now: float) -> Answer:
        """Reads every supply that feeds the machine; those of mice and headsets do not."""
        batteries, mains, told = self._read()
        evidence: dict[str, object] = {"floor": self.floor, "supplies": told}
        if not batteries:
            known = bool(mains)
            text = "on mains power" if known else "no battery found, so mains power is assumed"
            return self._answer(True, text, evidence, known)
        percent = _together(batteries)
        evidence["percent"] = percent
        plugged = any(mains.values()) or any(one.status in _CHARGED for one in batteries)
        if plugged:
            return self._answer(True, f"on mains power, battery at {percent} %", evidence)
        if percent >= self.floor:
            text = f"battery at {percent} %, {self.floor} % is enough"
            return self._answer(True, text, evidence)
        text = f"battery at {percent} %, at least {self.floor} % or mains power is needed"
        return self._answer(False, text, evidence)

    def _answer(
        self, ok: bool, text: str, evidence: dict[str, object], known: bool = True
    ) -> Answer:
        return Answer(
            name=self.name, ok=ok, code="battery", text=text, known=known, evidence=evidence
        )

    def _read(self) -> tuple[list[_Battery], dict[str, bool], dict[str, dict[str, str]]]:
        """Batteries, whether each mains supply is on, and everything as it was read."""
        batteries: list[_Battery] = []
        mains: dict[str, bool] = {}
        told: dict[str, dict[str, str]] = {}
        try:
            folders = sorted(self.root.iterdir())
        except OSError:
            folders = []
        for folder in folders:
            kind = read_text(folder / "type") or ""
            if read_text(folder / "scope") == "Device":
                continue
            if kind in _MAINS:
                online = read_text(folder / "online") or "0"
                mains[folder.name] = online not in ("", "0")
                told[folder.name] = {"type": kind, "online": online}
            elif kind == "Battery" and read_text(folder / "present") != "0":
                capacity = read_text(folder / "capacity")
                if capacity is None or not capacity.isdigit():
                    continue
                status = read_text(folder / "status") or "Unknown"
                full = read_text(folder / "energy_full") or read_text(folder / "charge_full") or ""
                percent = min(int(capacity), 100)
                weight = int(full) if full.isdigit() else 0
                batteries.append(_Battery(folder.name, percent, status, weight))
                told[folder.name] = {"type": kind, "capacity": capacity, "status": status}
        return batteries, mains, told


def _together(batteries: list[_Battery]) -> int:
    """The percentage of all batteries; by their size when every one tells it, rounded down."""
    if all(one.full for one in batteries):
        whole = sum(one.full for one in batteries)
        return sum(one.full * one.percent for one in batteries) // whole
    return sum(one.percent for one in batteries) // len(batteries)
