"""Where the bytes of a patch went: by stream, by section and by kind of reference."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bsipatch import limits as _limits
from bsipatch.delta._apply import prepare
from bsipatch.delta._hashing import Hashing
from bsipatch.delta._kinds import kind_name
from bsipatch.delta._names import SectionNames
from bsipatch.delta._results import Progress
from bsipatch.delta._support import length_of, naming, ticker
from bsipatch.errors import OldMismatchError
from bsipatch.limits import Limits
from bsipatch.output import MappedFile
from bsipatch.parallel import job_count, watch

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bsipatch._core import Patch
    from bsipatch._core._account import Account, Place

#: of the JSON form; grows when a field changes its meaning or goes away
SCHEMA = 1
#: how many stretches the new file is shown in
STRETCHES = 1000

_STREAMS = {
    1: "layout",
    2: "cover",
    3: "overrides",
    4: "references",
    5: "bytes",
    6: "literals",
}
_FORMATS = {1: "Mach-O", 2: "ELF"}
_ARCHITECTURES = {1: "arm64", 2: "x86-64"}
_ROLES = ("data", "code", "zero-fill")


class ExplainedStream(msgspec.Struct, frozen=True):
    """One stream. `patch_bytes` is what it takes up in the patch."""

    id: int
    name: str
    codec: str
    entries: int | None  #: cover entries, overrides, corrections, literal bytes; None without old
    plain_bytes: int
    patch_bytes: int | None  #: None without the old file for streams that share one coder
    frame_bytes: int  #: of patch_bytes, what is in no row: counts, the layout


class ExplainedSection(msgspec.Struct, frozen=True):
    """A section of the new file, or (image None) all that lies outside of them."""

    image: int | None
    format: str
    architecture: str
    role: str
    name: str
    offset: int
    size: int
    address: int
    patch_bytes: int


class ExplainedRow(msgspec.Struct, frozen=True):
    """One kind of reference in one section; kind 0 is bytes of no reference.

    references = right + overridden + fixed + corrected.
    """

    section: int  #: index into sections
    kind: int
    kind_name: str
    references: int  #: carried over from the old file
    moved: int  #: of them, those that say something else than in the old file
    right: int  #: predicted without help
    overridden: int  #: answered by an override
    fixed: int  #: put right by a reference correction
    corrected: int  #: touched by byte corrections
    byte_corrections: int
    byte_runs: int
    literal_bytes: int
    cover_entries: int
    covered_bytes: int
    filled_bytes: int
    patch_bytes: dict[str, int]  #: by stream, streams without any left out


class Stretch(msgspec.Struct, frozen=True, array_like=True):
    """What becomes of the bytes of one stretch of the new file."""

    carried: int
    predicted: int
    corrected: int
    literal: int
    filled: int


class Explanation(msgspec.Struct, frozen=True):
    """Everything. Sizes in bytes.

    patch_size = header_bytes + shared_bytes + every stream's patch_bytes, and a
    stream's patch_bytes = its frame_bytes + its share of every row.  Counts are
    exact.  How a stream's bytes are shared out among rows is exact up to rounding
    where the core's models code it, else an estimate.
    """

    schema: int
    old_size: int
    new_size: int
    patch_size: int
    header_bytes: int  #: header and stream directory
    shared_bytes: int  #: of the shared coder, not shared out; 0 when the old file is known
    streams: tuple[ExplainedStream, ...]
    sections: tuple[ExplainedSection, ...]
    rows: tuple[ExplainedRow, ...]
    stretches: tuple[Stretch, ...]

    @property
    def complete(self) -> bool:
        """Was the old file at hand?"""
        return bool(self.sections)


def explain(
    patch: Path | Buffer,
    old: Path | Buffer | None = None,
    *,
    stretches: int = STRETCHES,
    progress: Progress | None = None,
    limits: Limits = _limits.DEFAULT,
) -> Explanation:
    """Where the patch's bytes went; without the old file by stream only.

    Raises: as inspect(), and with an old file OldMismatchError, MemoryLimitError,
    OutOfMemoryError.
    """
    if isinstance(patch, str | os.PathLike):
        with (
            MappedFile(Path(patch), max_size=limits.max_patch_size) as file,
            naming(old if isinstance(old, str | os.PathLike) else "", patch, ""),
        ):
            return explain(file.data, old, stretches=stretches, progress=progress, limits=limits)
    if isinstance(old, str | os.PathLike):
        with MappedFile(Path(old), max_size=limits.max_file_size) as file:
            return explain(patch, file.data, stretches=stretches, progress=progress, limits=limits)

    from bsipatch._core import Control, Patch

    with Patch(patch, max_plain=limits.max_plain, memory_budget=limits.memory_budget) as handle:
        if old is None:
            return _by_stream(handle, length_of(patch))
        _require_old(handle, old)
        prepare(handle, old, job_count(None, limits.max_jobs), limits, progress)
        control = Control()
        made: list[Account] = []
        watch(
            lambda: made.append(handle.explain(stretches, control)),
            cancel=control.cancel,
            tick=ticker(progress, control),
        )
        return _with_old(handle, length_of(patch), made[0], SectionNames(old))


def _require_old(handle: Patch, old: Buffer) -> None:
    info = handle.info
    if info.old_size != length_of(old):
        raise OldMismatchError("size", expected=info.old_size, found=length_of(old))
    with Hashing(old) as hashing:
        check = hashing.result()[: len(info.old_check)]
    if check != info.old_check:
        raise OldMismatchError("SHA-256 begins otherwise", expected=info.old_check, found=check)


def _frame(handle: Patch, patch_size: int) -> tuple[int, int]:
    """Bytes of header and directory, and of the shared coder."""
    streams = handle.streams()
    shared = max((stream.modelled_len for stream in streams), default=0)
    return patch_size - sum(stream.coded_len for stream in streams) - shared, shared


def _codec_name(codec: int) -> str:
    from bsipatch._core import Codec

    return Codec(codec).name.lower().replace("_", "-")


def _by_stream(handle: Patch, patch_size: int) -> Explanation:
    from bsipatch._core import Codec

    info = handle.info
    header, shared = _frame(handle, patch_size)
    return Explanation(
        schema=SCHEMA,
        old_size=info.old_size,
        new_size=info.new_size,
        patch_size=patch_size,
        header_bytes=header,
        shared_bytes=shared,
        streams=tuple(
            ExplainedStream(
                id=stream.id,
                name=_STREAMS[stream.id],
                codec=_codec_name(stream.codec),
                entries=None,
                plain_bytes=stream.plain_len,
                patch_bytes=None if stream.codec == Codec.MODEL else stream.coded_len,
                frame_bytes=0,
            )
            for stream in handle.streams()
        ),
        sections=(),
        rows=(),
        stretches=(),
    )


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Shares total out by weight in whole units; the last takes all when none has weight."""
    whole = sum(weights)
    if not weights:
        return []
    if not whole:
        return [0] * (len(weights) - 1) + [total]
    shares = [total * weight // whole for weight in weights]
    rests = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for index in rests[: total - sum(shares)]:
        shares[index] += 1
    return shares


def _with_old(handle: Patch, patch_size: int, account: Account, names: SectionNames) -> Explanation:
    from bsipatch._core import Codec

    info = handle.info
    header, shared = _frame(handle, patch_size)
    sharing = [stream for stream in account.streams if stream.codec == Codec.MODEL]
    lengths = {stream.id: stream.coded_len for stream in account.streams}
    parts = apportion(shared, [stream.price for stream in sharing])
    lengths.update((stream.id, part) for stream, part in zip(sharing, parts, strict=True))

    streams = []
    by_row: list[dict[str, int]] = [{} for _ in account.rows]
    for stream in account.streams:
        name = _STREAMS[stream.id]
        weights = [row.price[stream.id] for row in account.rows]
        *shares, frame = apportion(lengths[stream.id], [*weights, stream.price_frame])
        for row, share in zip(by_row, shares, strict=True):
            if share:
                row[name] = share
        streams.append(
            ExplainedStream(
                id=stream.id,
                name=name,
                codec=_codec_name(stream.codec),
                entries=stream.entries,
                plain_bytes=stream.plain_len,
                patch_bytes=lengths[stream.id],
                frame_bytes=frame,
            )
        )
    rows = tuple(
        ExplainedRow(
            section=row.place,
            kind=row.kind,
            kind_name=kind_name(row.kind),
            references=row.refs,
            moved=row.refs_moved,
            right=row.refs_right,
            overridden=row.refs_overridden,
            fixed=row.refs_fixed,
            corrected=row.refs_corrected,
            byte_corrections=row.byte_fixes,
            byte_runs=row.byte_runs,
            literal_bytes=row.literal_bytes,
            cover_entries=row.cover_entries,
            covered_bytes=row.cover_bytes,
            filled_bytes=row.fill_bytes,
            patch_bytes=share,
        )
        for row, share in zip(account.rows, by_row, strict=True)
    )
    return Explanation(
        schema=SCHEMA,
        old_size=info.old_size,
        new_size=info.new_size,
        patch_size=patch_size,
        header_bytes=header,
        shared_bytes=0 if sharing else shared,
        streams=tuple(streams),
        sections=tuple(_sections(account.places, rows, names)),
        rows=rows,
        stretches=tuple(Stretch(*counts) for counts in account.buckets),
    )


def _sections(
    places: Sequence[Place], rows: Iterable[ExplainedRow], names: SectionNames
) -> Iterable[ExplainedSection]:
    spent = [0] * len(places)
    for row in rows:
        spent[row.section] += sum(row.patch_bytes.values())
    for place, patch_bytes in zip(places, spent, strict=True):
        outside = place.image is None
        yield ExplainedSection(
            image=place.image,
            format=_FORMATS.get(place.format, ""),
            architecture=_ARCHITECTURES.get(place.arch, ""),
            role=_ROLES[place.role] if place.role < len(_ROLES) else "",
            name="outside of all sections" if outside else _name(place, names),
            offset=place.new_off,
            size=place.len,
            address=place.addr,
            patch_bytes=patch_bytes,
        )


def _name(place: Place, names: SectionNames) -> str:
    if _ROLES[place.role : place.role + 1] == ("zero-fill",):
        return f"zero-fill at {place.addr:#x}"
    if not place.paired:
        return f"new section at {place.new_off:#x}"
    return names.at(place.old_off) or f"section at {place.new_off:#x}"
