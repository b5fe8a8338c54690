"""The gate: a manifest that passes it needs no further checks of form."""

from __future__ import annotations

import itertools
import re

from bsipatch.errors import CorruptError, LimitError, ManifestError, VersionError
from bsipatch.limits import DEFAULT, Limits
from bsipatch.manifest.health import check_health
from bsipatch.manifest.model import FORMAT, Action, Manifest, Payload
from bsipatch.tree import Entry, State, Tree, check_path, check_tree

__all__ = ["check_release_field", "validate", "written_bytes"]


_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._+-]*[A-Za-z0-9_+-])?")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~:-]*")
_LETTER = re.compile(r"[a-z]{1,3}")
_CVE = re.compile(r"CVE-[0-9]{4}-[0-9]{4,19}")
_URL = re.compile(r"https?://[!-~]+")

_FIELDS: dict[str, tuple[re.Pattern[str], str]] = {
    "product": (_NAME, "letters, digits, spaces and . _ + - (beginning with a letter or digit)"),
    "platform": (_LABEL, "a word such as macos or linux"),
    "architecture": (_LABEL, "a word such as arm64 or x86_64"),
    "version": (_LABEL, "a version such as 26.3.1, without letter or spaces"),
    "letter": (_LETTER, "one to three lower-case letters"),
    "build": (_LABEL, "a build id such as 25D771280a"),
    "cve": (_CVE, "a CVE id such as CVE-2026-20643"),
    "release_notes": (_URL, "an http or https link"),
}

#: largest integer that every JSON reader holds exactly
_MAX_INT = (1 << 53) - 1


def check_release_field(field: str, value: str, *, limits: Limits = DEFAULT) -> None:
    """Passes a value of one of the fields that people write: product, version, letter, ...

    Raises ManifestError with the rule that it breaks.
    """
    pattern, rule = _FIELDS[field]
    if not pattern.fullmatch(value) or len(value) > min(limits.max_text, 255):
        raise ManifestError(f"{field} must be {rule}", found=ascii(value[:64]))


def validate(manifest: Manifest, *, limits: Limits = DEFAULT) -> None:
    """The complete gate: a manifest that passes needs no further checks of form.

    Raises ManifestError, UnsafePathError or LimitError.
    """
    if manifest.format != FORMAT:
        raise VersionError("the manifest's", expected=FORMAT, found=manifest.format)
    _check_identity(manifest, limits)
    _check_prose(manifest, limits)
    _check_successor(manifest, limits)
    if len(manifest.payloads) > limits.max_payloads:
        raise LimitError("too many payloads", expected=limits.max_payloads)
    if len(manifest.actions) > 2 * limits.max_entries:
        raise LimitError("too many actions", expected=2 * limits.max_entries)
    _check_payloads(manifest, limits)
    _check_trees(manifest, limits)
    _check_actions(manifest)
    check_health(manifest.health, limits=limits, programs=_programs(manifest))
    _check_space(manifest)


def _check_identity(manifest: Manifest, limits: Limits) -> None:
    for field in ("product", "platform", "version", "letter", "build"):
        check_release_field(field, getattr(manifest, field), limits=limits)
    architectures = manifest.architectures
    _check_count("architectures", len(architectures), limits.max_list)
    for name in architectures:
        check_release_field("architecture", name, limits=limits)
    if not architectures or list(architectures) != sorted(set(architectures)):
        raise ManifestError("architectures must be named, sorted, each once")
    baseline, parent = manifest.baseline, manifest.stacks_on
    check_release_field("version", baseline.version, limits=limits)
    if baseline.build is not None:
        check_release_field("build", baseline.build, limits=limits)
    digests = [baseline.digest, manifest.result_digest]
    if parent is not None:
        check_release_field("letter", parent.letter, limits=limits)
        if parent.build is not None:
            check_release_field("build", parent.build, limits=limits)
        digests.append(parent.digest)
    for digest in digests:
        _check_digest(digest)
    _check_int("created", manifest.created)
    if manifest.expires is not None:
        _check_int("expires", manifest.expires)
        if manifest.expires <= manifest.created:
            raise ManifestError("it expires before it was created")


def _check_prose(manifest: Manifest, limits: Limits) -> None:
    activation = manifest.activation
    _check_count("processes", len(activation.processes), limits.max_list)
    for process in activation.processes:
        _check_text("process", process, limits.max_text)
    if (activation.scope == "relaunch") != bool(activation.processes):
        raise ManifestError("relaunch, and only relaunch, names processes")
    if len(set(activation.processes)) != len(activation.processes):
        raise ManifestError("a process is named twice")
    _check_count("security items", len(manifest.security), limits.max_security_items)
    for item in manifest.security:
        _check_count("CVE ids", len(item.cves), limits.max_list)
        for cve in item.cves:
            check_release_field("cve", cve, limits=limits)
        if len(set(item.cves)) != len(item.cves):
            raise ManifestError("a CVE id occurs twice in one item")
        _check_text("component", item.component, limits.max_text)
        _check_text("impact", item.impact, limits.max_long_text)
        if item.credit:
            _check_text("credit", item.credit, limits.max_long_text)
    if manifest.release_notes is not None:
        check_release_field("release_notes", manifest.release_notes, limits=limits)


def _check_successor(manifest: Manifest, limits: Limits) -> None:
    builds = manifest.supersedes
    _check_count("superseded builds", len(builds), limits.max_list)
    for build in builds:
        check_release_field("build", build, limits=limits)
    if len(set(builds)) != len(builds) or manifest.build in builds:
        raise ManifestError("a superseded build is named twice, or is its own")


def _programs(manifest: Manifest) -> dict[str, bool]:
    """Every file of the result, and whether it may be run."""
    states = ((action.path, action.result) for action in manifest.actions)
    return {
        path: bool(state.mode & 0o111)
        for path, state in states
        if state is not None and state.kind == "file"
    }


def _check_payloads(manifest: Manifest, limits: Limits) -> None:
    """Payloads lie one after the other, from 0 on, without gap or overlap."""
    end = 0
    for index, payload in enumerate(manifest.payloads):
        where = f"payload {index}"
        for field in ("offset", "length", "size", "decoded", "memory"):
            _check_int(f"{where}: {field}", getattr(payload, field))
        _check_digest(payload.sha256)
        if payload.offset != end:
            raise ManifestError(
                f"{where} leaves a gap or overlaps", expected=end, found=payload.offset
            )
        if payload.length == 0:
            raise ManifestError(f"{where} is empty")
        end += payload.length
        patch = payload.kind == "patch"
        if payload.length > (limits.max_patch_size if patch else limits.max_file_size):
            raise LimitError(f"{where} is too large", found=payload.length)
        if payload.size > limits.max_file_size or payload.decoded > (
            limits.max_plain if patch else limits.max_file_size
        ):
            raise LimitError(f"{where} decodes to too much", found=payload.decoded)
        if limits.memory_budget and payload.memory > limits.memory_budget:
            raise LimitError(
                f"{where} needs too much memory",
                expected=limits.memory_budget,
                found=payload.memory,
            )
        if not patch and payload.decoded != payload.size:
            raise ManifestError(f"{where}: a whole file decodes to its size")
        if payload.kind == "plain" and payload.length != payload.size:
            raise ManifestError(f"{where}: a plain file is as long as its size")
        if payload.kind == "zstd" and payload.length >= payload.size:
            raise ManifestError(f"{where}: a compressed file is shorter than its size")
    if end > limits.max_package_size:
        raise LimitError("the payloads are too large", found=end)


def _check_trees(manifest: Manifest, limits: Limits) -> None:
    """Both trees are sound, have the digests they claim, and share no ambiguous name."""
    paths = [action.path for action in manifest.actions]
    for path in paths:
        check_path(path, limits=limits)
    if any(a.encode() >= b.encode() for a, b in itertools.pairwise(paths)):
        raise ManifestError("the actions are out of order, or a path has two")
    # what stays is one entry of both trees, and looked at once
    old = {a.path: a.old.at(a.path) for a in manifest.actions if a.old is not None}
    new = [
        old[a.path] if a.do == "keep" else a.result.at(a.path)
        for a in manifest.actions
        if a.result is not None
    ]
    passed: dict[str, Entry] = {}
    for name, entries, digest in (
        ("baseline", list(old.values()), manifest.old_digest),
        ("result", new, manifest.result_digest),
    ):
        try:
            passed = check_tree(entries, limits=limits, paths_passed=True, passed=passed)
        except CorruptError as error:
            raise ManifestError(f"the {name}: {error.detail}", file=error.file) from None
        if not manifest.xattrs and any(entry.xattrs for entry in entries):
            raise ManifestError(f"the {name} has extended attributes, but xattrs is not set")
        found = Tree(entries).digest
        if found != digest:
            raise ManifestError(
                f"the {name}'s entries do not have its digest", expected=digest, found=found
            )


def _check_actions(manifest: Manifest) -> None:
    """Each action's parts fit its deed, and each payload makes what its actions say."""
    old = {action.path: action.old for action in manifest.actions}
    makes: dict[int, tuple[str, str]] = {}
    for action in manifest.actions:
        _check_action(action, old, manifest.payloads)
        if action.payload is None or action.new is None:
            continue
        # Paths with the same content may share a payload; it cannot make two different files.
        made = (action.new.digest, action.base if action.do == "patch" else "")
        if makes.setdefault(action.payload, made) != made:
            raise ManifestError("its payload makes another file already", file=action.path)
    for index in range(len(manifest.payloads)):
        if index not in makes:
            raise ManifestError(f"payload {index} belongs to no action")


def _check_action(
    action: Action, old: dict[str, State | None], payloads: tuple[Payload, ...]
) -> None:
    def refuse(why: str) -> ManifestError:
        return ManifestError(f"{action.do}: {why}", file=action.path)

    before, after, do = action.old, action.new, action.do
    if (action.source is not None) and do not in ("clone", "patch"):
        raise refuse("takes no source")
    if (action.payload is not None) and do not in ("patch", "add"):
        raise refuse("takes no payload")
    if (after is None) != (do in ("keep", "remove")):
        raise refuse("has a new state too many or too few")
    if do in ("keep", "remove", "chmod", "retarget") and before is None:
        raise refuse("there is nothing at its path in the baseline")
    if after is None or do in ("chmod", "retarget"):
        if after is not None and before is not None:
            _check_alteration(action, before, after)
        return
    wanted = {"mkdir": "dir", "symlink": "symlink"}.get(do, "file")
    if after.kind != wanted:
        raise refuse(f"makes a {wanted}, not a {after.kind}")
    if do in ("mkdir", "symlink"):
        if before is not None and before.kind == after.kind:
            raise refuse(f"a {after.kind} is there already")
    elif do == "add":
        _check_add(action, after, payloads)
    else:
        _check_derived(action, after, old, payloads)


def _check_alteration(action: Action, before: State, after: State) -> None:
    if action.do == "chmod":
        if not before.same_content(after) or before == after:
            raise ManifestError("chmod: must change the mode and nothing else", file=action.path)
    elif before.kind != "symlink" or after.kind != "symlink" or before.target == after.target:
        raise ManifestError("retarget: must change a link's target", file=action.path)


def _payload_of(action: Action, kinds: tuple[str, ...], payloads: tuple[Payload, ...]) -> Payload:
    index = action.payload
    if index is None or not 0 <= index < len(payloads):
        raise ManifestError(f"{action.do}: has no such payload", file=action.path, found=index)
    if payloads[index].kind not in kinds:
        raise ManifestError(f"{action.do}: its payload is of another kind", file=action.path)
    return payloads[index]


def _check_add(action: Action, after: State, payloads: tuple[Payload, ...]) -> None:
    if after.size == 0 and action.payload is None:
        return
    payload = _payload_of(action, ("zstd", "plain"), payloads)
    if payload.size != after.size:
        raise ManifestError("add: its payload makes another size", file=action.path)


def _check_derived(
    action: Action,
    after: State,
    old: dict[str, State | None],
    payloads: tuple[Payload, ...],
) -> None:
    base = old.get(action.base)
    if base is None or base.kind != "file":
        raise ManifestError(
            f"{action.do}: its source {action.base!r} is not a file of the baseline",
            file=action.path,
        )
    if action.do == "clone":
        if action.source is None or action.source == action.path:
            raise ManifestError("clone: needs the path of another file", file=action.path)
        if not base.same_content(after):
            raise ManifestError("clone: its source has other content", file=action.path)
        return
    if action.source == action.path:
        raise ManifestError("patch: leaves its own path out", file=action.path)
    if _payload_of(action, ("patch",), payloads).size != after.size:
        raise ManifestError("patch: its payload makes another size", file=action.path)


def written_bytes(manifest: Manifest) -> int:
    """Bytes, in blocks of 4 KiB, that staging writes in any case: all files not kept or cloned."""
    return sum(
        (action.new.size + 4095) // 4096 * 4096
        for action in manifest.actions
        if action.new is not None and action.do in ("patch", "add")
    )


def _check_space(manifest: Manifest) -> None:
    _check_int("required_space", manifest.required_space)
    if manifest.required_space < written_bytes(manifest):
        raise ManifestError(
            "required_space is less than what is written",
            expected=written_bytes(manifest),
            found=manifest.required_space,
        )


def _check_int(what: str, value: int) -> None:
    if not 0 <= value <= _MAX_INT:
        raise ManifestError(f"{what} is out of range", found=value)


def _check_digest(value: str) -> None:
    if not _DIGEST.fullmatch(value):
        raise ManifestError("a digest is not 64 lower-case hex digits", found=ascii(value[:80]))


def _check_count(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise LimitError(f"too many {what}", expected=limit, found=count)


def _check_text(what: str, value: str, limit: int) -> None:
    if not value or len(value) > limit:
        raise ManifestError(f"{what} is empty or too long", found=len(value))
    if any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in value):
        raise ManifestError(f"{what} contains a control character", found=ascii(value[:64]))
