"""SHA-256 of whole files beside other work: in a thread, or of old and new at once."""

from __future__ import annotations

from bsipatch.closing import Closing
from bsipatch.delta._support import length_of
from bsipatch.parallel import Worker

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:
    from typing_extensions import Buffer

#: bytes between two looks at whether to stop
HASH_STEP = 1 << 20
#: files below this many bytes are not worth a choice
_LEAST = 4 << 20
#: with more threads the digests are made sooner apart, each on its own processor
_FEW_JOBS = 2


class Hashing:
    """SHA-256 of a buffer by hashlib, in a thread beside other work."""

    def __init__(self, data: Buffer) -> None:
        self._data = data
        self._stop = False
        self._digest = b""
        self._worker = Worker(self._work, "sha256")

    def _work(self) -> None:
        import hashlib  # loads slowly, and is not always needed

        digest = hashlib.sha256()
        with memoryview(self._data) as view:
            for offset in range(0, len(view), HASH_STEP):
                if self._stop:
                    return
                with view[offset : offset + HASH_STEP] as piece:
                    digest.update(piece)
        self._digest = digest.digest()

    def result(self) -> bytes:
        """Waits for the digest."""
        self._worker.wait()
        return self._digest

    def __enter__(self) -> Hashing:
        self._worker.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop = True
        self._worker.finish()


class BothFiles(Closing):
    """SHA-256 of the old file along with that of the new one, piece by piece.

    One message leaves a processor waiting for the result of the last round; of two, each
    fills the other's gaps, and both take seven tenths of the time.  One thread at a time.
    """

    def __init__(self, old: Buffer) -> None:
        from bsipatch._core import Sha256

        self._view = memoryview(old)
        self._at = 0  # hashed so far, of the old file
        self._old = Sha256()
        self._new = Sha256()

    def update(self, new: memoryview) -> None:
        """The next bytes of the new file, and as many of the old one."""
        length = min(len(new), len(self._view) - self._at)
        with new[:length] as piece, self._view[self._at : self._at + length] as beside:
            self._new.update_beside(piece, self._old, beside)
        self._at += length
        if length < len(new):
            with new[length:] as rest:
                self._new.update(rest)

    def digest(self) -> bytes:
        """The new file's, of what was taken in."""
        return self._new.digest()

    def result(self) -> bytes:
        """The old file's, once no other thread hashes."""
        while self._at < len(self._view):
            with self._view[self._at : self._at + HASH_STEP] as piece:
                self._old.update(piece)
                self._at += len(piece)
        return self._old.digest()

    def close(self) -> None:
        """Lets go of the old file."""
        self._view.release()


def hashing_for_apply(old: Buffer, new_size: int, jobs: int) -> Hashing | BothFiles:
    """The old file's digest, in the way that takes least while a new file is made."""
    from bsipatch._core import pays_in_pairs

    shorter, longer = sorted((length_of(old), new_size))
    alike = shorter >= _LEAST and longer <= shorter + shorter // 4
    return BothFiles(old) if jobs <= _FEW_JOBS and alike and pays_in_pairs() else Hashing(old)
