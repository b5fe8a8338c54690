"""References as the core reads, writes and finds them, and code to find them in."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.support import native

CDEF = """
typedef struct { uint64_t budget, in_use, peak, requests, fail_at; } bspi_heap;
typedef struct { uint64_t off, target, base; uint8_t kind, size; } bspi_ref;
typedef struct {
    bspi_heap *heap; bspi_ref *items; size_t count, capacity; bool failed;
} bspi_ref_list;
void bspi_heap_init(bspi_heap *heap, uint64_t budget);
unsigned bspi_ref_size(uint8_t kind);
bool bspi_ref_read(uint8_t kind, const uint8_t *bytes, uint64_t site, uint64_t base,
                   uint64_t *target);
bool bspi_ref_write(uint8_t kind, uint8_t *bytes, uint64_t site, uint64_t base, uint64_t target);
void bspi_ref_label(uint8_t kind, uint8_t *bytes, uint64_t label);
void bspi_ref_push(bspi_ref_list *list, bspi_ref ref);
void bspi_ref_list_free(bspi_ref_list *list);
void bspi_arm64_refs(const uint8_t *code, uint64_t code_len, uint64_t begin, uint64_t end,
                     uint64_t addr, uint64_t file_off, bspi_ref_list *refs);
void bspi_x86_64_refs(const uint8_t *code, uint64_t code_len, uint64_t begin, uint64_t end,
                      uint64_t addr, uint64_t file_off, bspi_ref_list *refs);
"""

B26, B19, B14, LIT19, ADR, ADRP, ADD12, LDST12 = range(1, 9)
REL32, REL8, RIP32 = 16, 17, 18
ABS64, ABS32, PC32, BASE32, BASE16X4, BASE8X4, BASE24, BACK32 = 32, 33, 34, 35, 36, 37, 38, 40
INDEX24, INDEX16, FILE32, BASE64 = 41, 42, 43, 44
CHAIN64, CHAIN64_OFFSET, CHAIN_ARM64E, CHAIN_ARM64E_AUTH, CHAIN_BIND = 48, 49, 50, 51, 52
CHAIN_ARM64E_OFFSET = 53
CHAIN_BIND24, CHAIN_BIND16, IMPORT23 = 54, 55, 56
ULEB1, ULEB2, ULEB3, ULEB4 = 57, 58, 59, 60
PAGE = 0xFFF


@dataclass(frozen=True)
class Ref:
    """A reference as found: `off` in bytes from the start of the code."""

    off: int
    kind: int
    target: int
    base: int
    size: int


@lru_cache(maxsize=1)
def core() -> tuple[Any, Any]:
    """The FFI and the library."""
    return native.load(CDEF)


def read(kind: int, field: bytes, site: int = 0, base: int = 0) -> int | None:
    """The address a field names, None when it is no such field."""
    ffi, lib = core()
    target = ffi.new("uint64_t *")
    return int(target[0]) if lib.bspi_ref_read(kind, field, site, base, target) else None


def write(kind: int, field: bytes, site: int, base: int, target: int) -> bytes | None:
    """The field with another target, None when that does not fit."""
    ffi, lib = core()
    buffer = ffi.new("uint8_t[]", field)
    done = lib.bspi_ref_write(kind, buffer, site, base, target)
    after = bytes(ffi.buffer(buffer, len(field)))
    assert done or after == field
    return after if done else None


def label(kind: int, field: bytes, value: int) -> bytes:
    """The field with a label in place of the address."""
    ffi, lib = core()
    buffer = ffi.new("uint8_t[]", field)
    lib.bspi_ref_label(kind, buffer, value)
    return bytes(ffi.buffer(buffer, len(field)))


def find(
    arch: str, code: bytes, addr: int = 0, begin: int = 0, end: int | None = None, file_off: int = 0
) -> list[Ref]:
    """What bspi_<arch>_refs finds in code[begin:end], which stands at `addr`."""
    ffi, lib = core()
    heap = ffi.new("bspi_heap *")
    lib.bspi_heap_init(heap, 0)
    refs = ffi.new("bspi_ref_list *", {"heap": heap})
    # A buffer of exactly this size, so that a sanitizer sees reads outside it.
    exact = ffi.new("uint8_t[]", len(code)) if code else ffi.NULL
    if code:
        ffi.memmove(exact, code, len(code))
    stop = len(code) if end is None else end
    getattr(lib, f"bspi_{arch}_refs")(exact, len(code), begin, stop, addr, file_off, refs)
    assert not refs.failed
    found = [
        Ref(int(r.off) - file_off, int(r.kind), int(r.target), int(r.base), int(r.size))
        for r in (refs.items[i] for i in range(refs.count))
    ]
    lib.bspi_ref_list_free(refs)
    assert heap.in_use == 0
    return found


def find_in_pieces(arch: str, code: bytes, step: int, addr: int = 0) -> list[Ref]:
    """The same, one piece of `step` bytes after the other."""
    return [
        ref
        for begin in range(0, len(code), step)
        for ref in find(arch, code, addr, begin, min(begin + step, len(code)))
    ]


PROGRAM = r"""
typedef unsigned long size_t; /* no headers: not every target has them at hand */
void *malloc(size_t size);
void exit(int code);
int printf(const char *format, ...);
int puts(const char *line);
double sin(double x);
size_t strlen(const char *text);
void qsort(void *items, size_t count, size_t size, int (*compare)(const void *, const void *));

static int counters[64];
static const char *names[] = {"zero", "one", "two", "three", "four", "five", "six"};
static double weights[256];
struct node { struct node *next; const char *name; long value; };
static struct node *heads[16];

static const char *classify(int kind) {
    switch (kind) {
    case 0: return "a"; case 1: return "bc"; case 2: return "def"; case 3: return names[3];
    case 4: return "ghij"; case 5: return "klmno"; case 6: return names[6]; case 7: return "p";
    default: return "none";
    }
}
double mean(const double *values, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) { sum += values[i] * weights[i & 255]; counters[i & 63]++; }
    return count ? sum / (double)count : 0.5;
}
static void insert(const char *name, long value) {
    struct node *n = malloc(sizeof *n);
    if (!n) { puts("no memory"); exit(3); }
    unsigned h = 5381;
    for (const char *p = name; *p; p++) h = h * 33 + (unsigned char)*p;
    n->next = heads[h & 15]; n->name = name; n->value = value; heads[h & 15] = n;
}
static long total(void) {
    long sum = 0;
    for (int i = 0; i < 16; i++) for (struct node *n = heads[i]; n; n = n->next) sum += n->value;
    return sum;
}
static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}
int main(int argc, char **argv) {
    double values[100];
    for (int i = 0; i < 100; i++) values[i] = sin(i * 0.25) + (double)argc;
    qsort(values, 100, sizeof *values, compare);
    for (int i = 0; i < argc; i++) insert(argv[i], (long)strlen(argv[i]) * 3 + counters[i & 63]);
    for (int i = 0; i < 9; i++) printf("%s %s %f\n", classify(i), names[i % 7], mean(values, 100));
    printf("%ld\n", total());
    return (int)(total() & 1);
}
"""


@lru_cache(maxsize=4)
def compiled(triple: str, folder: Path) -> bytes:
    """PROGRAM as a shared library for `triple`; needs the ziglang package.

    Raises:
        subprocess.CalledProcessError: the compiler refused.
    """
    source = folder / "program.c"
    source.write_text(PROGRAM)
    output = folder / f"{triple}.out"
    libraries = [] if "macos" in triple else ["-nostdlib"]
    subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", "-target", triple, "-O2", "-fno-sanitize=undefined",
         "-shared", "-fPIC", *libraries, "-o", str(output), str(source)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return output.read_bytes()


def cross_check_reason() -> str | None:
    """Why the check against another disassembler cannot run, None when it can."""
    if "asan" in os.environ.get("LD_PRELOAD", ""):
        return "capstone cannot be loaded under the address sanitizer"
    lacking = [name for name in ("ziglang", "capstone") if not importlib.util.find_spec(name)]
    return f"needs {' and '.join(lacking)}" if lacking else None
