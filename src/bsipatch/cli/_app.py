"""The table of commands, and how one of them is found, loaded and called.

The option parser (typer) is loaded only for command lines that need it: see _quick.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable

from .. import __version__
from ..errors import MissingDependencyError, UsageError
from . import _config, _quick

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:
    from typing import Any

    import typer

#: name -> (module in this package, panel of the help page), in the help page's order
COMMANDS: dict[str, tuple[str, str]] = {
    "diff": ("diff", "One file"),
    "patch": ("patch", "One file"),
    "convert": ("convert", "One file"),
    "inspect": ("inspect", "One file"),
    "bench": ("bench", "One file"),
    "keygen": ("keygen", "Publishing"),
    "build": ("build", "Publishing"),
    "verify": ("verify", "Publishing"),
    "feed": ("feed", "Publishing"),
    "fleet": ("fleet", "Publishing"),
    "init": ("init", "On a device"),
    "rehearse": ("rehearse", "On a device"),
    "apply": ("apply", "On a device"),
    "revert": ("revert", "On a device"),
    "remove": ("remove", "On a device"),
    "allow": ("allow", "On a device"),
    "status": ("status", "On a device"),
    "history": ("history", "On a device"),
    "check-store": ("check_store", "On a device"),
    "gc": ("gc", "On a device"),
    "recover": ("recover", "On a device"),
    "group": ("group", "On a device"),
    "boot-begin": ("boot_begin", "On a device, at its start"),
    "boot-mark": ("boot_mark", "On a device, at its start"),
    "boot-ok": ("boot_ok", "On a device, at its start"),
    "auto": ("auto", "On a device"),
    "policy": ("policy", "On a device"),
    "agent": ("agent", "On a device"),
    "log": ("log", "On a device"),
    "telemetry": ("telemetry", "On a device"),
    "settings": ("settings", "On a device"),
    "serve": ("serve", "On a device"),
    "follow": ("follow", "From a feed"),
    "check": ("check", "From a feed"),
    "fetch": ("fetch", "From a feed"),
    "install": ("install", "From a feed"),
    "why-not": ("why_not", "From a feed"),
    "adopt": ("adopt", "From a feed"),
    "ticket": ("ticket", "From a feed"),
    "exit-codes": ("exit_codes", "Help"),
}
#: those of COMMANDS that are packages with a COMMANDS (name -> module) and a HELP of their own
GROUPS = frozenset({"feed", "fleet"})

#: package that a command may find missing -> the extra that brings it
EXTRAS = {
    "bsdiff4": "interop",
    "obstore": "feed",
    "securesystemslib": "feed",
    "starlette": "settings",
    "tuf": "feed",
    "urllib3": "feed",
    "uvicorn": "settings",
}

_EPILOG = (
    "Options can also come from BSIPATCH_STORE and from a config file "
    "(BSIPATCH_CONFIG names another one). Every command takes --json. "
    "Exit codes: [bold]bsipatch exit-codes[/bold]."
)


def build_app(only: str | None = None) -> typer.Typer:
    """The application with every command, or for speed with `only` one."""
    import typer

    def front(
        version: bool = typer.Option(
            False, "--version", "-V", help="Show the version and end.", is_eager=True
        ),
    ) -> None:
        """Tiny signed updates for frameworks, with an instant way back."""
        if version:
            typer.echo(f"bsipatch {__version__}")
            raise typer.Exit

    app = typer.Typer(
        name="bsipatch",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        epilog=_EPILOG,
        context_settings={"help_option_names": ["-h", "--help"]},
        add_completion=only is None,
    )
    app.callback()(front)
    for name, (module, panel) in COMMANDS.items():
        if only in (None, name):
            _add(app, name, module, panel)
    return app


def _add(app: typer.Typer, name: str, module: str, panel: str) -> None:
    """A command, or a group of them."""
    import typer

    if name not in GROUPS:
        app.command(name, rich_help_panel=panel)(_load(module))
        return
    package = importlib.import_module(f".{module}", __package__)
    group = typer.Typer(no_args_is_help=True, help=package.HELP, rich_markup_mode="rich")
    for member, place in package.COMMANDS.items():
        group.command(member)(_load(f"{module}.{place}"))
    app.add_typer(group, name=name, rich_help_panel=panel)


def _load(module: str) -> Callable[..., Any]:
    command: Callable[..., Any] = importlib.import_module(f".{module}", __package__).command
    return command


def run(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code; errors come out as exceptions."""
    quick = _quick.read(arguments)
    defaults = _config.defaults(COMMANDS)
    if quick is not None and "patch" not in defaults:
        from . import _patching

        _patching.run(quick.old, quick.patch, quick.out, jobs=quick.jobs, json=quick.json)
        return 0
    return _parsed(arguments, defaults)


def _parsed(arguments: list[str], defaults: dict[str, dict[str, Any]]) -> int:
    completing = any(name.startswith("_BSIPATCH") for name in os.environ)
    first = arguments[0] if arguments else ""
    only = first if first in COMMANDS and not completing else None
    app = build_app(only)
    try:
        code = app(
            arguments,
            prog_name="bsipatch",
            standalone_mode=False,
            default_map=_for_groups(defaults),
        )
    except Exception as error:
        raise _usage(error) from error
    if code == 130:
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _for_groups(defaults: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the config file says of a group holds for each of its commands."""
    found = dict(defaults)
    for name in GROUPS & set(defaults):
        members = importlib.import_module(f".{COMMANDS[name][0]}", __package__).COMMANDS
        found[name] = dict.fromkeys(members, defaults[name])
    return found


def _usage(error: Exception) -> Exception:
    """The parser's own errors as ours; any other error as it is."""
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", None) or "bsipatch"
    if type(error).__name__ == "NoArgsIsHelpError":
        return UsageError("name a command", hint=f"`{command} --help` lists them.")
    told = getattr(error, "format_message", None)
    if isinstance(error, ModuleNotFoundError):
        return _missing(error)
    if told is None:
        if type(error).__name__ == "Abort":
            return KeyboardInterrupt()  # type: ignore[return-value]
        return error
    return UsageError(" ".join(told().split()).rstrip("."), hint=f"See `{command} --help`.")


def _missing(error: ModuleNotFoundError) -> Exception:
    """What is not there and can be installed as an error that says so."""
    package = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(package)
    if extra is None:
        return error
    return MissingDependencyError(
        f"this command needs {package}", hint=f"pip install 'bsipatch[{extra}]'"
    )
