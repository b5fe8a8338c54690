"""What the core understands of an ELF file: its one image, references by offset."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support import file_model
from tests.support.file_model import (
    ABS64,
    BASE32,
    CODE,
    PC32,
    ZEROFILL,
    Ref,
    Section,
    name_hash,
)

__all__ = ["ABS64", "BASE32", "CODE", "PC32", "ZEROFILL", "Ref", "name_hash"]

FORMAT_ELF = 2
OTHER = 0
ABS32, BACK32, INDEX24 = 33, 40, 41


@dataclass(frozen=True)
class Model:
    """The image of a file (without sections when there is none) and its data references."""

    format: int
    subtype: int
    pieces: list[Section]
    refs: dict[int, Ref]

    def piece(self, name: str) -> Section:
        """The one piece of that name."""
        (found,) = [p for p in self.pieces if p.name == name_hash(name)]
        return found


def try_parse(data: bytes, fail_at: int = 0) -> Model | None:
    """Parses `data`; None when memory was refused, which request `fail_at` is."""
    _, model, _ = file_model.try_parse(data, fail_at)
    if model is None:
        return None
    if not model.images:
        return Model(0, 0, [], {})
    (image,) = model.images
    refs = {ref.off: ref for ref in model.data_refs()}
    return Model(image.format, image.subtype, image.sections, refs)


def parse(data: bytes) -> Model:
    """Parses `data`, with all the memory it takes."""
    model = try_parse(data)
    assert model is not None
    return model
