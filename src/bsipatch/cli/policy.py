"""`bsipatch policy`: what holds on this device, who said so, and the owner's settings."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _output
from ._options import Json

if TYPE_CHECKING:
    from ..device.policy import Policy


#: a rule without a managed file -> what it means; these rules are named as their only origin
_NOBODY_MANAGES = {
    "owner": "owner: nobody manages it, and this is the owner's choice",
    "feed": "feed: what the feed was set up with",
    "default": "default: nobody says anything",
}


class Kind(StrEnum):
    """The files that a policy is made of."""

    settings = "settings"
    managed = "managed"


def command(
    store: Annotated[
        Path | None,
        typer.Option(
            "--store", "-s", envvar="BSIPATCH_STORE", help="The store's folder.", metavar="DIR"
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Where each value comes from, and the rule.")
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Change a setting of the owner's; an empty VALUE "
            "takes it away. Repeat for several.",
        ),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            "--check", metavar="FILE", dir_okay=False, help="Only check a managed policy file."
        ),
    ] = None,
    schema: Annotated[
        Kind | None, typer.Option("--schema", help="Print a file's JSON schema, and end.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the policy in force: the owner's settings under what an administrator manages.

    Examples:

      bsipatch policy --store /var/lib/bsipatch/webkit --explain

      bsipatch policy --store STORE --set channel=beta --set bandwidth=500000

      bsipatch policy --check managed.toml

      bsipatch policy --schema managed
    """
    import msgspec

    from ..device import policy as policies
    from ..errors import UsageError

    if schema is not None:
        _show_schema(schema.value, json)
        return
    if check is not None:
        _check(check, json)
        return
    if store is None:
        raise UsageError("name the store", hint="Give --store, or set BSIPATCH_STORE.")
    _exists(store)
    if set_:
        _set(store, set_)
    policy = policies.load(store)
    values = msgspec.to_builtins(policy)
    origins = values.pop("origins")
    facts: dict[str, Any] = {"store": str(store), "policy": values}
    facts |= {
        "origins": origins,
        "managed": sorted(name for name in values if policy.managed(name)),
    }
    _output.emit(json, facts, _explained(policy) if explain else _short(policy))


def _exists(store: Path) -> None:
    from ..store import Store as Opened

    with Opened(store):
        pass


def _show_schema(name: str, json: bool) -> None:
    import json as json_module

    from ..device import policy_schema

    text = policy_schema.shipped(name)
    _output.emit(json, {"schema": json_module.loads(text)}, [text.rstrip()])


def _check(file: Path, json: bool) -> None:
    import msgspec

    from ..device import policy_files
    from ..limits import DEFAULT

    with _output.opening(file) as opened:
        data = opened.read(DEFAULT.max_config_file + 1)
    managed = policy_files.check_managed(data, file)
    _output.emit(
        json,
        {"file": str(file), "policy": msgspec.to_builtins(managed)},
        [f"{file}: a good managed policy"],
    )


def _set(store: Path, assignments: list[str]) -> None:
    """Writes settings, after asking whether they are the owner's to choose."""
    import tomllib

    from ..device import policy as policies
    from ..device import policy_files
    from ..errors import UsageError

    policy = policies.load(store)
    names = policies.Settings.__struct_fields__
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in names:
            raise UsageError(
                "no such setting" if equals else "a setting is NAME=VALUE",
                expected=", ".join(names),
                found=assignment,
            )
        policies.allow_change(policy, name)
        if not text.strip():
            changes[name] = None
            continue
        try:
            changes[name] = tomllib.loads(f"x = {text}")["x"]
        except tomllib.TOMLDecodeError:
            changes[name] = text.strip()  # a word without quotes
    policy_files.write_settings(store, changes)


def _short(policy: Policy) -> list[str]:
    rows = []
    for name, value in _rows(policy):
        managed = f"   [managed by {policy.organization or 'the administrator'}]"
        rows.append((name, value + (managed if policy.managed(name) else "")))
    return _output.columns(rows)


def _explained(policy: Policy) -> list[str]:
    lines = []
    for name, value in _rows(policy):
        origin = policy.origins[name]
        lines.append(f"{name}: {value}")
        said = f"{origin.rule}: {', '.join(origin.origins)}"
        lines.append(f"    {_NOBODY_MANAGES.get(origin.rule, said)}")
        for other, asked in origin.passed_over:
            lines.append(f"    passed over: {other} wants {show(asked)}")
    return lines


def _rows(policy: Policy) -> list[tuple[str, str]]:
    import msgspec

    values = msgspec.to_builtins(policy)
    return [(name, show(value) or "-") for name, value in values.items() if name != "origins"]


def show(value: Any) -> str:
    """A value of a policy for people."""
    import msgspec

    value = msgspec.to_builtins(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        if set(value) >= {"from", "to"}:
            days = " ".join(value.get("days", ()))
            return f"{value['from']} to {value['to']}" + (f" on {days}" if days else "")
        return ", ".join(f"{name} {show(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(show(item) for item in value)
    return "" if value is None else str(value)
