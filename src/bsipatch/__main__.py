"""`python -m bsipatch`, the same as `bsipatch`."""

from __future__ import annotations

from .cli import main

main()
