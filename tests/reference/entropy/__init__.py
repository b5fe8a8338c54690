"""The entropy coding of docs/entropy.md, decoded in plain Python.

Written from the document, not from the C sources: slow, short, without a shared line.
Nothing here raises on strange bytes; every string of bytes decodes to something.
"""

from tests.reference.entropy.byte_model import ByteModel
from tests.reference.entropy.coder import AdaptiveBit, RangeDecoder
from tests.reference.entropy.int_model import IntModel

__all__ = ["AdaptiveBit", "ByteModel", "IntModel", "RangeDecoder"]
