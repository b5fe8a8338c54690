"""What the core does in tests is done again by the reference applier, and must agree.

The first hook sits where the package proves its own patches, so it sees each of them, whoever
asked for it; the second where tests let the core read executables.  A test opts out with the
marker `no_reference`.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests import reference
from tests.support import file_model

#: bytes; plain Python takes too long for larger files, and for many bytes through the models
MOST_NEW, MOST_OLD, MOST_MODELLED = 256 << 10, 1 << 20, 4 << 10


def affordable(patch: bytes) -> bool:
    """Whether the reference applies a patch in about a second."""
    parsed = reference.parse(patch)
    modelled = sum(s.plain_len for s in parsed.streams.values() if s.is_modelled)
    return parsed.new_size <= MOST_NEW and parsed.old_size <= MOST_OLD and modelled <= MOST_MODELLED


def check_patch(old: bytes, patch: bytes, new: bytes) -> None:
    """Applies a patch the slow way.  Raises AssertionError when the result is another."""
    try:
        made = reference.apply(old, patch)
    except reference.Broken as error:
        raise AssertionError(f"the reference applier refuses the patch: {error}") from error
    assert made == new, "the reference applier makes another file"


def check_file(data: bytes, model: file_model.Model) -> None:
    """Reads a file the slow way.  Raises AssertionError when anything is seen differently."""
    images = reference.images_of(data)
    assert [(i.file_off, i.file_size, i.base_addr) for i in images] == [
        (i.off, i.size, i.base) for i in model.images
    ]
    for ours, theirs in zip(images, model.images, strict=True):
        assert [s[:6] for s in ours.sections] == [
            (s.off, s.size, s.addr, s.memory, s.role, s.mapped) for s in theirs.sections
        ]
        if ours.format == "macho":
            assert [s.name for s in ours.sections] == [s.name for s in theirs.sections]
    found = []
    for image in images:
        references = reference.References(image)
        found += references.within(image.file_off, image.file_off + image.file_size)
    known = [reference.Ref(r.off, r.kind, r.target, r.base, r.size) for r in model.refs]
    if found != known:
        lacking, odd = set(known) - set(found), set(found) - set(known)
        raise AssertionError(
            f"{len(lacking)} references only the core finds: {sorted(lacking)[:3]}, "
            f"{len(odd)} only the reference: {sorted(odd)[:3]}"
        )


def watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on all that is affordable is done twice."""
    from bsipatch.delta import _make

    verify, try_parse = _make._verify, file_model.try_parse

    def verify_twice(made: bytes, old: Any, new: Any, *rest: Any) -> tuple[int, int]:
        result = verify(made, old, new, *rest)
        if affordable(made):
            check_patch(bytes(old), made, bytes(new))
        return result

    def parse_twice(data: bytes, fail_at: int = 0) -> tuple[int, file_model.Model | None, int]:
        status, model, requests = try_parse(data, fail_at)
        if model is not None and len(data) <= MOST_OLD:
            check_file(data, model)
        return status, model, requests

    monkeypatch.setattr(_make, "_verify", verify_twice)
    monkeypatch.setattr(file_model, "try_parse", parse_twice)
