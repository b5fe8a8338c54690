"""`bsipatch inspect`: what a patch or an update file says about itself."""

from __future__ import annotations

import base64
import dataclasses
import json as json_module
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CorruptError, FormatError, MagicError, UsageError
from . import _output
from ._options import Json, Threshold

if TYPE_CHECKING:
    from ..manifest import Manifest

_SHOWN = 20


def command(
    file: Annotated[Path, typer.Argument(help="A patch or an update file.", metavar="FILE")],
    trust: Annotated[
        list[Path] | None,
        typer.Option("--trust", "-t", metavar="PUB", help="Verify an update with this key too."),
    ] = None,
    threshold: Threshold = 1,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Where a patch's bytes went: tables; best with --old."),
    ] = False,
    old: Annotated[
        Path | None,
        typer.Option(
            "--old", dir_okay=False, metavar="OLD", help="The old file, to explain a patch with."
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", dir_okay=False, metavar="PAGE", help="Write the explanation as a page."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show what a patch or an update contains, without applying it.

    --explain says where the bytes of a patch went: by stream, and with the old file
    by section and by kind of reference too.

    An update is shown unverified unless --trust names keys; `bsipatch verify`
    is the command to rely on.

    Examples:

      bsipatch inspect patch

      bsipatch inspect patch --explain --old old.dylib --html why.html

      bsipatch inspect update.bsi --trust public.pem --json
    """
    explain = explain or old is not None or html is not None
    with _output.opening(file) as opened:
        magic = opened.read(8)
    from ..package import MAGIC

    if magic == MAGIC and explain:
        raise UsageError(
            "an update cannot be explained, only a patch", hint="Explain the patches it is made of."
        )
    if magic == MAGIC:
        _update(file, trust or [], threshold, json)
    elif magic == b"BSDIFF40":
        raise MagicError(
            "a BSDIFF40 patch: there is nothing in it to show",
            file=file,
            hint="`bsipatch convert` turns it into one of ours.",
        )
    elif explain:
        _explain(file, old, html, json)
    else:
        _patch(file, json)


def _patch(file: Path, json: bool) -> None:
    from .. import delta

    report = delta.inspect(file)
    facts = {"kind": "patch", "file": str(file), **dataclasses.asdict(report)}
    rows = [
        ("Patch", f"{file}, format {report.format_version}, {_output.size(report.patch_size)}"),
        ("Old file", f"{_output.size(report.old_size)}, SHA-256 begins {report.old_check}"),
        ("New file", f"{_output.size(report.new_size)}, SHA-256 begins {report.new_check}"),
        ("Modelled", _output.size(report.modelled_bytes)),
        ("Streams", f"{len(report.streams)}, {_output.size(report.plain_bytes)} decoded"),
    ]
    lines = _output.columns(rows)
    for stream in report.streams:
        coded = "in the shared coder" if stream.encoded is None else f"{stream.encoded:,} bytes"
        lines.append(f"  {stream.id:>3}  {stream.codec:<6} {stream.plain:>14,} bytes  {coded}")
    _output.emit(json, facts, lines)


def _explain(file: Path, old: Path | None, html: Path | None, json: bool) -> None:
    import msgspec

    from .. import delta

    with _output.progress(json) as bar:
        told = delta.explain(file, old, progress=bar)
    if html is not None:
        from ..output import OutputFile
        from ..report import explain_page

        page = explain_page.render(told, file.name)
        with OutputFile(html) as out:
            out.write(page.encode())
            out.commit()
    if json:
        page_name = None if html is None else str(html)
        facts = {"kind": "explanation", "file": str(file), "page": page_name}
        _output.emit(True, {**facts, **msgspec.to_builtins(told)}, ())
        return
    from ..report import explain_text

    explain_text.show(told)
    if not told.complete:
        print("With --old the sections and references are explained too.")
    if html is not None:
        print(f"Page  {html}")


def _update(file: Path, keys: list[Path], threshold: int, json: bool) -> None:
    from .. import trust
    from ..package import Package

    signers: list[str] = []

    def open_envelope(envelope: bytes) -> bytes:
        if not keys:
            return _unverified(envelope)
        policy = trust.Policy([trust.load_public(key) for key in keys], threshold)
        verified = trust.verify(envelope, policy)
        signers.extend(verified.signers)
        return verified.payload

    try:
        opened = Package.open(file, open_envelope)
    except FormatError as error:
        error.file = error.file or str(file)  # what an envelope holds knows no file
        raise
    with opened as package:
        manifest, size = package.manifest, package.size
        facts = {
            "kind": "update",
            "file": str(file),
            "size": size,
            "verified": bool(signers),
            "signers": signers,
            **describe(manifest),
        }
    lines = update_lines(facts, manifest)
    if not signers:
        lines.append("NOT VERIFIED: give --trust, or use `bsipatch verify`.")
    _output.emit(json, facts, lines)


def _unverified(envelope: bytes) -> bytes:
    """The payload of an envelope, for looking at only; the manifest's own gate still follows."""
    try:
        return base64.b64decode(json_module.loads(envelope)["payload"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptError("not an envelope") from error


def describe(manifest: Manifest) -> dict[str, Any]:
    """A manifest as facts of JSON types; sizes in bytes, times as text in UTC."""
    import msgspec

    return {
        "product": manifest.product,
        "platform": manifest.platform,
        "architectures": list(manifest.architectures),
        "version": manifest.version,
        "letter": manifest.letter,
        "display": manifest.display_version,
        "build": manifest.build,
        "baseline": msgspec.to_builtins(manifest.baseline),
        "stacks_on": msgspec.to_builtins(manifest.stacks_on),
        "result_digest": manifest.result_digest,
        "result_size": sum(entry.size for entry in manifest.new_entries()),
        "required_space": manifest.required_space,
        "activation": msgspec.to_builtins(manifest.activation),
        "security": msgspec.to_builtins(manifest.security),
        "release_notes": manifest.release_notes,
        "created": iso(manifest.created),
        "expires": None if manifest.expires is None else iso(manifest.expires),
        "counts": manifest.count(),
        "payloads": [
            {"path": action.path, "do": action.do, "kind": payload.kind, "size": payload.length}
            for action in manifest.actions
            if action.payload is not None
            for payload in [manifest.payloads[action.payload]]
        ],
    }


def update_lines(facts: dict[str, Any], manifest: Manifest) -> list[str]:
    """The same for people."""
    baseline = manifest.baseline
    scope: str = manifest.activation.scope
    if manifest.activation.processes:
        scope += ": " + ", ".join(manifest.activation.processes)
    rows = [
        ("Update", f"{facts['file']}, {_output.size(facts['size'])}"),
        ("Product", f"{manifest.product} {manifest.display_version}, build {manifest.build}"),
        ("Platform", f"{manifest.platform} ({', '.join(manifest.architectures)})"),
        ("Baseline", f"{baseline.version} {baseline.build or ''} {baseline.digest[:16]}"),
        ("Stacks on", f"({manifest.stacks_on.letter})" if manifest.stacks_on else ""),
        ("Result", f"{_output.size(facts['result_size'])}, {manifest.result_digest[:16]}"),
        ("Changes", ", ".join(f"{count} {do}" for do, count in facts["counts"].items())),
        ("Space", _output.size(manifest.required_space)),
        ("Effective", scope),
        ("Created", moment(manifest.created)),
        ("Expires", "never" if manifest.expires is None else moment(manifest.expires)),
        ("Notes", manifest.release_notes or ""),
        ("Signed by", ", ".join(key[:16] for key in facts.get("signers", []))),
    ]
    lines = _output.columns(rows)
    for item in manifest.security:
        lines.append(f"  {item.component}: {', '.join(item.cves)}")
        lines.append(f"    {item.impact}")
        if item.credit:
            lines.append(f"    Credit: {item.credit}")
    payloads = sorted(facts["payloads"], key=lambda payload: -payload["size"])
    for payload in payloads[:_SHOWN]:
        lines.append(f"  {payload['size']:>12,}  {payload['kind']:<5}  {payload['path']}")
    if len(payloads) > _SHOWN:
        lines.append(f"  and {len(payloads) - _SHOWN} more; --json lists all")
    return lines


def iso(seconds: int) -> str:
    """The same for programs, "2026-03-17T10:00:00Z"."""
    text = moment(seconds)
    return f"{text[:10]}T{text[11:19]}Z" if text.endswith(" UTC") else text


def moment(seconds: int) -> str:
    """Seconds since 1970 as "2026-03-17 10:00:00 UTC"."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"second {seconds}"
