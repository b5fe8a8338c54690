"""The reference applier: the documents docs/format*.md and docs/entropy.md in plain Python.

Written from the documents, not from the C sources: slow, short, without a shared line.  It
never imports the package that it checks.
"""

from tests.reference.apply import apply, decode, describe, rebuild
from tests.reference.columns import PlainColumn
from tests.reference.container import Broken, Patch, parse
from tests.reference.images import Image, Ref, References, images_of
from tests.reference.streams import read_cover

__all__ = [
    "Broken",
    "Image",
    "Patch",
    "PlainColumn",
    "Ref",
    "References",
    "apply",
    "decode",
    "describe",
    "images_of",
    "parse",
    "read_cover",
    "rebuild",
]
