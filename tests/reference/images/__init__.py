"""What a file's images are and where they name addresses (docs/format-images*.md)."""

from __future__ import annotations

from tests.reference.images import elf, macho
from tests.reference.images.model import Image, Ref, Section
from tests.reference.images.references import References

__all__ = ["Image", "Ref", "References", "Section", "images_of"]


def images_of(data: bytes) -> list[Image]:
    """The images of a file, ascending by offset."""
    if data[:4] in (macho.MAGIC, macho.FAT, macho.FAT_WIDE):
        return macho.read(data)
    return elf.read(data) if data[:4] == elf.MAGIC else []
