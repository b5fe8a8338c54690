"""STORE/feed/floor.json: what the device never goes back behind.

Three floors, each written durably before anything is done by what raised it:

time       The clock's highest reading at a refresh that ended well.  Whether metadata has
           expired is asked of the later of this and the clock, so that a clock set back
           revives nothing.  A clock set forward cannot poison it: then the metadata looks
           expired, the refresh fails, and nothing is written; what a wrong clock can do is
           bounded by the life of the timestamp that it still accepted.
roles      The highest version of each role.  TUF's client knows them too, from its own
           files; this record stays when those are lost or put back from a backup.
sequences  For each series of updates, the highest that was ever live here.

A version or sequence binds only under the keys that had said it: whoever steals keys can
push numbers to the end of the range, and rotating the keys is the way back (TUF's
recovery from a fast-forward).  The root's own version binds always.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ...errors import NotFoundError, RollbackError, StoreDamagedError
from ...limits import Limits
from ...store import durable

FLOOR = "floor.json"
FORMAT = 1
ROOT = "root"


class Mark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number, and a fingerprint of the keys under which it was said."""

    number: int
    keys: str


class Floor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """time in seconds since 1970; roles by name; sequences by series."""

    format: int = FORMAT
    time: int = 0
    roles: dict[str, Mark] = {}
    sequences: dict[str, Mark] = {}

    def now(self, clock: float) -> int:
        """The moment to judge by: the clock, but never before the floor."""
        return max(int(clock), self.time)

    def check_roles(self, roles: dict[str, Mark]) -> None:
        """Raises RollbackError when a role is older than it was, under the same keys."""
        for name, found in roles.items():
            known = self.roles.get(name)
            if known is None or (name != ROOT and known.keys != found.keys):
                continue
            if found.number < known.number:
                raise RollbackError(
                    f"the feed's role {name} is older than what this device has seen",
                    expected=f"version {known.number} or later",
                    found=f"version {found.number}",
                    hint="Use another mirror; this one serves old metadata.",
                )

    def seen(self, roles: dict[str, Mark], clock: float) -> Floor:
        """After a refresh that ended well."""
        return msgspec.structs.replace(self, time=self.now(clock), roles={**self.roles, **roles})

    def sequence(self, series: tuple[str, str], keys: Mapping[str, str]) -> int:
        """The highest sequence that was ever live in a series, in whatever channel; 0 for none.

        series: product and baseline digest. keys: of each channel, their fingerprint now.
        """
        marks = ((channel, self.sequences.get(_name(channel, series))) for channel in keys)
        known = [mark.number for channel, mark in marks if mark and mark.keys == keys[channel]]
        return max(known, default=0)

    def installed(
        self, series: tuple[str, str], sequence: int, channel: str, keys: Mapping[str, str]
    ) -> Floor:
        """After an update of this sequence went live."""
        number = max(sequence, self.sequence(series, keys))
        mark = Mark(number=number, keys=keys.get(channel, ""))
        changed = {**self.sequences, _name(channel, series): mark}
        return msgspec.structs.replace(self, sequences=changed)

    def withdrawn(self, series: tuple[str, str], sequence: int, keys: Mapping[str, str]) -> Floor:
        """After a signed withdrawal took the device back to `sequence` (0: the baseline).

        The one way down.  It is written once the older tree is live, so that the floor
        does not hold up what the device has after the notice itself is gone.
        """
        lowered = {
            name: msgspec.structs.replace(mark, number=min(mark.number, sequence))
            for name, mark in self.sequences.items()
            if name in {_name(channel, series) for channel in keys}
        }
        return msgspec.structs.replace(self, sequences={**self.sequences, **lowered})


def _name(channel: str, series: tuple[str, str]) -> str:
    return " ".join((channel, *series))


def write(floor: Floor, *, dir_fd: int, file: str) -> None:
    """Makes it last. Raises SystemCallError."""
    with durable.system_calls("writing the floor", file):
        data = msgspec.json.format(msgspec.json.encode(floor, order="sorted"), indent=1)
        durable.replace_file(FLOOR, data + b"\n", dir_fd=dir_fd)


def read(*, dir_fd: int, file: str, limits: Limits) -> Floor:
    """The floor. One that is missing or damaged is never taken for an empty one.

    Raises StoreDamagedError, SystemCallError.
    """
    hint = "Follow the feed anew with `bsipatch follow`, which keeps the store's trees."
    try:
        with durable.system_calls("reading the floor", file):
            data = durable.read_file(FLOOR, dir_fd=dir_fd, limit=limits.max_record)
        floor = msgspec.json.decode(data, type=Floor)
    except NotFoundError:
        raise StoreDamagedError(
            "the record of what was seen is gone", file=file, hint=hint
        ) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreDamagedError(f"unreadable record: {error}", file=file, hint=hint) from None
    if floor.format != FORMAT:
        raise StoreDamagedError("another format", file=file, expected=FORMAT, found=floor.format)
    return floor
