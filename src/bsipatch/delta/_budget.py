"""A memory budget for making patches: which cheaper ways there are, and what coding takes.

A budget costs time and size, never correctness: what does not fit is done in a cheaper way.
First the core itself indexes the old file more coarsely; when that is not enough the patch is
made in the next of the ways() below.  Each way is tried with one thread before it is given up,
for one thread needs the least: so the number of threads never decides what a patch looks like.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bsipatch.delta._results import Profile
from bsipatch.limits import MIB

if TYPE_CHECKING:
    from bsipatch._core import Stream

__all__ = ["Way", "coding", "ways"]

_CHEAPER = {
    Profile.MAX: (Profile.MAX, Profile.BALANCED, Profile.FAST),
    Profile.BALANCED: (Profile.BALANCED, Profile.FAST),
    Profile.FAST: (Profile.FAST,),
}
#: what LZMA's encoder allocates for each byte of its dictionary, and beside it, rounded up
_LZMA_PER_BYTE = 11
_LZMA_BESIDE = 4 * MIB


@dataclass(frozen=True, slots=True)
class Way:
    """One way to make a patch: the core's effort, and whether executables are understood."""

    profile: Profile
    raw: bool
    jobs: int


def ways(profile: Profile, raw: bool, jobs: int, budget: int) -> Iterator[Way]:
    """The wanted way, then, within a budget, cheaper ones."""
    profiles = _CHEAPER[profile] if budget else (profile,)
    found = [(one, raw) for one in profiles]
    if budget and not raw:
        found.append((Profile.FAST, True))
    for one, plain in found:
        yield Way(one, plain, jobs)
        if budget and jobs > 1:
            yield Way(one, plain, 1)


def coding(streams: Sequence[Stream], profile: Profile, jobs: int, budget: int) -> tuple[str, int]:
    """How hard the generic codecs may work on these streams, and on how many threads.

    The effort follows from streams and budget alone, not from `jobs`.
    """
    if not budget:
        return profile.value, jobs
    # The core still holds each stream, and may be handed a coded copy of it.
    held = sum(2 * stream.plain_len + stream.modelled_len for stream in streams)
    room = max(budget - held, budget // 8)
    longest = max((stream.plain_len for stream in streams), default=1)
    for one in _CHEAPER[profile]:
        need = _coder(longest, one)
        if need <= room:
            return one.value, max(1, min(jobs, room // need))
    return Profile.FAST.value, 1


def _coder(plain_len: int, profile: Profile) -> int:
    """Bytes that one thread takes to code a stream, with what comes out."""
    import zstandard

    from bsipatch.delta._codecs import EFFORTS, lzma_dict_size, zstd_window_log

    effort = EFFORTS[profile.value]
    parameters = zstandard.ZstdCompressionParameters.from_level(
        effort.zstd_level, source_size=plain_len, window_log=zstd_window_log(plain_len)
    )
    need = int(parameters.estimated_compression_context_size())
    if effort.lzma:
        need = max(need, _LZMA_PER_BYTE * lzma_dict_size(plain_len) + _LZMA_BESIDE)
    return need + plain_len
