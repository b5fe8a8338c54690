"""A feed in an object store, through obstore: S3 and its like, GCS, Azure; plain HTTP to read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import obstore
from obstore import exceptions
from obstore.store import from_url

from bsipatch.errors import LimitError, NotFoundError, TransferError, UsageError
from bsipatch.publish.feed.storage import ConflictError, Stored

__all__ = ["ObjectStorage", "open_object_storage"]

#: what is written once under a name that holds its version or digest never changes
_FOREVER = "public, max-age=31536000, immutable"
_FRESH = "no-cache"
_CHUNK = 1 << 20


def open_object_storage(address: str) -> ObjectStorage:
    """The store at an address. Raises UsageError when it cannot be understood."""
    # Signatures vouch for what is read: a plain line is as good as any.
    plain = address.startswith("http://")
    try:
        store = from_url(address, client_options={"allow_http": True} if plain else None)
    except (exceptions.BaseError, ValueError) as error:
        raise UsageError(f"cannot open this store: {_first_line(error)}", file=address) from None
    return ObjectStorage(store, address, attributes=not address.startswith("http"))


class ObjectStorage:
    """Any of obstore's stores as Storage."""

    def __init__(self, store: Any, name: str, *, attributes: bool = True) -> None:
        """attributes: whether the store keeps Cache-Control headers."""
        self._store = store
        self._attributes = attributes
        self.name = name

    def read(self, path: str, most: int) -> Stored | None:
        """See Storage."""
        try:
            with self._telling(path):
                result = obstore.get(self._store, path)
                meta = result.meta
                if meta["size"] > most:
                    raise LimitError(
                        "the object is too large",
                        file=self._name(path),
                        expected=most,
                        found=meta["size"],
                    )
                return Stored(bytes(result.bytes()), _mark(dict(meta)))
        except NotFoundError:
            return None

    def stream(self, path: str) -> Iterator[bytes]:
        """See Storage."""
        with self._telling(path):
            for chunk in obstore.get(self._store, path).stream(min_chunk_size=_CHUNK):
                yield bytes(chunk)

    def size(self, path: str) -> int | None:
        """See Storage."""
        try:
            with self._telling(path):
                return int(obstore.head(self._store, path)["size"])
        except NotFoundError:
            return None

    def create(self, path: str, data: bytes) -> str:
        """See Storage."""
        with self._telling(path):
            return _mark(dict(self._put(path, data, mode="create", use_multipart=False)))

    def replace(self, path: str, data: bytes, version: str) -> str:
        """See Storage."""
        if not version:
            raise TransferError(
                "this store tells no ETag, so that a write cannot be made conditional",
                file=self._name(path),
            )
        with self._telling(path):
            mode = json.loads(version)
            return _mark(dict(self._put(path, data, mode=mode, use_multipart=False)))

    def upload(self, path: str, file: Path) -> None:
        """See Storage."""
        with self._telling(path):
            self._put(path, file)

    def copy(self, path: str, new_path: str) -> None:
        """See Storage."""
        with self._telling(path):
            obstore.copy(self._store, path, new_path)

    def remove(self, path: str) -> None:
        """See Storage."""
        with self._telling(path):
            obstore.delete(self._store, path)

    def _put(self, path: str, data: bytes | Path, **options: Any) -> Any:
        if self._attributes:
            changing = path.endswith("timestamp.json") or not path.startswith(
                ("metadata/", "targets/")
            )
            options["attributes"] = {"Cache-Control": _FRESH if changing else _FOREVER}
        return obstore.put(self._store, path, data, **options)

    def _name(self, path: str) -> str:
        return f"{self.name.rstrip('/')}/{path}"

    @contextmanager
    def _telling(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise NotFoundError("not in the feed", file=self._name(path)) from None
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            raise ConflictError(
                "somebody else has written it",
                file=self._name(path),
                hint="Run the command again: it starts from what is published now.",
            ) from None
        except (exceptions.NotSupportedError, NotImplementedError) as error:
            raise TransferError(
                f"this store cannot do that: {_first_line(error)}",
                file=self._name(path),
                hint="An http address is for reading; a publisher needs a directory or bucket.",
            ) from None
        except (exceptions.BaseError, OSError, ValueError) as error:
            raise TransferError(_first_line(error), file=self._name(path)) from None


def _mark(meta: dict[str, Any]) -> str:
    """What replace() hands back: S3 and Azure compare the ETag, GCS the generation."""
    known = {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}
    return json.dumps(known, sort_keys=True) if known else ""


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__
