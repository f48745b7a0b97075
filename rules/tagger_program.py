"""The tagger's BPF bytecode: who calls socket(), as a tag in the socket's mark.

Every jump goes ahead:

    not an IPv4 or IPv6 datagram or stream socket, or of another network namespace: end
    for each thing that an owner has: look up the row of the caller's
    look up the tag of these rows; put it into our field of the mark, or nothing

A program is its process, whichever of its threads asks. Its name is that of the thread group's leader, its
executable that of its memory: reading them needs to know where the kernel has them (kernel_types.py). Where
that is not known, the name is the calling thread's, and there is no executable.

Registers: r6 socket, r7 gid << 32 | uid, r8 the leader of the thread group. Below the frame pointer: the
rows, and scratch space.
"""

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from layer45.rules.assembler import (
    ADD_CONST,
    AND32_CONST,
    CALL,
    EQUAL32_CONST,
    EQUAL_CONST,
    EXIT,
    JUMP,
    LOAD32,
    LOAD64,
    MAP_DESCRIPTOR,
    MOVE,
    MOVE_CONST,
    NOT_EQUAL,
    OR,
    RIGHT_CONST,
    STORE32,
    STORE64,
    STORE_CONST32,
    STORE_CONST64,
    Assembler,
)
from layer45.rules.diversion import MarkLayout

# Helper functions.
MAP_LOOKUP_ELEMENT, GET_UID_GID, GET_COMM, GET_TASK = 1, 15, 16, 35
READ_KERNEL, READ_KERNEL_STRING, GET_NETNS_COOKIE, GET_ANCESTOR_CGROUP = 113, 115, 122, 123
FAMILY, TYPE, MARK = 4, 8, 16  # offsets in struct bpf_sock

FRAME = 10  # the register of the frame pointer
DIMENSIONS = ("user", "group", "cgroup", "name", "path")
ROWS, ROW_BYTES = -20, 4
KEY, NAME_BYTES = -40, 16  # the key of a look-up, at most 16 bytes
POINTER = -48

Offsets = Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class Maps:
    """Descriptors. rows: for each other dimension that some key asks for, its value → its row.

    cgroups: for each depth in which some key names one, its identity → its row. tags: rows → tag.
    """

    rows: Mapping[str, int]
    cgroups: Mapping[int, int]
    tags: int


KEY_BYTES = {"user": 4, "group": 4, "cgroup": 8, "name": NAME_BYTES, "path": 16}
TAGS_KEY_BYTES = ROW_BYTES * len(DIMENSIONS)


def name_key(name: str) -> bytes:
    """A program's name, as the kernel keeps it."""
    return name.encode()[: NAME_BYTES - 1].ljust(NAME_BYTES, b"\0")


def path_key(inode: int, device: int) -> bytes:
    """An executable by its inode and the kernel's number of its device."""
    return struct.pack("=QQ", inode, device)


def program(maps: Maps, marks: MarkLayout, netns_cookie: int, offsets: Offsets | None) -> bytes:
    """The bytecode that tags the sockets of one network namespace. offsets: of kernel_types.FIELDS."""
    a = Assembler()
    a.emit(MOVE, 6, 1)
    _require(a, FAMILY, (socket.AF_INET, socket.AF_INET6))
    _require(a, TYPE, (socket.SOCK_DGRAM, socket.SOCK_STREAM))
    a.emit(MOVE, 1, 6)
    a.emit(CALL, constant=GET_NETNS_COOKIE)
    a.constant(1, netns_cookie)
    a.emit(NOT_EQUAL, 0, 1, at="end")
    for place in range(len(DIMENSIONS)):
        a.emit(STORE_CONST32, FRAME, at=_row(place))
    _owner(a, maps)
    _cgroup(a, maps)
    if offsets and ("name" in maps.rows or "path" in maps.rows):
        _leader(a, offsets)
    if "name" in maps.rows:
        _name(a, offsets)
        _look_up_row(a, maps, "name")
    if "path" in maps.rows and offsets:
        _path(a, maps, offsets)
    _set_mark(a, maps, marks)
    a.label("end")
    a.emit(MOVE_CONST, 0, constant=1)  # let the socket be made
    a.emit(EXIT)
    return a.code()


def _row(place: int) -> int:
    return ROWS + ROW_BYTES * place


def _require(a: Assembler, field: int, values: tuple[int, ...]) -> None:
    """End unless the socket's field has one of the values."""
    a.emit(LOAD32, 1, 6, at=field)
    for value in values:
        a.emit(EQUAL32_CONST, 1, at=f"field{field}", constant=value)
    a.emit(JUMP, at="end")
    a.label(f"field{field}")


def _look_up(a: Assembler, map_descriptor: int, key: int, absent: str) -> None:
    """r1: the number that the map has for the key on the stack; else go to `absent`."""
    a.constant(1, map_descriptor, MAP_DESCRIPTOR)
    a.emit(MOVE, 2, FRAME)
    a.emit(ADD_CONST, 2, constant=key)
    a.emit(CALL, constant=MAP_LOOKUP_ELEMENT)
    a.emit(EQUAL_CONST, 0, at=absent)
    a.emit(LOAD32, 1, 0)


def _look_up_row(a: Assembler, maps: Maps, name: str) -> None:
    """The row of the key on the stack; a value that no key names has row 0."""
    _look_up(a, maps.rows[name], KEY, f"no-{name}")
    a.emit(STORE32, FRAME, 1, at=_row(DIMENSIONS.index(name)))
    a.label(f"no-{name}")


def _owner(a: Assembler, maps: Maps) -> None:
    a.emit(CALL, constant=GET_UID_GID)
    a.emit(MOVE, 7, 0)
    for name in ("user", "group"):
        if name in maps.rows:
            a.emit(STORE32, FRAME, 7, at=KEY)
            _look_up_row(a, maps, name)
        a.emit(RIGHT_CONST, 7, constant=32)


def _cgroup(a: Assembler, maps: Maps) -> None:
    """The row of the deepest that the caller is in."""
    for level in sorted(maps.cgroups):
        a.emit(MOVE_CONST, 1, constant=level)
        a.emit(CALL, constant=GET_ANCESTOR_CGROUP)
        a.emit(STORE64, FRAME, 0, at=KEY)
        _look_up(a, maps.cgroups[level], KEY, f"not-at-{level}")
        a.emit(STORE32, FRAME, 1, at=_row(DIMENSIONS.index("cgroup")))
        a.label(f"not-at-{level}")


def _leader(a: Assembler, offsets: Offsets) -> None:
    a.emit(CALL, constant=GET_TASK)
    _follow(a, 0, offsets["task_struct", "group_leader"])
    a.emit(LOAD64, 8, FRAME, at=POINTER)


def _name(a: Assembler, offsets: Offsets | None) -> None:
    for at in (KEY, KEY + 8):
        a.emit(STORE_CONST64, FRAME, at=at)
    a.emit(MOVE, 1, FRAME)
    a.emit(ADD_CONST, 1, constant=KEY)
    a.emit(MOVE_CONST, 2, constant=NAME_BYTES)
    if offsets:
        a.emit(MOVE, 3, 8)
        a.emit(ADD_CONST, 3, constant=offsets["task_struct", "comm"])
        a.emit(CALL, constant=READ_KERNEL_STRING)
    else:
        a.emit(CALL, constant=GET_COMM)


def _path(a: Assembler, maps: Maps, offsets: Offsets) -> None:
    """Threads of the kernel have no memory: a read from nowhere leaves zeros."""
    _follow(a, 8, offsets["task_struct", "mm"])
    for field in (("mm_struct", "exe_file"), ("file", "f_inode")):
        a.emit(LOAD64, 1, FRAME, at=POINTER)
        _follow(a, 1, offsets[field])
    a.emit(LOAD64, 8, FRAME, at=POINTER)
    _follow(a, 8, offsets["inode", "i_ino"], into=KEY)
    _follow(a, 8, offsets["inode", "i_sb"])
    a.emit(LOAD64, 1, FRAME, at=POINTER)
    a.emit(STORE_CONST64, FRAME, at=KEY + 8)
    _follow(a, 1, offsets["super_block", "s_dev"], into=KEY + 8, count=4)
    _look_up_row(a, maps, "path")


def _follow(a: Assembler, register: int, offset: int, into: int = POINTER, count: int = 8) -> None:
    """What is `offset` behind the address in the register, onto the stack."""
    a.emit(MOVE, 3, register)
    a.emit(ADD_CONST, 3, constant=offset)
    a.emit(MOVE, 1, FRAME)
    a.emit(ADD_CONST, 1, constant=into)
    a.emit(MOVE_CONST, 2, constant=count)
    a.emit(CALL, constant=READ_KERNEL)


def _set_mark(a: Assembler, maps: Maps, marks: MarkLayout) -> None:
    a.emit(MOVE_CONST, 7)
    _look_up(a, maps.tags, ROWS, "untagged")
    a.emit(MOVE, 7, 1)
    a.label("untagged")
    a.emit(LOAD32, 2, 6, at=MARK)
    a.emit(AND32_CONST, 2, constant=~marks.class_mask)
    a.emit(OR, 2, 7)
    a.emit(STORE32, 6, 2, at=MARK)
