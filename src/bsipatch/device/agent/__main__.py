"""The resident agent's own start, without the command line's weight."""

from __future__ import annotations

import sys
from pathlib import Path

from ...errors import BsipatchError
from .resident import Resident, doors


def main(arguments: list[str]) -> int:
    """ROOT EVERY METRICS; "" for what was left out. The exit code."""
    root, every, metrics = arguments
    try:
        found = doors(metrics or None)
        return Resident(Path(root), float(every) if every else None, found).run()
    except BsipatchError as error:
        print(f"bsipatch: {error}", file=sys.stderr, flush=True)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
