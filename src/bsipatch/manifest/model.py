"""The manifest's frozen structs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from bsipatch.tree import Entry, State, Tree

__all__ = [
    "FORMAT",
    "Action",
    "Activation",
    "Baseline",
    "Deed",
    "HealthCheck",
    "HealthKind",
    "Manifest",
    "Payload",
    "SecurityItem",
    "StacksOn",
]

#: version of the manifest format that this release writes and reads
FORMAT = 1

Deed = Literal["keep", "chmod", "patch", "add", "clone", "remove", "mkdir", "symlink", "retarget"]
Activate = Literal["relaunch", "restart"]
HealthKind = Literal["command", "digest", "images", "load"]


class _Struct(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    pass


class Action(_Struct, frozen=True, kw_only=True):
    """How one path gets from the baseline to the result.

    do       keep      new is old (and left out)
             chmod     the same content with another mode or other extended attributes
             patch     a payload of kind "patch" applied to the baseline's file at `source`
             add       written from a payload of kind "full"; an empty file needs none
             clone     a copy of the baseline's file at `source`
             remove    new is None
             mkdir     a directory where none was
             symlink   a link where none was
             retarget  a link that leads elsewhere
    path     the entry's path in the tree
    old      what the baseline has there, None if nothing.  A file that becomes a directory, and
             the like, is one action whose old and new differ in kind.
    new      what the result has there, None after remove; left out for keep
    source   for clone: a baseline path; for patch: likewise, None for the path itself
    payload  index into Manifest.payloads, for patch and add
    """

    do: Deed
    path: str
    old: State | None = None
    new: State | None = None
    source: str | None = None
    payload: int | None = None

    @property
    def result(self) -> State | None:
        """What is at the path in the end; None when nothing is."""
        return self.old if self.do == "keep" else self.new

    @property
    def base(self) -> str:
        """The baseline path that a patch or clone reads."""
        return self.path if self.source is None else self.source


class Payload(_Struct, frozen=True, kw_only=True):
    """Where a payload lies in the package and exactly what it needs.

    kind      "patch" (docs/format.md), or a whole file: "zstd" (one frame) or "plain"
    offset    from the end of the envelope, in bytes
    length    in bytes
    sha256    of the payload's bytes in the package, as hex
    size      bytes of the file that it makes
    decoded   patch: sum of its decoded streams in bytes; otherwise the same as size
    memory    most bytes that decoding it by one thread allocates at once, beside windows of the
              result; each further thread may need as much again
    """

    kind: Literal["patch", "zstd", "plain"]
    offset: int
    length: int
    sha256: str
    size: int
    decoded: int
    memory: int = 0


class Baseline(_Struct, frozen=True, kw_only=True):
    """The tree an improvement is for. build None: whatever build has that tree digest."""

    version: str
    digest: str
    build: str | None = None


class StacksOn(_Struct, frozen=True, kw_only=True):
    """The improvement of the same baseline whose result the actions start from."""

    letter: str
    digest: str
    build: str | None = None


class Activation(_Struct, frozen=True, kw_only=True):
    """What makes the result effective: relaunching the named processes, or a restart."""

    scope: Activate
    processes: tuple[str, ...] = ()


class SecurityItem(_Struct, frozen=True, kw_only=True):
    """One entry of the security content, as a person reads it."""

    component: str
    impact: str
    cves: tuple[str, ...] = ()
    credit: str = ""


class HealthCheck(_Struct, frozen=True, kw_only=True):
    """One thing that must hold once the result is live, else the generation before is back.

    kind     command  a program ends with exit code 0
             digest   every entry of the tree is what was signed
             images   every executable image parses, and its code signature matches its pages
             load     every library that this host can run loads, its dependencies with it
    command  the program and its arguments; the program by its absolute path or by its path in
             the tree
    seconds  what one program, or loading one library, may take
    name     what people call it
    """

    kind: HealthKind
    command: tuple[str, ...] = ()
    seconds: int = 60
    name: str = ""

    @property
    def title(self) -> str:
        """For messages: its name, else its program, else its kind."""
        return self.name or (self.command[0] if self.command else self.kind)


class Manifest(_Struct, frozen=True, kw_only=True):
    """An update. Digests are hex, sizes bytes, times seconds since 1970 (UTC).

    version and letter stay apart: the version is the baseline's, for programs that parse it.
    xattrs          whether both tree digests cover extended attributes
    required_space  free bytes that staging needs when unchanged files are shared, not copied
    expires         None: never
    stacks_on       None unless the actions start from another improvement, not the baseline
    health          what must hold once it is live
    supersedes      builds of the same letter that devices may have barred, and that this one mends
    """

    format: int
    product: str
    platform: str
    architectures: tuple[str, ...]
    version: str
    letter: str
    build: str
    baseline: Baseline
    result_digest: str
    actions: tuple[Action, ...]
    payloads: tuple[Payload, ...]
    required_space: int
    activation: Activation
    created: int
    expires: int | None = None
    security: tuple[SecurityItem, ...] = ()
    release_notes: str | None = None
    stacks_on: StacksOn | None = None
    xattrs: bool = False
    health: tuple[HealthCheck, ...] = ()
    supersedes: tuple[str, ...] = ()

    @property
    def display_version(self) -> str:
        """For people: "26.3.1 (a)"."""
        return f"{self.version} ({self.letter})"

    @property
    def old_digest(self) -> str:
        """Digest of the tree that the actions start from."""
        return self.stacks_on.digest if self.stacks_on else self.baseline.digest

    def old_entries(self) -> Iterator[Entry]:
        """Every entry of the tree that the actions start from."""
        return (a.old.at(a.path) for a in self.actions if a.old is not None)

    def new_entries(self) -> Iterator[Entry]:
        """Every entry of the result."""
        return (a.result.at(a.path) for a in self.actions if a.result is not None)

    def old_tree(self) -> Tree:
        """The tree that the actions start from."""
        return Tree(self.old_entries())

    def new_tree(self) -> Tree:
        """The result."""
        return Tree(self.new_entries())

    def count(self) -> dict[str, int]:
        """How many paths each deed has, for those that occur."""
        counts: dict[str, int] = {}
        for action in self.actions:
            counts[action.do] = counts.get(action.do, 0) + 1
        return counts

    @property
    def payload_size(self) -> int:
        """Sum of the payloads' lengths in bytes."""
        return sum(payload.length for payload in self.payloads)
