"""What comes before a feed's first publication: a key for each role, and the first root."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuf.api.metadata import Metadata, Root

from bsipatch.errors import ExistsError, UsageError, from_os_error
from bsipatch.feed.names import CHANNELS
from bsipatch.publish.feed import metadata as md
from bsipatch.publish.feed.keys import KeyRing, Load
from bsipatch.trust import PublicKey

__all__ = ["Prepared", "channel_keys", "open_keys", "prepare"]

_MOST_ROOT_KEYS = 16


@dataclass(frozen=True, slots=True)
class Prepared:
    """made: names of the keys that were made just now; complete: whether the root is signed."""

    keys: KeyRing
    root: Metadata[Root]
    made: tuple[str, ...]
    complete: bool


def open_keys(folder: Path, load: Load) -> KeyRing:
    """The folder of keys, made for its owner alone when it is missing. Raises SystemCallError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise ExistsError("is a file, not a folder of keys", file=folder) from None
    except OSError as error:
        raise from_os_error(error, folder) from error
    return KeyRing(folder, load)


def prepare(
    folder: Path,
    load: Load,
    passphrase: Callable[[], bytes | None],
    now: int,
    *,
    root_keys: Sequence[PublicKey] = (),
    root_count: int = 1,
    root_threshold: int = 1,
    periods: Mapping[str, int] | None = None,
) -> Prepared:
    """Makes the keys that are missing and the first root, signed by the root keys that are here.

    root_keys: public halves of root keys that lie elsewhere; without any, `root_count` are made.
    Raises UsageError, ExistsError, PassphraseError, KeyFileError.
    """
    if not 1 <= root_count <= _MOST_ROOT_KEYS:
        raise UsageError("between 1 and 16 root keys make sense", found=root_count)
    given = {**md.DEFAULT_PERIODS, **(periods or {})}
    md.check_periods(given)
    holders = len(root_keys) or root_count
    if not 1 <= root_threshold <= holders:  # new_root() asks too, when the keys are made
        raise UsageError(
            "root: the threshold must be between 1 and the number of its keys",
            expected=holders,
            found=root_threshold,
        )
    keys = open_keys(folder, load)
    made: list[str] = []

    def key(name: str) -> PublicKey:
        public = keys.public(name)
        if public is None:
            public = keys.make(name, passphrase())
            made.append(name)
        return public

    named: dict[str, Sequence[PublicKey]] = {
        "root": root_keys or [key(f"root-{number + 1}") for number in range(root_count)]
    }
    for role in ("targets", "snapshot", "timestamp"):
        named[role] = [key(role)]
    for channel in CHANNELS:
        key(channel)
    root = md.new_root(named, {"root": root_threshold}, given, now)
    ids = [public.key_id for public in named["root"]]
    md.sign(root, keys.available(ids))
    result = root.signed.get_verification_result("root", root.signed_bytes, root.signatures)
    return Prepared(keys, root, tuple(made), bool(result))


def channel_keys(keys: KeyRing) -> dict[str, list[PublicKey]]:
    """Each channel's key, by the name of its folder. Raises UsageError when one is missing."""
    found = {}
    for channel in CHANNELS:
        public = keys.public(channel)
        if public is None:
            raise UsageError("a channel's key is missing", file=keys.folder / channel)
        found[channel] = [public]
    return found
