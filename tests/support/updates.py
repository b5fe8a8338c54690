"""Small update files made by hand, without the native core: whole-file payloads, real signatures.

Enough for everything that reads, verifies or refuses updates.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from bsipatch import manifest, package, trust
from bsipatch.manifest import Action, Activation, Baseline, Manifest, Payload, SecurityItem
from bsipatch.publish.plan import plan
from tests.support.trees import NEW_FRAMEWORK, OLD_FRAMEWORK, Content, File, tree_of

#: a date in 2026, so that nothing here depends on the clock
CREATED = 1_773_700_000


@functools.cache
def _key(number: int) -> trust.PrivateKey:
    return trust.generate()


def key(number: int = 0) -> trust.PrivateKey:
    """The same few keys for all tests of a run."""
    return _key(number)


def policy(*numbers: int, threshold: int = 1) -> trust.Policy:
    """Trusts the keys of these numbers, key 0 when none is given."""
    return trust.Policy([key(n).public for n in numbers or (0,)], threshold)


def verifier(trusted: trust.Policy | None = None) -> Callable[[bytes], bytes]:
    """What Package.open() wants, for a policy."""
    chosen = policy() if trusted is None else trusted
    return lambda envelope: trust.verify(envelope, chosen).payload


def _bytes_of(contents: dict[str, Content], path: str) -> bytes:
    content = contents[path]
    if isinstance(content, File):
        return content.data
    assert isinstance(content, bytes)
    return content


def make_manifest(
    old: dict[str, Content] | None = None,
    new: dict[str, Content] | None = None,
    **changes: Any,
) -> tuple[Manifest, list[bytes]]:
    """A valid manifest from one listed tree to another, and its payloads; fields as `changes`."""
    olds = OLD_FRAMEWORK if old is None else old
    news = NEW_FRAMEWORK if new is None else new
    old_tree, new_tree = tree_of(olds), tree_of(news)
    planned = plan(old_tree, new_tree)
    actions, payloads, bodies, offset = list(planned.actions), [], [], 0
    for index, job in enumerate(planned.jobs):
        plain = _bytes_of(news, job.new.path)
        packed = package.compress(plain, 3)
        smaller = len(packed) < len(plain)
        body = packed if smaller else plain
        payloads.append(
            Payload(
                kind="zstd" if smaller else "plain",
                offset=offset,
                length=len(body),
                sha256=hashlib.sha256(body).hexdigest(),
                size=len(plain),
                decoded=len(plain),
                memory=1 << 20 if smaller else 0,
            )
        )
        bodies.append(body)
        offset += len(body)
        for path in job.paths:
            before, after = old_tree.get(path), new_tree.get(path)
            assert after is not None
            actions.append(
                Action(
                    do="add",
                    path=path,
                    old=before.state if before else None,
                    new=after.state,
                    payload=index,
                )
            )
    fields: dict[str, Any] = {
        "format": 1,
        "product": "Demo",
        "platform": "any",
        "architectures": ("any",),
        "version": "26.3.1",
        "letter": "a",
        "build": "25D771280a",
        "baseline": Baseline(version="26.3.1", build="25D2128", digest=old_tree.digest),
        "result_digest": new_tree.digest,
        "actions": tuple(sorted(actions, key=lambda a: a.path.encode())),
        "payloads": tuple(payloads),
        "required_space": 1 << 20,
        "activation": Activation(scope="relaunch", processes=("Safari",)),
        "created": CREATED,
        "expires": CREATED + 365 * 86400,
        "security": (
            SecurityItem(
                component="WebKit",
                impact="A cross-origin issue in the Navigation API.",
                cves=("CVE-2026-20643",),
                credit="a researcher",
            ),
        ),
        "release_notes": "https://example.org/notes",
    }
    return Manifest(**{**fields, **changes}), bodies


def pack(
    made: Manifest | bytes, bodies: Sequence[bytes], keys: Sequence[trust.PrivateKey] | None = None
) -> bytes:
    """The update file of a manifest (or of any bytes in its place), signed."""
    data = manifest.encode(made) if isinstance(made, Manifest) else made
    envelope = trust.sign(package.seal(data), [key()] if keys is None else keys)
    out = io.BytesIO()
    package.write(out, envelope, list(bodies))
    return out.getvalue()


def make_update(
    old: dict[str, Content] | None = None, new: dict[str, Content] | None = None, **changes: Any
) -> bytes:
    """A whole, valid update file."""
    return pack(*make_manifest(old, new, **changes))


def jsonable(made: Manifest) -> Any:
    """The manifest as plain dictionaries and lists, to be tampered with."""
    return msgspec.json.decode(manifest.encode(made))


def spelled(document: Any) -> bytes:
    """A document in the canonical spelling, valid or not."""
    return msgspec.json.Encoder(order="sorted").encode(document)
