"""Free space for an update, beside the reserve that must stay."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ...limits import DEFAULT, Limits
from ._answer import Answer


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """Ok when `need` bytes fit on the file system of `path` and the reserve stays free."""

    path: Path
    need: int
    limits: Limits = DEFAULT
    name: str = "space"

    def ask(self, now: float) -> Answer:
        """Asks the file system."""
        wanted = self.need + self.limits.reserve_space
        try:
            found = os.statvfs(self.path)
        except OSError as error:
            return Answer(
                name=self.name,
                ok=True,
                code="space",
                known=False,
                text=f"cannot tell the free space of {self.path}: {error.strerror}",
                evidence={"path": str(self.path), "need": wanted},
            )
        free = found.f_bavail * found.f_frsize
        ok = free >= wanted
        text = f"{free:,} bytes free, {wanted:,} needed"
        return Answer(
            name=self.name,
            ok=ok,
            code="space",
            text=text if ok else f"not enough free space: {text}",
            evidence={"path": str(self.path), "free": free, "need": wanted},
        )
