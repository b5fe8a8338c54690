"""Writes the man pages, one for bsipatch and one for each command, from the command line itself.

    python packaging/make_man.py [FOLDER]        FOLDER is "man" when left out

Texts and options are those of --help, so the pages cannot say anything else.  The same sources
give the same pages; SOURCE_DATE_EPOCH dates them.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NAME = "bsipatch"
_SECTION = "1"
_MARKUP = re.compile(r"\[/?(?:bold|italic|dim|green|red|yellow|cyan|blue|magenta)\]")


def main(arguments: list[str]) -> int:
    """Writes every page and says how many."""
    folder = Path(arguments[0] if arguments else "man")
    folder.mkdir(parents=True, exist_ok=True)
    pages = dict(make())
    for stale in folder.glob(f"{NAME}*.{_SECTION}"):
        if stale.name not in pages:
            stale.unlink()
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
    print(f"{len(pages)} man pages in {folder}")
    return 0


def make() -> Iterator[tuple[str, str]]:
    """The name and the text of each page, the main one first."""
    import typer.main

    from bsipatch.cli._app import build_app

    app: Any = typer.main.get_command(build_app())
    commands = list(_below(app, ()))
    yield f"{NAME}.{_SECTION}", _main_page(app, commands)
    for words, command in commands:
        page = "-".join((NAME, *words))
        yield f"{page}.{_SECTION}", _page(words, command)


def _below(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below a group, with the words that call it; groups before what is in them."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        here = (*words, name)
        yield here, command
        if hasattr(command, "commands"):
            yield from _below(command, here)


def _main_page(app: Any, commands: list[tuple[tuple[str, ...], Any]]) -> str:
    summary, _, _ = _parts(app.help)
    lines = [
        *_head(NAME, summary),
        ".SH SYNOPSIS",
        f".B {NAME}",
        r".I COMMAND",
        "[\\fIOPTION\\fR ...]",
    ]
    lines += [".SH DESCRIPTION", *_text(summary)]
    if app.epilog:
        lines += [".PP", *_text(app.epilog)]
    panels: dict[str, list[tuple[tuple[str, ...], Any]]] = {}
    for words, command in commands:
        if len(words) == 1:
            panel = getattr(command, "rich_help_panel", None)
            panels.setdefault(panel if isinstance(panel, str) else "Commands", []).append(
                (words, command)
            )
    lines.append(".SH COMMANDS")
    for panel, members in panels.items():
        lines.append(f".SS {_escape(panel)}")
        for words, command in members:
            page = "-".join((NAME, *words))
            lines += [".TP", f".BR {_escape(page)} ({_SECTION})", *_text(_parts(command.help)[0])]
    lines += [".SH OPTIONS", *_options(app)]
    lines += [".SH ENVIRONMENT"]
    for variable, meaning in _environment(commands):
        lines += [".TP", f".B {_escape(variable)}", *_text(meaning)]
    lines += [
        ".SH EXIT STATUS",
        *_text("0 is success; every error has a code of its own that never changes meaning."),
        ".B bsipatch exit\\-codes",
        "prints them all.",
    ]
    return "\n".join(lines) + "\n"


def _page(words: tuple[str, ...], command: Any) -> str:
    summary, description, examples = _parts(command.help)
    page = "-".join((NAME, *words))
    lines = _head(page, summary)
    lines += [".SH SYNOPSIS", f".B {_escape(' '.join((NAME, *words)))}", *_synopsis(command)]
    lines += [".SH DESCRIPTION", *_text(summary)]
    for paragraph in description:
        lines += [".PP", *_text(paragraph)]
    members = getattr(command, "commands", None)
    if members:
        lines.append(".SH COMMANDS")
        for name, member in members.items():
            lines += [".TP", f".BR {_escape(f'{page}-{name}')} ({_SECTION})"]
            lines += _text(_parts(member.help)[0])
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    if any(getattr(one, "help", None) for one in arguments):
        lines.append(".SH ARGUMENTS")
        for one in arguments:
            lines += [".TP", f".I {_escape(_metavar(one))}", *_text(one.help or "")]
    lines += [".SH OPTIONS", *_options(command)]
    if examples:
        lines.append(".SH EXAMPLES")
        for example in examples:
            lines += [".PP", ".nf", ".RS 4", _escape(example), ".RE", ".fi"]
    lines += [".SH SEE ALSO", *_see_also(words)]
    return "\n".join(lines) + "\n"


def _head(page: str, summary: str) -> list[str]:
    from bsipatch import __version__

    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    date = datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%d") if epoch else ""
    title = f'.TH "{_escape(page.upper())}" "{_SECTION}" "{date}" "{NAME} {__version__}"'
    return [
        '.\\" Written by packaging/make_man.py from the command line itself.',
        f'{title} "{NAME} Manual"',
        ".nh",
        ".ad l",
        ".SH NAME",
        f"{_escape(page)} \\- {_escape(summary.rstrip('.'))}",
    ]


def _see_also(words: tuple[str, ...]) -> list[str]:
    above = [NAME] if len(words) == 1 else [NAME, "-".join((NAME, *words[:-1]))]
    return [f".BR {_escape(page)} ({_SECTION}){',' if page != above[-1] else ''}" for page in above]


def _synopsis(command: Any) -> Iterator[str]:
    """Required options and arguments by name; the rest as OPTION."""
    if hasattr(command, "commands"):
        yield r"\fICOMMAND\fR [\fIOPTION\fR ...]"
        return
    for one in command.params:
        if one.param_type_name == "argument":
            name = f"\\fI{_escape(_metavar(one))}\\fR"
            yield name if one.required else f"[{name}]"
        elif one.required:
            yield f"\\fB{_escape(one.opts[0])}\\fR \\fI{_escape(_metavar(one))}\\fR"
    yield r"[\fIOPTION\fR ...]"


def _options(command: Any) -> Iterator[str]:
    shown = [
        one
        for one in command.params
        if one.param_type_name == "option" and not getattr(one, "hidden", False)
    ]
    for one in shown:
        names = [*sorted(one.opts, key=len), *one.secondary_opts]
        tag = ", ".join(f"\\fB{_escape(name)}\\fR" for name in names)
        if not one.is_flag and not getattr(one, "count", False):
            tag += f" \\fI{_escape(_metavar(one))}\\fR"
        lines = list(_text(one.help or ""))
        choices = getattr(one.type, "choices", None)
        if choices:
            words = ", ".join(str(getattr(choice, "value", choice)) for choice in choices)
            lines += _text(f"One of: {words}.")
        default = one.default
        simple = isinstance(default, str | int | float) and not isinstance(default, bool)
        if simple and not one.required:
            lines += _text(f"Default: {getattr(default, 'value', default)}.")
        if one.envvar:
            lines += _text(f"Environment: {one.envvar}.")
        yield from (".TP", tag, *lines)
    yield from (".TP", r"\fB\-h\fR, \fB\-\-help\fR", "Show help and end.")


def _environment(commands: Iterable[tuple[tuple[str, ...], Any]]) -> list[tuple[str, str]]:
    """Variables that stand for options, and those that the program itself looks at."""
    found = {
        "BSIPATCH_CONFIG": "The config file, instead of the platform's own place.",
        "BSIPATCH_TRACEBACK": "Set it to see where an internal error happened.",
    }
    for _, command in commands:
        for one in command.params:
            if isinstance(getattr(one, "envvar", None), str):
                found.setdefault(one.envvar, f"Stands for {max(one.opts, key=len)}.")
    return sorted(found.items())


def _metavar(one: Any) -> str:
    """What stands for an option's or argument's value."""
    if one.metavar:
        return str(one.metavar)
    if one.param_type_name == "argument":
        return str(one.name).upper()
    choices = getattr(one.type, "choices", None)
    name = str(getattr(one.type, "name", "value")).removesuffix(" range")
    kinds = {"float": "NUMBER", "integer": "NUMBER", "int": "NUMBER", "path": "FILE"}
    return "CHOICE" if choices else kinds.get(name, name.upper())


def _parts(help_text: str | None) -> tuple[str, list[str], list[str]]:
    """The summary, the paragraphs after it, and the examples of a help text."""
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", (help_text or "").strip())]
    paragraphs = [_MARKUP.sub("", part).replace("\f", "").replace("\b", "") for part in paragraphs]
    summary = " ".join(paragraphs[0].split()) if paragraphs else ""
    description: list[str] = []
    examples: list[str] = []
    among_examples = False
    for part in paragraphs[1:]:
        flat = " ".join(part.split())
        if re.fullmatch(r"Examples?:", flat):
            among_examples = True
        elif among_examples:
            examples.append(flat)
        elif flat:
            description.append(flat)
    return summary, description, examples


def _text(words: str) -> list[str]:
    """Prose as one input line; "" gives none."""
    plain = " ".join(_MARKUP.sub("", words).split())
    return [_escape(plain)] if plain else []


def _escape(words: str) -> str:
    """Text that roff takes as it is: no requests, no escapes, real hyphens and quotes."""
    safe = words.replace("\\", "\\(rs").replace("-", "\\-").replace("^", "\\(ha")
    safe = safe.replace("`", "\\(ga").replace("~", "\\(ti").replace("'", "\\(aq")
    safe = safe.replace('"', "\\(dq")
    return f"\\&{safe}" if safe.startswith((".", "'")) else safe


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
