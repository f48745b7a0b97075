"""Reports of module fec, byte by byte and against another SipHash."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layer45.modules.fec.adaptive_shell import PRESENT, looks_like_a_report, report_bytes, report_fields

WRAP, NUMBERS = 2**32, 2**24
START = 0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573


def siphash(key: bytes, text: bytes) -> int:
    """SipHash-2-4 (Aumasson and Bernstein, INDOCRYPT 2012)."""
    mask = 2**64 - 1
    v = [word ^ start for word, start in zip(2 * struct.unpack("<QQ", key), START, strict=True)]

    def rotated(value: int, bits: int) -> int:
        return (value << bits | value >> (64 - bits)) & mask

    def half_round(a: int, b: int, c: int, d: int, left: int, right: int) -> None:
        v[a], v[c] = (v[a] + v[b]) & mask, (v[c] + v[d]) & mask
        v[b], v[d] = rotated(v[b], left) ^ v[a], rotated(v[d], right) ^ v[c]
        v[a] = rotated(v[a], 32)

    def rounds(count: int) -> None:
        for _ in range(count):
            half_round(0, 1, 2, 3, 13, 16)
            half_round(2, 1, 0, 3, 17, 21)

    padded = text + bytes(7 - len(text) % 8) + bytes([len(text) % 256])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def by_hand(number: int, expected: int, lost: int, runs: int, key: bytes) -> bytes:
    front = struct.pack(">B3xIII", 1, expected, lost, runs)
    behind = number.to_bytes(3, "big") + b"\xff\0\0"
    return front + struct.pack("<Q", siphash(key.ljust(16, b"\0"), front + behind)) + behind


def test_the_siphash_of_this_test_is_that_of_the_paper() -> None:
    assert siphash(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5


def test_libsodium_was_built_in() -> None:
    assert PRESENT


def test_a_report_byte_by_byte() -> None:
    made = report_bytes(0x010203, 0x11121314, 0x21222324, 0x31323334, bytes(range(16)))
    assert made[:16].hex() == "01000000111213142122232431323334"
    assert made[24:].hex() == "010203ff0000"
    assert made[16:24] == struct.pack("<Q", siphash(bytes(range(16)), made[:16] + made[24:]))


@given(st.tuples(st.integers(0, NUMBERS - 1), *[st.integers(0, WRAP - 1)] * 3), st.binary(max_size=16))
def test_reports_are_written_and_read(fields, key):
    assert report_bytes(*fields, key) == by_hand(*fields, key)
    assert report_fields(by_hand(*fields, key), key) == fields


@given(st.integers(0, 239), st.binary(min_size=1, max_size=15))
def test_a_report_that_was_changed_or_is_not_signed_with_the_key_is_none(bit, key):
    made = report_bytes(5, 1000, 10, 8, key)
    assert report_fields(made, key + b"x") is None
    changed = bytearray(made)
    changed[bit // 8] ^= 1 << bit % 8
    assert report_fields(bytes(changed), key) is None


def test_what_looks_like_a_report() -> None:
    made = report_bytes(5, 1000, 10, 8)
    assert looks_like_a_report(made)
    for other in (b"", made[:-1], made + b"\0", bytes(30)):
        assert not looks_like_a_report(other)
    for offset in (0, 1, 2, 3, 27, 28, 29):
        assert not looks_like_a_report(made[:offset] + bytes([made[offset] ^ 2]) + made[offset + 1 :])
    with pytest.raises(ValueError, match="17 bytes of key"):
        report_bytes(1, 0, 0, 0, bytes(17))
