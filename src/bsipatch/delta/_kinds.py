"""The kinds of references in words: the one table of them (numbers as in docs/format.md)."""

from __future__ import annotations

NO_REFERENCE = 0

KINDS: dict[int, str] = {
    NO_REFERENCE: "no reference",
    1: "arm64 branch",
    2: "arm64 conditional branch",
    3: "arm64 test-bit branch",
    4: "arm64 literal load",
    5: "ADR address",
    6: "ADRP page",
    7: "ADD after ADRP",
    8: "load or store after ADRP",
    16: "x86-64 call or jump",
    17: "x86-64 short jump",
    18: "x86-64 RIP-relative operand",
    32: "64-bit address",
    33: "32-bit address",
    34: "self-relative offset",
    35: "offset from a base",
    36: "arm64 jump table, 16 bits",
    37: "arm64 jump table, 8 bits",
    38: "compact unwind entry",
    40: "frame record to its CIE",
    41: "ELF symbol table row",
    42: "Mach-O symbol table row",
    43: "place in the file",
    44: "64-bit length",
    48: "chained pointer",
    49: "chained offset",
    50: "arm64e chained pointer",
    51: "arm64e signed pointer",
    52: "chained bind",
    53: "arm64e chained offset",
    54: "bind's row of the imports",
    55: "arm64e bind's row of the imports",
    56: "import's name",
    57: "offset in a ULEB of 1 byte",
    58: "offset in a ULEB of 2 bytes",
    59: "offset in a ULEB of 3 bytes",
    60: "offset in a ULEB of 4 bytes",
}


def kind_name(kind: int) -> str:
    """A kind in words; "kind N" for one that this table does not know."""
    return KINDS.get(kind, f"kind {kind}")
