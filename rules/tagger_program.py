"""The tagger's BPF bytecode: which owner keys hold for the caller of socket(), as a tag in the socket's mark.

Straight-line code; every jump goes ahead:

    not an IPv4 or IPv6 datagram or stream socket, or of another network namespace: end
    for each owner key: compare user, group, cgroup; set its bit if all hold
    compare the bits with each set that has a number; put that number into our field of the mark, else none
"""

import socket

from layer45.rules import cgroups
from layer45.rules.assembler import (
    ADD_CONST,
    AND,
    AND32_CONST,
    CALL,
    EQUAL32_CONST,
    EXIT,
    JUMP,
    LEFT_CONST,
    LOAD32,
    MOVE,
    MOVE_CONST,
    NOT_EQUAL,
    OR,
    OR32_CONST,
    RIGHT_CONST,
    STORE32,
    XOR,
    XOR32_CONST,
    Assembler,
)
from layer45.rules.diversion import MarkLayout
from layer45.rules.owners import OwnerKeys, OwnerTags

GET_UID_GID, GET_NETNS_COOKIE, GET_ANCESTOR_CGROUP = 15, 122, 123  # helper functions
FAMILY, TYPE, MARK = 4, 8, 16  # offsets in struct bpf_sock

# Registers of the program: r6 socket, r7 gid << 32 | uid, r8 a bit for each key.


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
