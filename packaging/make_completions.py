"""Writes completion scripts for bash, zsh and fish, for packages that install them for everybody.

    python packaging/make_completions.py [FOLDER]     FOLDER is "build/completions" when left out

One user alone needs none of this: `bsipatch --install-completion`.
"""

from __future__ import annotations

import sys
from pathlib import Path

NAME = "bsipatch"
#: shell -> the file's name where that shell looks for it
FILES = {"bash": NAME, "zsh": f"_{NAME}", "fish": f"{NAME}.fish"}


def main(arguments: list[str]) -> int:
    """Writes the scripts and says where."""
    folder = Path(arguments[0] if arguments else "build/completions")
    for shell, name in FILES.items():
        path = folder / shell / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script(shell), encoding="utf-8")
    print(f"completions for {', '.join(FILES)} in {folder}")
    return 0


def script(shell: str) -> str:
    """What the shell reads; it asks `bsipatch` itself for the words."""
    from typer.completion import get_completion_script

    made: str = get_completion_script(
        prog_name=NAME, complete_var=f"_{NAME.upper()}_COMPLETE", shell=shell
    )
    return made.rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
