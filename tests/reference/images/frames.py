"""Call frame records: .eh_frame, its header, and language-specific areas."""

from __future__ import annotations

from dataclasses import dataclass

from tests.reference.images import kinds
from tests.reference.images.kinds import MASK64, sext
from tests.reference.images.model import OTHER, Image, Section, within

WIDTHS = {2: 2, 10: 2, 3: 4, 11: 4, 0: 8, 4: 8, 12: 8}
OMIT, PCREL = 0xFF, 1


class Fail(Exception):
    """A read beyond the end that it is bounded by."""


def width_of(encoding: int) -> int:
    return 0 if encoding == OMIT else WIDTHS.get(encoding & 15, 0)


class Place:
    """A reading position in a table: `begin` and `size` bytes of a file, mapped at `addr`."""

    def __init__(self, image: Image, begin: int, size: int, addr: int) -> None:
        self.image = image
        self.begin, self.size, self.addr = begin, size, addr
        self.data = image.file.data[begin : begin + size]
        self.at = 0
        self.limit = size

    def u32(self, at: int) -> int:
        return int.from_bytes(self.data[at : at + 4], "little")

    def skip(self, length: int) -> None:
        if length > self.limit - self.at:
            raise Fail
        self.at += length

    def byte(self) -> int:
        self.skip(1)
        return self.data[self.at - 1]

    def _leb(self) -> tuple[int, int]:
        value = groups = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << 7 * groups
            groups += 1
            if byte < 0x80:
                return value & MASK64, groups

    def uleb(self) -> int:
        return self._leb()[0]

    def sleb(self) -> int:
        """A signed number."""
        value, groups = self._leb()
        value = sext(value, min(7 * groups, 64))
        return value - (1 << 64) if value >> 63 else value

    def number(self, at: int, encoding: int) -> int:
        width = width_of(encoding)
        value = int.from_bytes(self.data[at : at + width], "little")
        return sext(value, 8 * width) if encoding & 8 and width < 8 else value

    def target(self, at: int, encoding: int) -> int | None:
        """What a pointer at `at` names."""
        width, way = width_of(encoding), encoding >> 4 & 7
        if not width or not within(at, width, self.size) or way > PCREL:
            return None
        number = self.number(at, encoding)
        if number == 0:
            return None
        return number if way != PCREL else self.addr + at + number & MASK64

    def add(self, at: int, encoding: int) -> None:
        """Adds the pointer at `at`, if it is one that can be kept up."""
        width = width_of(encoding)
        if width not in (4, 8) or self.target(at, encoding) is None:
            return
        if encoding >> 4 & 7 != PCREL:
            self.image.add(self.begin + at, kinds.ABS32 if width == 4 else kinds.ABS64)
            return
        number = self.number(at, encoding)
        if width == 4 or number == sext(number, 32):
            self.image.add(self.begin + at, kinds.PC32)


@dataclass
class Cie:
    """A common record that can be understood."""

    code: int = 0
    lsda: int = OMIT
    augmented: bool = False


class Frames:
    """The walk through a section of frame records."""

    def __init__(self, image: Image, begin: int, size: int, addr: int) -> None:
        self.image = image
        self.place = Place(image, begin, size, addr)
        self.current_at: int | None = None
        self.current: Cie | None = None
        self.home: Section | None = None
        self.starts: set[int] = set()

    def record(self, at: int) -> tuple[int, int, int] | None:
        """(head, pointer, end) of the record at `at`."""
        place = self.place
        left = place.size - at
        if left < 8:
            return None
        length, head = place.u32(at), 4
        if length == 0xFFFFFFFF:
            if left < 12:
                return None
            length, head = int.from_bytes(place.data[at + 4 : at + 12], "little"), 12
        if length < 4 or not within(at + head, length, place.size):
            return None
        return head, at + head, at + head + length

    def walk(self) -> None:
        at = 0
        while (record := self.record(at)) is not None:
            head, pointer, end = record
            if head == 4:
                if self.place.u32(pointer) == 0:
                    self.current_at, self.current = at, self.parse_cie(at, pointer, end, True)
                else:
                    self.fde(pointer, end)
            at = end
        self.areas()

    def parse_cie(self, start: int, pointer: int, end: int, walking: bool) -> Cie | None:
        place = self.place
        place.at, place.limit = pointer + 4, min(end, start + 256)
        cie = Cie()
        try:
            version = place.byte()
            letters = bytearray()
            while letter := place.byte():
                letters.append(letter)
            place.uleb()
            place.sleb()
            if version == 1:
                place.byte()
            else:
                place.uleb()
            if version not in (1, 3):
                return None
            if letters[:1] == b"z":
                cie.augmented = True
                place.uleb()
                del letters[0]
            for name in letters.decode("latin-1"):
                if name == "R":
                    cie.code = place.byte()
                elif name == "L":
                    cie.lsda = place.byte()
                elif name == "P":
                    encoding = place.byte()
                    at = place.at
                    if width_of(encoding):
                        place.skip(width_of(encoding))
                    else:
                        place.uleb()
                    if walking:
                        place.add(at, encoding)
                elif name not in "SBG":
                    return None
        except Fail:
            return None
        return cie

    def fde(self, pointer: int, end: int) -> None:
        place = self.place
        back = place.u32(pointer)
        if back > pointer:
            return
        common = pointer - back
        if self.current_at != common:
            self.current_at, self.current = common, None
            record = self.record(common)
            if record is not None and place.u32(record[1]) == 0:
                self.current = self.parse_cie(common, record[1], record[2], False)
        self.image.add(place.begin + pointer, kinds.BACK32)
        cie, at = self.current, pointer + 4
        width = width_of(cie.code) if cie is not None else 0
        if cie is None or not width or not within(at, 2 * width, end):
            return
        place.add(at, cie.code)
        if not cie.augmented or cie.lsda == OMIT:
            return
        place.at, place.limit = at + 2 * width, end
        try:
            length = place.uleb()
        except Fail:
            return
        if length > end - place.at or length < width_of(cie.lsda):
            return
        target = place.target(place.at, cie.lsda)
        if target is not None:
            place.add(place.at, cie.lsda)
            self.note(target)

    def note(self, start: int) -> None:
        """Notes the start of a language-specific area."""
        if self.home is None:
            home = self.image.section_with(start)
            sound = home is not None and home.role == OTHER and home.file_size > 0
            if home is None or not sound or home.file_size // 16 > self.place.size:
                return
            self.home = home
        if self.home.addr <= start < self.home.addr + self.home.file_size:
            self.starts.add(start - self.home.addr)

    def areas(self) -> None:
        home = self.home
        if home is None:
            return
        place = Place(self.image, home.file_off, home.file_size, home.addr)
        ascending = sorted(self.starts)
        for start, limit in zip(ascending, [*ascending[1:], home.file_size], strict=True):
            place.at, place.limit = start, limit
            read_area(place)


def read_area(place: Place) -> None:
    """Adds the types of one area."""
    limit = place.limit
    try:
        start_encoding = place.byte()
        if start_encoding != OMIT:
            width = width_of(start_encoding)
            if width:
                place.skip(width)
            else:
                place.uleb()
        encoding = place.byte()
        if encoding == OMIT:
            return
        types_len = place.uleb()
        types_end = place.at + types_len
        place.byte()
        sites_len = place.uleb()
        width = width_of(encoding)
        if types_len > limit or types_end > limit or width == 0:
            return
        place.skip(sites_len)
    except Fail:
        return
    types = 0
    while True:
        try:
            kind = place.sleb()
            place.sleb()
        except Fail:
            break
        room = (types_end - place.at) // width if place.at < types_end else 0
        if types_end < place.at or types > room:
            break
        if kind > types:
            if kind > room:
                break
            types = kind
    for i in range(1, types + 1):
        place.add(types_end - i * width, encoding)


def read_header(image: Image, begin: int, size: int, addr: int) -> None:
    """Adds what .eh_frame_hdr names."""
    place = Place(image, begin, size, addr)
    if size < 12 or place.data[:2] != b"\x01\x1b":
        return
    place.add(4, 0x1B)
    if place.data[2:4] == b"\x03\x3b":
        base = image.register(addr)
        for i in range(2 * min(place.u32(8), (size - 12) // 8)):
            image.add(begin + 12 + 4 * i, kinds.BASE32, base)
