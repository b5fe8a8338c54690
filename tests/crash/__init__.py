"""Power cuts, faults and planted bugs: what the store promises, shown on real file systems.

docs/testing-crashes.md describes how; `python -m tests.crash --help` runs it.
"""
