"""Every error that bsipatch raises, in one tree, with one exit code for each.

::

    BsipatchError                  1   anything below
    ├── UsageError                 2   the call or command makes no sense as given
    │   └── ConfigError            3   release.toml, the config file or a variable is wrong
    ├── NotFoundError              4   a file, store, key or generation is not there
    ├── ExistsError                5   something is in the way and is never overwritten
    ├── MissingDependencyError     6   an optional package or tool is not installed
    ├── SystemCallError            7   the operating system refused (permission, I/O)
    │   └── NoSpaceError           8   the disk is full, or would be
    ├── LimitError                10   sound input, but larger than the limits allow
    │   ├── MemoryLimitError      11   the memory budget would be exceeded
    │   └── OutOfMemoryError      12   the system refused memory
    ├── FormatError               20   bytes that are not what they claim to be
    │   ├── MagicError            21   not a patch, package or envelope at all
    │   ├── VersionError          22   a format version this release does not know
    │   ├── CorruptError          23   contradicts itself: damaged or made by an attacker
    │   │   └── TruncatedError    24   ends before what it declares
    │   ├── ManifestError         25   the manifest breaks its own rules
    │   └── UnsafePathError       26   a name or link that would leave the tree
    ├── MismatchError             30   a digest is not the expected one
    │   ├── OldMismatchError      31   the old file is not the one the patch was made for
    │   ├── NewMismatchError      32   what came out is not what was promised
    │   └── TreeDriftError        33   a tree is not what its digest says
    ├── TrustError                40   not signed by whom it must be
    │   ├── KeyFileError          41   a key file cannot be used
    │   ├── PassphraseError       42   no pass phrase, or the wrong one
    │   ├── SignatureError        43   a signature is missing or wrong
    │   │   └── ThresholdError    44   fewer valid signatures than required
    │   ├── ExpiredError          45   signed, but no longer valid (or not yet)
    │   └── RollbackError         46   older than what was already seen
    ├── EligibilityError          50   a good update, but not for this device
    │   ├── WrongProductError     51   another product
    │   ├── WrongPlatformError    52   another platform or architecture
    │   ├── WrongBaselineError    53   built against another baseline
    │   └── PolicyError           54   a policy, ring or user choice holds it back
    ├── StoreError                60   the device's store cannot do that
    │   ├── StoreBusyError        61   another process holds the store
    │   ├── StoreStateError       62   the store's state does not allow it (nothing to revert ...)
    │   └── StoreDamagedError     63   the store's own records contradict each other
    ├── PublishError              70   building or publishing an update failed
    ├── FeedError                 80   the update feed gave something unusable
    │   └── TransferError         81   a download or upload failed
    ├── HealthError               90   the health check of a trial start failed
    ├── CancelledError           130   stopped on request; nothing was changed
    └── InternalError             99   a defect in bsipatch itself

Exit code 0 is success. Codes are published: they never change meaning.
"""

from __future__ import annotations

import errno
import os

from bsipatch._error_texts import TEXTS

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:
    from typing import Any, ClassVar


class BsipatchError(Exception):
    """Base of every error. All details are optional, and kept as attributes.

    detail    what exactly, as a clause without a full stop ("stream 3 is too long")
    file      the file, member or store concerned
    offset    where in it, in bytes
    expected  the value or bound that should have been (digests as hex)
    found     the value that was there
    hint      what to do instead of the class's usual advice
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        detail: str = "",
        *,
        file: str | os.PathLike[str] | None = None,
        offset: int | None = None,
        expected: Any = None,
        found: Any = None,
        hint: str | None = None,
    ) -> None:
        self.detail = detail
        self.file = None if file is None else os.fspath(file)
        self.offset = offset
        self.expected = expected
        self.found = found
        self._hint = hint
        super().__init__(detail)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.detail,), self.__dict__)

    @property
    def code(self) -> str:
        """The stable name for machines: "old-mismatch" for OldMismatchError."""
        name = type(self).__name__.removesuffix("Error") or "error"
        return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")

    @property
    def summary(self) -> str:
        """What kind of thing happened, from the table."""
        return _text(type(self))[0]

    @property
    def hint(self) -> str:
        """What to do about it, one sentence; "" when there is no advice."""
        return _text(type(self))[1] if self._hint is None else self._hint

    @property
    def message(self) -> str:
        """One line without the advice: file, what happened, where, expected and found."""
        parts = [f"{self.file}: " if self.file is not None else "", self.summary]
        if detail := self._detail():
            parts.append(f": {detail}")
        facts = []
        if self.offset is not None:
            facts.append(f"at byte {self.offset}")
        if self.expected is not None:
            facts.append(f"expected {_show(self.expected)}")
        if self.found is not None:
            facts.append(f"found {_show(self.found)}")
        if facts:
            parts.append(f" ({', '.join(facts)})")
        return "".join(parts)

    def _detail(self) -> str:
        # One that tells of errors of its own class, of each mirror's say, has their texts in it.
        return self.detail.replace(f"{self.summary}: ", "")

    def __str__(self) -> str:
        if not self.hint:
            return self.message
        # A publisher's or owner's reason may end the message with a stop of its own.
        return f"{self.message.removesuffix('.')}. {self.hint}"

    def as_dict(self) -> dict[str, Any]:
        """For --json: every detail that is known, of JSON types."""
        facts = {
            "file": self.file,
            "offset": self.offset,
            "expected": _show(self.expected),
            "found": _show(self.found),
            "detail": self._detail() or None,
            "hint": self.hint or None,
        }
        known = {name: value for name, value in facts.items() if value is not None}
        return {"error": self.code, "exit_code": self.exit_code, "message": self.message, **known}


def _show(value: Any) -> Any:
    """Digests as hex; numbers and text as they are; anything else as text."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    return value if value is None or isinstance(value, int | float | str) else str(value)


def _text(cls: type) -> tuple[str, str]:
    """The table's row of the class, or of its nearest ancestor that has one."""
    for ancestor in cls.__mro__:
        row = TEXTS.get(ancestor.__name__)
        if row is not None:
            return row
    return TEXTS["BsipatchError"]


def error_classes() -> dict[str, type[BsipatchError]]:
    """Every class of the tree by name, for the table of exit codes."""
    found: dict[str, type[BsipatchError]] = {}
    waiting: list[type[BsipatchError]] = [BsipatchError]
    while waiting:
        cls = waiting.pop()
        if cls.__module__ == __name__:
            found[cls.__name__] = cls
        waiting.extend(cls.__subclasses__())
    return dict(sorted(found.items()))


def from_os_error(
    error: OSError, file: str | os.PathLike[str] | None = None, detail: str = ""
) -> BsipatchError:
    """The exception that stands for a failed system call: `raise from_os_error(e, path) from e`."""
    cls: type[BsipatchError] = SystemCallError
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        cls = NotFoundError
    elif error.errno == errno.EEXIST:
        cls = ExistsError
    elif error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        cls = NoSpaceError
    elif error.errno == errno.ENOMEM:
        cls = OutOfMemoryError
    name = file if file is not None else error.filename
    reason = error.strerror or str(error)
    if error.errno in _SAID_BY_CLASS:
        return cls(detail, file=name)
    return cls(f"{detail}: {reason}" if detail else reason, file=name)


#: errors whose class says in its own text all that the system's words for them do
_SAID_BY_CLASS = frozenset({errno.ENOENT, errno.EEXIST, errno.ENOSPC, errno.ENOMEM})


# --- the call itself ---


class UsageError(BsipatchError):
    """The call or command makes no sense as given."""

    exit_code = 2


class ConfigError(UsageError):
    """release.toml, the config file or an environment variable is wrong."""

    exit_code = 3


class NotFoundError(BsipatchError):
    """A file, store, key or generation is not there."""

    exit_code = 4


class ExistsError(BsipatchError):
    """Something is in the way, and is never overwritten."""

    exit_code = 5


class MissingDependencyError(BsipatchError):
    """An optional package or tool is not installed."""

    exit_code = 6


class SystemCallError(BsipatchError):
    """The operating system refused: permission, I/O error, read-only disk."""

    exit_code = 7


class NoSpaceError(SystemCallError):
    """The disk is full, or would be."""

    exit_code = 8


class CancelledError(BsipatchError):
    """Stopped on request; nothing was changed."""

    exit_code = 130


class InternalError(BsipatchError):
    """A defect in bsipatch itself."""

    exit_code = 99


# --- limits ---


class LimitError(BsipatchError):
    """Sound input, but larger than the limits allow."""

    exit_code = 10


class MemoryLimitError(LimitError):
    """The memory budget would be exceeded."""

    exit_code = 11


class OutOfMemoryError(LimitError):
    """The system refused memory."""

    exit_code = 12


# --- format ---


class FormatError(BsipatchError):
    """Bytes that are not what they claim to be."""

    exit_code = 20


class MagicError(FormatError):
    """Not a patch, package or envelope at all."""

    exit_code = 21


class VersionError(FormatError):
    """A format version that this release does not know."""

    exit_code = 22


class CorruptError(FormatError):
    """The bytes contradict themselves: damaged, or made by an attacker."""

    exit_code = 23


class TruncatedError(CorruptError):
    """The bytes end before what they declare."""

    exit_code = 24


class ManifestError(FormatError):
    """The manifest breaks its own rules."""

    exit_code = 25


class UnsafePathError(FormatError):
    """A name or link that would leave the tree, or that hosts read differently."""

    exit_code = 26


# --- digests ---


class MismatchError(BsipatchError):
    """A digest is not the expected one."""

    exit_code = 30


class OldMismatchError(MismatchError):
    """The old file is not the one the patch was made for."""

    exit_code = 31


class NewMismatchError(MismatchError):
    """What came out is not what was promised."""

    exit_code = 32


class TreeDriftError(MismatchError):
    """A tree is not what its digest says."""

    exit_code = 33


# --- trust ---


class TrustError(BsipatchError):
    """Not signed by whom it must be."""

    exit_code = 40


class KeyFileError(TrustError):
    """A key file cannot be used."""

    exit_code = 41


class PassphraseError(TrustError):
    """No pass phrase, or the wrong one."""

    exit_code = 42


class SignatureError(TrustError):
    """A signature is missing or wrong."""

    exit_code = 43


class ThresholdError(SignatureError):
    """Fewer valid signatures by distinct trusted keys than required."""

    exit_code = 44


class ExpiredError(TrustError):
    """Signed, but no longer valid, or not yet."""

    exit_code = 45


class RollbackError(TrustError):
    """Older than what was already seen."""

    exit_code = 46


# --- eligibility ---


class EligibilityError(BsipatchError):
    """A good update, but not for this device."""

    exit_code = 50


class WrongProductError(EligibilityError):
    """An update of another product."""

    exit_code = 51


class WrongPlatformError(EligibilityError):
    """An update for another platform or architecture."""

    exit_code = 52


class WrongBaselineError(EligibilityError):
    """An update built against another baseline."""

    exit_code = 53


class PolicyError(EligibilityError):
    """A policy, ring or user's choice holds the update back."""

    exit_code = 54


# --- store ---


class StoreError(BsipatchError):
    """The device's store cannot do that."""

    exit_code = 60


class StoreBusyError(StoreError):
    """Another process holds the store."""

    exit_code = 61


class StoreStateError(StoreError):
    """The store's state does not allow it: nothing to revert, already there."""

    exit_code = 62


class StoreDamagedError(StoreError):
    """The store's own records contradict each other."""

    exit_code = 63


# --- publishing and the feed ---


class PublishError(BsipatchError):
    """Building or publishing an update failed."""

    exit_code = 70


class FeedError(BsipatchError):
    """The update feed gave something unusable."""

    exit_code = 80


class TransferError(FeedError):
    """A download or upload failed."""

    exit_code = 81


class HealthError(BsipatchError):
    """The health check of a trial start failed."""

    exit_code = 90
