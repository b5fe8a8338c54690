"""`bsipatch exit-codes`: the one table of exit codes."""

from __future__ import annotations

from . import _output
from ._options import Json


def command(json: Json = False) -> None:
    """Show what each exit code means.

    Example:

      bsipatch exit-codes --json
    """
    from ..errors import error_classes

    codes = {0: ("", "success")}
    for cls in error_classes().values():
        told = cls()
        codes[cls.exit_code] = (told.code, told.summary)
    facts = {
        "exit_codes": [
            {"exit_code": number, "error": name, "meaning": meaning}
            for number, (name, meaning) in sorted(codes.items())
        ]
    }
    lines = [
        f"{number:>3}  {name:<18}  {meaning}" for number, (name, meaning) in sorted(codes.items())
    ]
    _output.emit(json, facts, lines)
