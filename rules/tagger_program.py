"""The tagger's BPF bytecode: which owner keys hold for the caller of socket(), as a tag in the socket's mark.

Straight-line code; every jump goes ahead:

    not an IPv4 or IPv6 datagram or stream socket, or of another network namespace: end
    for each owner key: compare user, group, cgroup; set its bit if all hold
    compare the bits with each set that has a number; put that number into our field of the mark, else none
"""

import socket
import struct

from layer45.rules import cgroups
from layer45.rules.diversion import MarkLayout
from layer45.rules.owners import OwnerKeys, OwnerTags

GET_UID_GID, GET_NETNS_COOKIE, GET_ANCESTOR_CGROUP = 15, 122, 123  # helper functions
FAMILY, TYPE, MARK = 4, 8, 16  # offsets in struct bpf_sock

# Opcodes; 32 means the lower half. Registers: r6 socket, r7 gid << 32 | uid, r8 a bit for each key.
LOAD32, STORE32, LOAD_CONST, CALL, EXIT, JUMP = 0x61, 0x63, 0x18, 0x85, 0x95, 0x05
MOVE, MOVE_CONST, ADD_CONST, LEFT_CONST, RIGHT_CONST, OR, AND, XOR = (
    0xBF,
    0xB7,
    0x07,
    0x67,
    0x77,
    0x4F,
    0x5F,
    0xAF,
)
AND32_CONST, OR32_CONST, XOR32_CONST, NOT_EQUAL, EQUAL32_CONST = 0x54, 0x44, 0xA4, 0x5D, 0x16


class Assembler:
    """Instructions, with jumps to labels ahead."""

    def __init__(self) -> None:
        self.slots: list[
            tuple[int, int, int, int | str, int]
        ] = []  # code, to, from, offset or label, constant
        self.labels: dict[str, int] = {}

    def emit(self, code: int, to: int = 0, source: int = 0, at: int | str = 0, constant: int = 0) -> None:
        """One instruction. at: a place in memory, or the label a jump goes to."""
        self.slots.append((code, to, source, at, constant))

    def constant(self, register: int, value: int) -> None:
        """Load 64 bits: two slots."""
        self.emit(LOAD_CONST, register, constant=value & 0xFFFFFFFF)
        self.emit(0, constant=value >> 32)

    def label(self, name: str) -> None:
        """The next instruction is where jumps to this name go."""
        self.labels[name] = len(self.slots)

    def code(self) -> bytes:
        """The program as a little-endian kernel takes it."""
        words = []
        for place, (code, to, source, at, constant) in enumerate(self.slots):
            offset = self.labels[at] - place - 1 if isinstance(at, str) else at
            words.append(struct.pack("<BBhI", code, source << 4 | to, offset, constant & 0xFFFFFFFF))
        return b"".join(words)


def program(tags: OwnerTags, marks: MarkLayout, netns_cookie: int) -> bytes:
    """The bytecode that tags the sockets of one network namespace."""
    a = Assembler()
    a.emit(MOVE, 6, 1)
    _require(a, FAMILY, (socket.AF_INET, socket.AF_INET6))
    _require(a, TYPE, (socket.SOCK_DGRAM, socket.SOCK_STREAM))
    a.emit(MOVE, 1, 6)
    a.emit(CALL, constant=GET_NETNS_COOKIE)
    a.constant(1, netns_cookie)
    a.emit(NOT_EQUAL, 0, 1, at="end")
    a.emit(CALL, constant=GET_UID_GID)
    a.emit(MOVE, 7, 0)
    a.emit(MOVE_CONST, 8)
    for place, keys in enumerate(tags.keys):
        _evaluate(a, place, keys)
    _set_mark(a, tags, marks)
    a.label("end")
    a.emit(MOVE_CONST, 0, constant=1)  # let the socket be made
    a.emit(EXIT)
    return a.code()


def _require(a: Assembler, field: int, values: tuple[int, ...]) -> None:
    """End unless the socket's field has one of the values."""
    a.emit(LOAD32, 1, 6, at=field)
    for value in values:
        a.emit(EQUAL32_CONST, 1, at=f"field{field}", constant=value)
    a.emit(JUMP, at="end")
    a.label(f"field{field}")


def _evaluate(a: Assembler, place: int, keys: OwnerKeys) -> None:
    """Set bit `place` of r8 if all keys hold. r9: 1 while they do."""
    a.emit(MOVE_CONST, 9, constant=0 if keys.cgroup else 1)
    for path in keys.cgroup:
        a.emit(MOVE_CONST, 1, constant=cgroups.level(path))
        a.emit(CALL, constant=GET_ANCESTOR_CGROUP)
        a.constant(1, cgroups.identity(path))
        a.emit(XOR, 1, 0)
        _is_zero(a)
        a.emit(OR, 9, 1)
    for ids, shift in ((keys.user, 0), (keys.group, 32)):
        if ids:
            _is_one_of(a, ids, shift)
            a.emit(AND, 9, 2)
    a.emit(LEFT_CONST, 9, constant=place)
    a.emit(OR, 8, 9)


def _is_one_of(a: Assembler, ids: tuple[int, ...], shift: int) -> None:
    """r2: 1 if the 32 bits of r7 from `shift` are one of the numbers, else 0."""
    a.emit(MOVE_CONST, 2)
    for number in ids:
        a.emit(MOVE, 1, 7)
        a.emit(RIGHT_CONST, 1, constant=shift)
        a.emit(XOR32_CONST, 1, constant=number)
        _is_zero(a)
        a.emit(OR, 2, 1)


def _is_zero(a: Assembler) -> None:
    """r1: 1 if it was 0, else 0; for numbers below 2^63. No jump: the verifier would follow both ways."""
    a.emit(ADD_CONST, 1, constant=-1)
    a.emit(RIGHT_CONST, 1, constant=63)


def _set_mark(a: Assembler, tags: OwnerTags, marks: MarkLayout) -> None:
    a.emit(LOAD32, 2, 6, at=MARK)
    a.emit(AND32_CONST, 2, constant=~marks.class_mask)
    for number, places in tags.sets.items():
        a.constant(1, sum(1 << place for place in places))
        a.emit(NOT_EQUAL, 8, 1, at=f"other{number}")
        a.emit(OR32_CONST, 2, constant=marks.spread(number))
        a.emit(JUMP, at="store")
        a.label(f"other{number}")
    a.label("store")
    a.emit(STORE32, 6, 2, at=MARK)
