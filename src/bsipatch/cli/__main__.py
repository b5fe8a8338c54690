"""`python -m bsipatch.cli`, the same as `bsipatch`."""

from __future__ import annotations

from . import main

main()
