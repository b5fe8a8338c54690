"""A C program of some thousand lines, the same each time, and libraries compiled from it.

It needs neither headers nor a C library, so any target builds in seconds.  The fixed program
differs in one line, which makes one function longer and moves everything behind it.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

TARGETS = ("aarch64-macos", "x86_64-macos", "aarch64-linux", "x86_64-linux")
FUNCTIONS = 300
FIXED = 97  # the number of the function that is fixed

HEAD = """\
typedef struct node { struct node *next; const char *name; long value; int kind; } node;
typedef long (*handler)(node *n, long a, long b);
extern const handler handlers[];
static long counters[512];
static node *heads[64];
static double weights[256];
static volatile long trace;
"""


def source(fixed: bool, functions: int = FUNCTIONS) -> str:
    """The program, or the program with its fix."""
    parts = [HEAD]
    for number in range(functions):
        parts.append(_function(number, fixed and number == min(FIXED, functions // 3)))
    names = ",\n".join(f"    work_{number}" for number in range(functions))
    parts.append(f"const handler handlers[] = {{\n{names}\n}};\n")
    return "\n".join(parts)


def _function(number: int, fixed: bool) -> str:
    rng = random.Random(number)
    lines = [
        f"__attribute__((noinline)) long work_{number}(node *n, long a, long b) {{",
        f"    long sum = a * {rng.randrange(3, 90)} + {rng.randrange(1 << 20)};",
    ]
    if fixed:
        lines.append(f"    if (n == 0 || b < 0) {{ trace = {number}; return -b; }}")
    for _ in range(rng.randrange(2, 6)):
        lines += _statement(rng, number)
    lines += ["    return sum;", "}", ""]
    return "\n".join(lines)


def _statement(rng: random.Random, number: int) -> list[str]:
    slot, small, large = rng.randrange(512), rng.randrange(2, 40), rng.randrange(1 << 16)
    callee = rng.randrange(max(number, 1))
    choice = rng.randrange(6)
    if choice == 0:
        words = [f"{rng.choice('abcdef')}{rng.randrange(900)}" for _ in range(rng.randrange(5, 12))]
        cases = [f'    case {i}: n->name = "{word}"; break;' for i, word in enumerate(words)]
        return ["    switch (n->kind) {", *cases, f"    default: sum ^= {large};", "    }"]
    if choice == 1:
        return [
            f"    for (node *at = heads[(sum + {small}) & 63]; at; at = at->next)",
            f"        if (at->kind == {small}) sum += at->value;",
        ]
    if choice == 2:
        return [
            f"    counters[{slot}] += sum >> {small % 7};",
            f"    if (counters[{slot}] > {large}) trace = counters[{(slot * 7) % 512}];",
        ]
    if choice == 3 and number:
        return [f"    sum += work_{callee}(n->next ? n->next : n, sum & {large}, b + {small});"]
    if choice == 4:
        return [
            f"    for (long i = 0; i < (b & {small}); i++)",
            f"        weights[i & 255] = weights[(i + {small}) & 255] * {small}.5 + (double)sum;",
        ]
    return [
        f"    if (sum & {1 << small % 12})",
        f"        sum = handlers[{rng.randrange(FUNCTIONS // 4)}](n, sum - {large}, {small});",
    ]


def build(target: str, text: str, folder: Path, *options: str) -> bytes:
    """A shared library of a program, without debug information; needs the ziglang package.

    With "-no-pie" among the options an executable at fixed addresses instead.

    Raises:
        subprocess.CalledProcessError: the compiler refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "program.c").write_text(text)
    form = ["-fno-pic"] if "-no-pie" in options else ["-shared", "-fPIC"]
    command = ["cc", "-target", target, *form, "-O2", "-g0", "-fno-sanitize=undefined"]
    if "linux" in target:
        command.append("-nostdlib")
    _zig(folder, [*command, "-o", "program.out", *options, "program.c"])
    return (folder / "program.out").read_bytes()


def link_packed(target: str, text: str, folder: Path) -> bytes:
    """The same as an ELF library whose relative relocations are packed (RELR).

    The compiler's own driver does not know that option of its linker.

    Raises:
        subprocess.CalledProcessError: the compiler or linker refused.
    """
    build(target, text, folder, "-c")
    (folder / "program.out").rename(folder / "program.o")
    options = ["-shared", "-Bsymbolic", "--pack-dyn-relocs=relr", "-o", "program.out"]
    _zig(folder, ["ld.lld", *options, "program.o"])
    return (folder / "program.out").read_bytes()


def _zig(folder: Path, arguments: list[str]) -> None:
    env = dict(os.environ)
    env.pop("LD_PRELOAD", None)  # a sanitizer for us is none for the compiler
    command = [sys.executable, "-m", "ziglang", *arguments]
    subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)


def function_size(data: bytes, name: str) -> int:
    """Bytes of a function, by a library's symbols; KeyError when there is none."""
    return _elf_sizes(data)[name] if data[:4] == b"\x7fELF" else _macho_sizes(data)["_" + name]


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def _elf_sizes(data: bytes) -> dict[str, int]:
    (table,), (count,) = struct.unpack_from("<Q", data, 40), struct.unpack_from("<H", data, 60)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, table + 64 * i) for i in range(count)]
    sizes = {}
    for _, type_, _, _, off, size, link, *_ in headers:
        if type_ in (2, 11):
            for at in range(off, off + size, 24):
                symbol, _, _, _, _, length = struct.unpack_from("<IBBHQQ", data, at)
                sizes[_text(data, headers[link][4] + symbol)] = length
    return sizes


def _macho_sizes(data: bytes) -> dict[str, int]:
    count, at = struct.unpack_from("<I", data, 16)[0], 32
    for _ in range(count):
        command, size = struct.unpack_from("<II", data, at)
        if command == 2:
            symbols, entries, strings, _ = struct.unpack_from("<4I", data, at + 8)
            rows = [struct.unpack_from("<IBBHQ", data, symbols + 16 * i) for i in range(entries)]
            found = sorted((addr, _text(data, strings + name)) for name, _, s, _, addr in rows if s)
            return {name: after - addr for (addr, name), (after, _) in pairwise(found)}
        at += size
    return {}
