"""Where the time goes: `python -m bsipatch.bench.phases diff|apply ...` prints JSON.

Listens to the progress that every long call reports some times a second, and charges the
time between two reports to the phase that the later one names.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from pathlib import Path


class Clock:
    """Charges time to phases."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.perf_counter()
        self.spent["start" if phase == "idle" else phase] += now - self._last
        self._last = now


def main(verb: str, first: str, second: str, third: str, profile: str, jobs: str) -> None:
    """diff OLD NEW PATCH, apply OLD PATCH NEW. Prints {phase: seconds}."""
    from bsipatch import delta

    clock = Clock()
    paths = (Path(first), Path(second), Path(third))
    if verb == "diff":
        delta.diff(*paths, profile=profile, jobs=int(jobs), progress=clock)
    else:
        delta.patch(*paths, jobs=int(jobs), progress=clock)
    clock("finish", 0, 0)
    print(json.dumps({name: round(seconds, 4) for name, seconds in clock.spent.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
