"""Runs a seccomp filter as the kernel would, for one call: an interpreter of its few instructions."""

import struct
from collections.abc import Sequence

ALLOWED = 0


def refusal(code: bytes, architecture: int, number: int, arguments: Sequence[int] = ()) -> int:
    """The errno that the call fails with; ALLOWED: it is made. No filter of ours may end the process."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *(*arguments, *[0] * (6 - len(arguments))))
    instructions = list(struct.iter_unpack("<HBBI", code))
    at = value = 0
    while True:
        kind, when, otherwise, constant = instructions[at]
        at += 1
        if kind == 0x20:
            (value,) = struct.unpack_from("=I", data, constant)
        elif kind == 0x54:
            value &= constant
        elif kind in (0x15, 0x35):
            holds = value == constant if kind == 0x15 else value >= constant
            at += when if holds else otherwise
        elif kind == 0x06:
            assert constant & 0xFFFF0000 in (0x7FFF0000, 0x00050000), hex(constant)
            return constant & 0xFFFF
        else:
            raise AssertionError(f"unknown instruction {kind:#x}")
