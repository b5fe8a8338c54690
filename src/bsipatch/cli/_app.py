"""The table of commands, and how one of them is found, loaded and called."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import UsageError
from . import _config

#: name -> (module in this package, panel of the help page), in the help page's order
COMMANDS: dict[str, tuple[str, str]] = {
    "diff": ("diff", "One file"),
    "patch": ("patch", "One file"),
    "convert": ("convert", "One file"),
    "inspect": ("inspect", "One file"),
    "keygen": ("keygen", "Publishing"),
    "build": ("build", "Publishing"),
    "verify": ("verify", "Publishing"),
    "init": ("init", "On a device"),
    "apply": ("apply", "On a device"),
    "revert": ("revert", "On a device"),
    "status": ("status", "On a device"),
    "history": ("history", "On a device"),
    "check-store": ("check_store", "On a device"),
    "gc": ("gc", "On a device"),
    "exit-codes": ("exit_codes", "Help"),
}

_EPILOG = (
    "Options can also come from BSIPATCH_STORE and from a config file "
    "(BSIPATCH_CONFIG names another one). Every command takes --json. "
    "Exit codes: [bold]bsipatch exit-codes[/bold]."
)


def _callback(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Show the version and end.", is_eager=True)
    ] = False,
) -> None:
    """Tiny signed updates for frameworks, with an instant way back."""
    if version:
        typer.echo(f"bsipatch {__version__}")
        raise typer.Exit


def build_app(only: str | None = None) -> typer.Typer:
    """The application with every command, or for speed with `only` one."""
    app = typer.Typer(
        name="bsipatch",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        epilog=_EPILOG,
        context_settings={"help_option_names": ["-h", "--help"]},
        add_completion=only is None,
    )
    app.callback()(_callback)
    for name, (module, panel) in COMMANDS.items():
        if only in (None, name):
            command = _load(module)
            app.command(name, rich_help_panel=panel)(command)
    return app


def _load(module: str) -> Callable[..., Any]:
    command: Callable[..., Any] = importlib.import_module(f".{module}", __package__).command
    return command


def run(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code; errors come out as exceptions."""
    completing = any(name.startswith("_BSIPATCH") for name in os.environ)
    first = arguments[0] if arguments else ""
    only = first if first in COMMANDS and not completing else None
    app = build_app(only)
    try:
        code = app(
            arguments,
            prog_name="bsipatch",
            standalone_mode=False,
            default_map=_config.defaults(COMMANDS),
        )
    except Exception as error:
        raise _usage(error) from error
    if code == 130:
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _usage(error: Exception) -> Exception:
    """The parser's own errors as ours; any other error as it is."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return UsageError("name a command", hint="`bsipatch --help` lists them.")
    told = getattr(error, "format_message", None)
    if told is None:
        if isinstance(error, typer.Abort):
            return KeyboardInterrupt()  # type: ignore[return-value]
        return error
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", None) or "bsipatch"
    return UsageError(" ".join(told().split()).rstrip("."), hint=f"See `{command} --help`.")
