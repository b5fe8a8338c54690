"""Whether the network is metered: from a file that says so, else from NetworkManager."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ._answer import Answer, Runner, read_text, run_command

#: a word in this file wins: yes, no or unknown
OVERRIDE = Path("/run/bsipatch/metered")
_NM = "org.freedesktop.NetworkManager"
_BUSCTL = (
    *("busctl", "--system", "--json=short", "--timeout=3", "get-property"),
    *(_NM, "/org/freedesktop/NetworkManager", _NM, "Metered"),
)
_NMCLI = ("nmcli", "--terse", "--fields", "GENERAL.STATE,GENERAL.METERED", "device", "show")
#: NMMetered of NetworkManager's D-Bus interface: (metered, in its words)
_VALUES = {1: (True, "yes"), 2: (False, "no"), 3: (True, "guess-yes"), 4: (False, "guess-no")}


@dataclass(frozen=True, slots=True)
class MeteredNetwork:
    """Ok unless the network is metered; one that nobody can tell counts as not metered."""

    allow: bool = False
    override: Path = OVERRIDE
    run: Runner = run_command
    name: str = "network"

    def ask(self, now: float) -> Answer:
        """Asks the file, then NetworkManager over D-Bus, then nmcli."""
        metered, evidence = self._metered()
        if metered is None:
            text = "nobody can tell whether the network is metered; taken as not metered"
        elif not metered:
            text = "the network is not metered"
        elif self.allow:
            text = "the network is metered, which is allowed"
        else:
            text = "the network is metered"
        return Answer(
            name=self.name,
            ok=self.allow or not metered,
            code="metered",
            text=text,
            known=metered is not None,
            evidence=evidence,
        )

    def _metered(self) -> tuple[bool | None, dict[str, object]]:
        word = read_text(self.override)
        if word is not None:
            evidence: dict[str, object] = {"source": str(self.override), "value": word[:32]}
            return {"yes": True, "no": False}.get(word.lower()), evidence
        for source, arguments, read in (
            ("busctl", _BUSCTL, _from_busctl),
            ("nmcli", _NMCLI, _from_nmcli),
        ):
            output = self.run(arguments)
            found = None if output is None else read(output)
            if found is not None:
                return found[0], {"source": source, "value": found[1]}
        return None, {"source": "none", "value": "unknown"}


def _from_busctl(output: str) -> tuple[bool, str] | None:
    try:
        value = json.loads(output)["data"]
    except (ValueError, KeyError, TypeError):
        return None
    return _VALUES.get(value) if isinstance(value, int) else None


def _from_nmcli(output: str) -> tuple[bool, str] | None:
    """Metered when any connected device is; devices are apart by empty lines."""
    words = []
    for block in output.split("\n\n"):
        fields = dict(line.partition(":")[::2] for line in block.splitlines())
        if fields.get("GENERAL.STATE", "").startswith("100"):
            words.append(fields.get("GENERAL.METERED", "unknown"))
    metered = [word for word in words if word.startswith("yes")]
    if metered:
        return True, metered[0]
    free = [word for word in words if word.startswith("no")]
    return (False, free[0]) if free else None
