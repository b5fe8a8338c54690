"""Looking at a patch without applying it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bsipatch import limits as _limits
from bsipatch.delta._reports import PatchReport, StreamReport
from bsipatch.delta._support import length_of, naming
from bsipatch.limits import Limits
from bsipatch.output import MappedFile

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer


def inspect(patch: Path | Buffer, *, limits: Limits = _limits.DEFAULT) -> PatchReport:
    """What a patch says about itself, without the old file and without decoding anything.

    Raises: NotFoundError, SystemCallError, MagicError, VersionError, CorruptError,
    TruncatedError, LimitError.
    """
    if isinstance(patch, str | os.PathLike):
        with (
            MappedFile(patch, max_size=limits.max_patch_size) as file,
            naming(patch, patch, patch),
        ):
            return inspect(file.data, limits=limits)

    from bsipatch._core import Codec, Patch

    with Patch(patch, max_plain=limits.max_plain, memory_budget=limits.memory_budget) as handle:
        info = handle.info
        streams = handle.streams()
        by_core = (Codec.MODEL, Codec.MODEL_OWN)
        generic = sum(stream.coded_len for stream in streams if stream.codec not in by_core)
        reports = tuple(
            StreamReport(
                id=stream.id,
                codec=stream.codec.name.lower().replace("_", "-"),
                plain=stream.plain_len,
                encoded=None if stream.codec == Codec.MODEL else stream.coded_len,
            )
            for stream in streams
        )
        del streams  # their views end with the handle
        return PatchReport(
            format_version=info.format_version,
            old_size=info.old_size,
            new_size=info.new_size,
            patch_size=length_of(patch),
            old_check=info.old_check.hex(),
            new_check=info.new_check.hex(),
            plain_bytes=info.plain_bytes,
            modelled_bytes=length_of(patch) - generic,
            streams=reports,
        )
