"""The reference applier: docs/format.md and docs/entropy.md in plain Python, slow and short.

Written from the documents, not from the C sources.  It applies patches of files without
images; one whose layout names images raises NeedsImages, as finding references in executables
is not implemented here yet.
"""

from tests.reference.apply import apply
from tests.reference.container import Broken, NeedsImages, Patch, parse

__all__ = ["Broken", "NeedsImages", "Patch", "apply", "parse"]
