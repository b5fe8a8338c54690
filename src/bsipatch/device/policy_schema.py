"""What a settings file and a managed policy file may say: the structs, and their JSON schemas.

The structs are the one definition.  msgspec checks files against them while it
reads, and also writes the JSON schemas that are shipped in device/data for
editors and administration tools; a test keeps both equal, so no second
validator is needed on a device.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Channel = Literal["developer", "beta", "release"]
#: channels from the least to the most tried
CHANNELS: tuple[Channel, ...] = ("developer", "beta", "release")
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Metered = Literal["wait", "allow"]

_Clock = Annotated[
    str,
    Meta(
        pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$",
        max_length=5,
        description="Local wall-clock time, 24 hours, such as 22:30.",
    ),
]
_Bandwidth = Annotated[
    int,
    Meta(ge=0, le=1 << 40, description="Most bytes a second of a download; 0 for no limit."),
]
_Floor = Annotated[
    int,
    Meta(ge=0, le=100, description="Percent of battery below which nothing is installed."),
]
_Mirror = Annotated[
    str, Meta(pattern="^(https?|file)://[^\\s]+$", max_length=1024, description="Address of a feed")
]
#: what is sent there is this device's own, so in the open it does not leave this machine
_Service = Annotated[
    str,
    Meta(
        pattern="^(https://[^\\s/@?#]+|http://(127[.]0[.]0[.]1|localhost)(:[0-9]+)?)(/[^\\s?#]*)?$",
        max_length=1024,
        description="Address of a service, https.",
    ),
]
_ReportTo = Annotated[
    str,
    Meta(
        pattern="^(https://[^\\s/@?#]+(/[^\\s?#]*)?"
        "|http://(127[.]0[.]0[.]1|localhost)(:[0-9]+)?(/[^\\s?#]*)?|file:///[^\\s?#]*)$",
        max_length=1024,
        description="Address of a collector of reports (https), or of a folder (file).",
    ),
]
_Id = Annotated[str, Meta(min_length=1, max_length=256, description="An update's id in the feed.")]
_Moment = Annotated[
    str,
    Meta(
        pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}"
        "(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2}))?$",
        max_length=25,
        description="A day (its end, in UTC) or a moment with its zone, ISO 8601.",
    ),
]
_Days = Annotated[int, Meta(ge=0, le=90)]


class Hours(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename={"start": "from", "end": "to"},
):
    """Hours in which the device does nothing by itself; across midnight when `to` is earlier.

    `days` are those on which the hours begin; all of them when it is empty.
    """

    start: _Clock
    end: _Clock
    days: Annotated[tuple[Day, ...], Meta(max_length=7)] = ()


_QuietHours = Annotated[tuple[Hours, ...], Meta(max_length=64)]


class Settings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """STORE/settings.toml: what the device's owner chose. What is absent has its default."""

    #: install without being asked
    automatic: bool | None = None
    channel: Channel | None = None
    quiet_hours: _QuietHours | None = None
    #: on a metered network: wait, or download all the same
    metered: Metered | None = None
    bandwidth: _Bandwidth | None = None
    battery_floor: _Floor | None = None
    #: install only while nobody uses the device
    only_idle: bool | None = None
    #: send the reports that docs/telemetry.md describes
    reports: bool | None = None
    #: to this collector
    report_to: _ReportTo | None = None
    #: who signs this device's permissions for updates that need one
    ticket_service: _Service | None = None


class Enforcement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An update that must be on by a moment, whatever else is set."""

    id: _Id
    by: _Moment


class Managed(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """One file that an administrator put there. What is absent is the owner's choice."""

    #: the format of this file
    format: Literal[1]
    #: who manages the device, in words that people will read
    organization: Annotated[str, Meta(max_length=200)] = ""
    #: force automatic installation on or off
    automatic: Literal["on", "off"] | None = None
    #: whether improvements may be installed at all, a person's wish included
    install: Literal["allowed", "forbidden"] | None = None
    #: whether improvements may be removed
    removal: Literal["allowed", "forbidden"] | None = None
    #: days after publication before which nothing is installed automatically
    deferral_days: _Days | None = None
    #: days after publication by which every improvement must be on
    enforce_after_days: _Days | None = None
    #: updates that must be on by a moment
    enforce: Annotated[tuple[Enforcement, ...], Meta(max_length=256)] | None = None
    #: the only channel
    channel: Channel | None = None
    #: feeds to use instead of the device's own, in this order
    mirrors: Annotated[tuple[_Mirror, ...], Meta(max_length=64)] | None = None
    quiet_hours: _QuietHours | None = None
    metered: Metered | None = None
    bandwidth: _Bandwidth | None = None
    battery_floor: _Floor | None = None
    only_idle: bool | None = None
    reports: bool | None = None
    report_to: _ReportTo | None = None
    ticket_service: _Service | None = None


#: name of the shipped schema -> what it describes
SCHEMAS: dict[str, type[msgspec.Struct]] = {"settings": Settings, "managed": Managed}


def schema(name: str) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of "settings" or "managed"."""
    found = msgspec.json.schema(SCHEMAS[name])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"bsipatch {name} file",
        **found,
    }


def shipped(name: str) -> str:
    """The schema's text as it lies in the package's data."""
    from importlib import resources

    return (resources.files(__package__) / "data" / f"{name}.schema.json").read_text("utf-8")
