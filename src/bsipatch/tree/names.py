"""The gate for names: which paths and links may exist in a tree, wherever they come from."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

from bsipatch.errors import CorruptError, LimitError, UnsafePathError
from bsipatch.limits import DEFAULT, Limits
from bsipatch.tree.entry import Entry, State, path_order

__all__ = ["check_path", "check_state", "check_tree", "fold"]

#: names that hosts read as something else: devices of one family, resource forks of another
_RESERVED = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]|\.\.namedfork", re.IGNORECASE)
#: the store's own names begin so
_OWN_PREFIX = ".bsipatch"
#: text in which there is nothing to find fault with: printable ASCII without the backslash
_PLAIN_TEXT = re.compile(r"[ -\[\]-~]*")
#: a path that passes every rule but those on lengths: plain text, no name that begins with a dot
_PLAIN_NAME = r"(?!\.)(?!(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:/|\Z))[ -.0-\[\]-~]+"
_PLAIN_PATH = re.compile(f"{_PLAIN_NAME}(?:/{_PLAIN_NAME})*", re.IGNORECASE | re.ASCII)
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
_XATTR_PREFIXES = ("user.", "com.apple.")
#: links followed in a row before a chain counts as a cycle
_MAX_HOPS = 40
#: component steps that resolving may take per link of the tree, against quadratic chains
_STEPS_PER_LINK = 512


def fold(name: str) -> str:
    """What a host that ignores case and normalisation sees: equal results mean a collision."""
    if name.isascii():
        return name.lower()  # normal in every form; most names are, and trees have many
    folded = unicodedata.normalize("NFD", name).casefold()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", folded))


def _check_name(name: str, path: str, limits: Limits) -> None:
    if name in ("", ".", ".."):
        raise UnsafePathError("has an empty, '.' or '..' component", file=path)
    if _RESERVED.fullmatch(name) or fold(name).startswith(_OWN_PREFIX):
        raise UnsafePathError(f"{name!r} is a reserved name", file=path)
    length = _length(name)
    if length > limits.max_name:
        raise LimitError("a name is too long", file=path, expected=limits.max_name, found=length)


def _length(text: str) -> int:
    """Bytes of its UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def _check_text(text: str, what: str) -> None:
    """No control characters, backslashes or lone surrogates; composed (NFC)."""
    if _PLAIN_TEXT.fullmatch(text):
        return
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UnsafePathError(f"{what} is not UTF-8", file=ascii(text)) from None
        if not unicodedata.is_normalized("NFC", text):
            raise UnsafePathError(f"{what} is not in Unicode normalisation form C", file=text)
    if "\\" in text:
        raise UnsafePathError(f"{what} contains a backslash", file=text)
    if any(unicodedata.category(c) == "Cc" for c in text):
        raise UnsafePathError(f"{what} contains a control character", file=ascii(text))


def check_path(path: str, *, limits: Limits = DEFAULT) -> None:
    """Passes a relative POSIX path that means the same on every host and stays below its root.

    Raises UnsafePathError, or LimitError when it is longer or deeper than the limits.
    """
    if (
        len(path) <= min(limits.max_name, limits.max_path)
        and path.count("/") < limits.max_depth
        and _PLAIN_PATH.fullmatch(path)
    ):
        return  # as nearly every path does, and trees have many
    _check_text(path, "the path")
    if path.startswith("/"):
        raise UnsafePathError("is absolute", file=path)
    if _length(path) > limits.max_path:
        raise LimitError(
            "the path is too long", file=path[:64], expected=limits.max_path, found=len(path)
        )
    names = path.split("/")
    if len(names) > limits.max_depth:
        raise LimitError("is too deep", file=path, expected=limits.max_depth, found=len(names))
    for name in names:
        _check_name(name, path, limits)


def check_state(state: State, path: str, *, limits: Limits = DEFAULT) -> None:
    """Passes a state whose fields fit its kind and the limits.

    Raises CorruptError, UnsafePathError or LimitError.
    """
    if (
        state.kind == "file"
        and 0 <= state.mode <= 0o777
        and 0 <= state.size <= limits.max_file_size
        and not state.target
        and not state.xattrs
        and _HEX_DIGEST.fullmatch(state.digest)
    ):
        return  # as nearly every one is
    if not 0 <= state.mode <= 0o777:
        raise UnsafePathError("has mode bits beyond permissions (setuid ...)", file=path)
    is_file = state.kind == "file"
    if is_file != bool(_HEX_DIGEST.fullmatch(state.digest)) or (state.digest and not is_file):
        raise CorruptError("a file needs a SHA-256 digest, others must have none", file=path)
    if state.size < 0 or (state.size and not is_file):
        raise CorruptError("only files have a size", file=path, found=state.size)
    if state.size > limits.max_file_size:
        raise LimitError(
            "the file is too large", file=path, expected=limits.max_file_size, found=state.size
        )
    if (state.kind == "symlink") != bool(state.target):
        raise CorruptError("links, and only links, need a target", file=path)
    if state.kind == "symlink" and state.mode:
        raise CorruptError("a link has no mode", file=path)
    _check_xattrs(state, path, limits)


def _check_xattrs(state: State, path: str, limits: Limits) -> None:
    if not state.xattrs:
        return
    if len(state.xattrs) > limits.max_xattrs:
        raise LimitError("has too many extended attributes", file=path)
    names = [name for name, _ in state.xattrs]
    if any(len(name.encode()) > limits.max_xattr_name for name in names) or any(
        len(value) > limits.max_xattr_value for _, value in state.xattrs
    ):
        raise LimitError("has an extended attribute that is too long", file=path)
    for name in names:
        _check_text(name, "an extended attribute's name")
        if not name.startswith(_XATTR_PREFIXES):
            raise UnsafePathError(f"has the foreign extended attribute {name!r}", file=path)
    if sorted(set(names), key=str.encode) != names:
        raise CorruptError("extended attributes are out of order or twice", file=path)


def check_tree(
    entries: Iterable[Entry],
    *,
    limits: Limits = DEFAULT,
    paths_passed: bool = False,
    passed: Mapping[str, Entry] | None = None,
) -> dict[str, Entry]:
    """The complete gate for a tree's entries, wherever they were read from; them by path.

    Every path and state is checked alone; then that no two paths are equal, or equal to a host that
    ignores case and normalisation; that every parent is a directory of the tree; that the totals
    are within the limits; and that no link leads out of the tree or in circles.

    paths_passed: each path has passed check_path() before.  passed: what this function gave for
    another tree; the very entries that are in both are not looked at alone once more.
    Raises UnsafePathError, CorruptError or LimitError.
    """
    by_path: dict[str, Entry] = {}
    folded: dict[str, str] = {}
    total = 0
    known = passed or {}
    for entry in entries:
        path = entry.path
        if known.get(path) is not entry:
            if not paths_passed:
                check_path(path, limits=limits)
            check_state(entry, path, limits=limits)
        if path in by_path:
            raise UnsafePathError("occurs twice", file=path)
        key = path.lower() if path.isascii() else fold(path)
        if key in folded:
            raise UnsafePathError(
                f"is the same name as {folded[key]!r} where case or normalisation is ignored",
                file=path,
            )
        by_path[path] = entry
        folded[key] = path
        total += entry.size
        if len(by_path) > limits.max_entries or total > limits.max_tree_size:
            raise LimitError(
                "the tree has too many entries or bytes", found=f"{len(by_path)} / {total}"
            )
    last = ""
    for path in by_path:
        parent = path.rpartition("/")[0]
        if parent == last:
            continue  # looked at with the path before
        if parent and (parent not in by_path or by_path[parent].kind != "dir"):
            raise UnsafePathError("its parent is not a directory of the tree", file=path)
        last = parent
    _check_links(by_path, limits)
    return by_path


def _check_links(by_path: dict[str, Entry], limits: Limits) -> None:
    links = sorted((e for e in by_path.values() if e.kind == "symlink"), key=_entry_order)
    budget = 4096 + _STEPS_PER_LINK * len(links)
    for link in links:
        _check_text(link.target, f"the target of {link.path}")
        if len(link.target.encode()) > limits.max_link_target:
            raise LimitError("a link's target is too long", file=link.path)
        if link.target.startswith("/"):
            raise UnsafePathError(f"leads to {link.target!r}, out of the tree", file=link.path)
        budget = _resolve(link, by_path, budget)


def _entry_order(entry: Entry) -> bytes:
    return path_order(entry.path)


def _resolve(link: Entry, by_path: dict[str, Entry], budget: int) -> int:
    """Follows a link as the kernel would, within the listed tree; returns what budget is left.

    Lexical '..' alone is not enough: a link to a shallow directory followed by '..' climbs further
    than it looks. A target that does not exist is allowed, one outside the tree never is.
    """
    at = link.path.split("/")[:-1]
    todo = link.target.split("/")[::-1]
    hops = 1
    while todo:
        budget -= 1
        if budget < 0:
            raise LimitError("the links of the tree take too long to resolve", file=link.path)
        name = todo.pop()
        if name in ("", "."):
            continue
        if name == "..":
            if not at:
                raise UnsafePathError(f"leads to {link.target!r}, out of the tree", file=link.path)
            at.pop()
            continue
        found = by_path.get("/".join([*at, name]))
        if found is None or found.kind != "symlink":
            at.append(name)
            continue
        hops += 1
        if hops > _MAX_HOPS:
            raise UnsafePathError("leads in circles", file=link.path)
        if found.target.startswith("/"):
            raise UnsafePathError(f"leads to {found.target!r}, out of the tree", file=link.path)
        todo.extend(found.target.split("/")[::-1])
    return budget
