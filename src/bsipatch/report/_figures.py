"""The figures that every view of an explanation shows, computed once."""

from __future__ import annotations

from dataclasses import dataclass, field

from bsipatch.delta import ExplainedRow, Explanation

#: the order in which streams are shown
STREAMS = ("cover", "overrides", "references", "bytes", "literals", "layout")
#: what of a patch is in no section
FRAME = "layout and header"
HEADER = "header"


@dataclass(slots=True)
class Line:
    """Figures of some rows together. Sizes in bytes."""

    name: str
    detail: str = ""
    size: int = 0
    references: int = 0
    moved: int = 0
    right: int = 0
    overridden: int = 0
    fixed: int = 0
    corrected: int = 0
    byte_corrections: int = 0
    byte_runs: int = 0
    literal_bytes: int = 0
    cover_entries: int = 0
    covered_bytes: int = 0
    filled_bytes: int = 0
    streams: dict[str, int] = field(default_factory=dict)

    @property
    def patch_bytes(self) -> int:
        return sum(self.streams.values())

    def add(self, row: ExplainedRow) -> None:
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(row, name))
        for name, share in row.patch_bytes.items():
            self.streams[name] = self.streams.get(name, 0) + share


_COUNTS = (
    "references",
    "moved",
    "right",
    "overridden",
    "fixed",
    "corrected",
    "byte_corrections",
    "byte_runs",
    "literal_bytes",
    "cover_entries",
    "covered_bytes",
    "filled_bytes",
)


def total(told: Explanation) -> Line:
    """All rows, and what is in none: the patch's own size."""
    line = Line("whole patch", size=told.new_size)
    for row in told.rows:
        line.add(row)
    for name, share in frame(told).streams.items():
        line.streams[name] = line.streams.get(name, 0) + share
    return line


def frame(told: Explanation) -> Line:
    """What of the patch is in no section."""
    line = Line(FRAME)
    line.streams = {stream.name: stream.frame_bytes for stream in told.streams}
    line.streams[HEADER] = told.header_bytes
    return line


def section_names(told: Explanation) -> list[str]:
    """What to call each section; with its architecture where a file has several images."""
    images = {s.image: s.architecture or s.format for s in told.sections if s.image is not None}
    known = list(images.values())
    prefixes: dict[int | None, str] = {None: ""}
    for image, architecture in images.items():
        number = f" #{image}" if known.count(architecture) > 1 else ""
        prefixes[image] = f"{architecture}{number} " if len(images) > 1 else ""
    return [prefixes[section.image] + section.name for section in told.sections]


def by_section(told: Explanation) -> list[Line]:
    """One line for each section that the patch says anything about, the dearest first."""
    lines = [
        Line(name, section.role, size=section.size)
        for name, section in zip(section_names(told), told.sections, strict=True)
    ]
    for row in told.rows:
        lines[row.section].add(row)
    return _dearest(lines)


def by_kind(told: Explanation) -> list[Line]:
    """One line for each kind of reference, the dearest first."""
    lines: dict[int, Line] = {}
    for row in told.rows:
        lines.setdefault(row.kind, Line(row.kind_name)).add(row)
    return _dearest(list(lines.values()))


def by_row(told: Explanation) -> list[Line]:
    """One line for each kind in each section, the dearest first."""
    names = section_names(told)
    lines = []
    for row in told.rows:
        line = Line(names[row.section], row.kind_name)
        line.add(row)
        lines.append(line)
    return _dearest(lines)


def _dearest(lines: list[Line]) -> list[Line]:
    spent = [line for line in lines if line.patch_bytes or line.references]
    return sorted(spent, key=lambda line: (-line.patch_bytes, -line.references, line.name))


def rest(lines: list[Line], name: str) -> Line:
    """Several lines as one."""
    line = Line(name)
    for other in lines:
        line.size += other.size
        for count in _COUNTS:
            setattr(line, count, getattr(line, count) + getattr(other, count))
        for stream, share in other.streams.items():
            line.streams[stream] = line.streams.get(stream, 0) + share
    return line
