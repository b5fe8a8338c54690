"""`bsipatch build`: a signed update from two trees."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _output, _passphrase, _signals
from ._options import Jobs, Json, Memory, Profile, ProfileOption

_SHOWN = 10


def command(
    base: Annotated[
        Path, typer.Option("--base", metavar="TREE", help="The tree that devices have.")
    ],
    new: Annotated[
        Path, typer.Option("--new", metavar="TREE", help="The tree that they shall get.")
    ],
    release: Annotated[
        Path, typer.Option("--release", metavar="TOML", help="product, version, letter, build.")
    ],
    key: Annotated[
        list[Path],
        typer.Option("--key", "-k", metavar="KEY", help="A private key; repeat for several."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="UPDATE", help="Where to write the update.")
    ],
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline",
            metavar="TREE",
            help="The true baseline, when --base holds an improvement to stack on.",
        ),
    ] = None,
    passphrase_file: _passphrase.File = None,
    profile: ProfileOption = Profile.max,
    jobs: Jobs = None,
    memory: Memory = None,
    json: Json = False,
) -> None:
    """Build and sign the update that turns one tree into another.

    release.toml needs product, version, letter and build; all else is measured
    or has a default. What is written has been read back and verified.

    Examples:

      bsipatch build --base 26.3.1 --new 26.3.1a --release release.toml --key keys/private.pem
      -o update.bsi

      bsipatch build --base old --new new --release release.toml -k a.pem -k b.pem -o update.bsi
    """
    from ..publish import build, load_release

    loaded = load_release(release)
    signers = [_passphrase.load(path, passphrase_file) for path in key]
    with _output.progress(json) as bar, _signals.working() as stop:
        report = build(
            base,
            new,
            loaded,
            signers,
            out,
            baseline=baseline,
            profile=profile.value,
            jobs=jobs,
            memory=memory or 0,
            progress=_signals.stopping(bar, stop),
        )
    from .inspect import describe

    manifest = report.manifest
    facts = {
        "update": str(out),
        "size": report.size,
        "manifest_size": report.manifest_size,
        "old_size": report.old_size,
        "new_size": report.new_size,
        "old_digest": report.old_digest,
        "new_digest": report.new_digest,
        "key_ids": list(report.key_ids),
        "seconds": {name: round(value, 3) for name, value in report.seconds.items()},
        "warnings": list(report.warnings),
        "short_of_memory": {made.paths[0]: made.way for made in report.files if made.way},
        **describe(manifest),
    }
    rows = [
        ("Update", f"{out}, {_output.size(report.size)}"),
        ("For", f"{manifest.product} {manifest.display_version}, build {manifest.build}"),
        ("Ratio", _output.ratio(report.size, report.new_size)),
        ("Changes", ", ".join(f"{count} {do}" for do, count in report.counts.items())),
        ("Time", _output.seconds(report.seconds["total"])),
        ("Signed by", ", ".join(key_id[:16] for key_id in report.key_ids)),
    ]
    lines = _output.columns(rows)
    for made in report.files[:_SHOWN]:
        lines.append(
            f"  {made.payload_size:>12,} of {made.new_size:>14,}  {made.kind:<5}  {made.paths[0]}"
        )
    if len(report.files) > _SHOWN:
        lines.append(f"  and {len(report.files) - _SHOWN} more; --json lists all")
    short = [made for made in report.files if made.way]
    if short:
        lines.append(
            f"note: for want of memory {len(short)} of {len(report.files)} payloads were made "
            f"with less effort, such as {short[0].paths[0]} ({short[0].way})"
        )
    lines += [f"warning: {text}" for text in report.warnings]
    _output.emit(json, facts, lines)
