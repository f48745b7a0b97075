"""Where fields are in the running kernel's structures, as its own type information (BTF) tells.

    header | types, numbered from 1 in their order | strings

Documentation/bpf/btf.rst of the kernel's source has the format.
"""

import functools
import struct
from pathlib import Path

from layer45.rules.errors import RulesError

KERNEL = Path("/sys/kernel/btf/vmlinux")
MAGIC = 0xEB9F
STRUCT, UNION, LAST_KIND = 4, 5, 19
# Bytes behind the 12 of each type: by its kind, and for each member or value.
FIXED = {1: 4, 3: 12, 14: 4, 17: 4}
EACH = {STRUCT: 12, UNION: 12, 6: 8, 13: 8, 15: 12, 19: 12}

# What the tagger follows from a thread to its program.
FIELDS = (
    ("task_struct", "group_leader"),
    ("task_struct", "comm"),
    ("task_struct", "mm"),
    ("mm_struct", "exe_file"),
    ("file", "f_inode"),
    ("inode", "i_ino"),
    ("inode", "i_sb"),
    ("super_block", "s_dev"),
)


@functools.lru_cache(maxsize=1)
def offsets(path: Path = KERNEL) -> dict[tuple[str, str], int]:
    """(structure, field) → its offset in bytes, for all FIELDS. Raises RulesError."""
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise RulesError(f"no type information of the kernel: {path}: {error.strerror}") from None
    try:
        return _Types(blob).offsets()
    except (struct.error, IndexError, ValueError) as error:
        raise RulesError(f"{path}: not the type information that was expected: {error}") from None


class _Types:
    def __init__(self, blob: bytes) -> None:
        magic, _, _, header, types_at, types_bytes, strings_at, strings_bytes = struct.unpack_from(
            "=HBBIIIII", blob
        )
        if magic != MAGIC:
            raise ValueError("wrong magic number")
        self.types = blob[header + types_at : header + types_at + types_bytes]
        self.strings = blob[header + strings_at : header + strings_at + strings_bytes]
        self.places = self._places()

    def _places(self) -> list[int]:
        """Type number → where it is."""
        places, at, unpack = [0], 0, struct.Struct("=I").unpack_from
        while at < len(self.types):
            places.append(at)
            (info,) = unpack(self.types, at + 4)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            if kind > LAST_KIND:
                raise ValueError(f"unknown kind of type {kind}")
            at += 12 + FIXED.get(kind, 0) + EACH.get(kind, 0) * count
        return places

    def offsets(self) -> dict[tuple[str, str], int]:
        wanted: dict[int, str] = {self._string(name): name for name, _ in FIELDS}
        found: dict[tuple[str, str], int] = {}
        for place in self.places[1:]:
            name, info = struct.unpack_from("=II", self.types, place)
            if name in wanted and info >> 24 & 0x1F == STRUCT and info & 0xFFFF:
                fields = self._fields(place, 0)
                found.update(((wanted[name], field), offset) for field, offset in fields.items())
        missing = [f"{of}.{field}" for of, field in FIELDS if (of, field) not in found]
        if missing:
            raise ValueError(f"no {', '.join(missing)}")
        return {each: found[each] for each in FIELDS}

    def _string(self, text: str) -> int:
        return self.strings.index(b"\0" + text.encode() + b"\0") + 1

    def _fields(self, place: int, base: int) -> dict[str, int]:
        """Name → offset, those of members without a name included."""
        (info,) = struct.unpack_from("=I", self.types, place + 4)
        fields: dict[str, int] = {}
        bit_fields = info >> 31
        for number in range(info & 0xFFFF):
            name, kind, offset = struct.unpack_from("=III", self.types, place + 12 + 12 * number)
            at = base + (offset & 0xFFFFFF if bit_fields else offset) // 8
            if name:
                text = self.strings[name : self.strings.index(b"\0", name)].decode()
                fields.setdefault(text, at)
            elif self._is_compound(kind):
                fields |= self._fields(self.places[kind], at)
        return fields

    def _is_compound(self, number: int) -> bool:
        (info,) = struct.unpack_from("=I", self.types, self.places[number] + 4)
        return info >> 24 & 0x1F in (STRUCT, UNION)
