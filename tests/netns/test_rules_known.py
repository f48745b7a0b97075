"""The programs that ask the map: every packet of a connection and no other, by class and by customization."""

import ctypes
import os
import platform
import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layer45.rules import bpf, known_program

from .known_map import key_of

pytestmark = pytest.mark.root

PROG_TEST_RUN = 10
DIRECTIONS = (*known_program.DIRECTIONS, known_program.ERROR)
V4 = ("10.77.0.1", "10.77.0.2")
V6 = ("fd77::1", "fd77::2")
every_pair = pytest.mark.parametrize("pair", [V4, V6], ids=["ipv4", "ipv6"])


@pytest.fixture(scope="module")
def connections() -> Iterator[int]:
    """A map."""
    made = bpf.create_hash(known_program.KEY_BYTES, known_program.VALUE_BYTES, 1024, "layer45_test")
    yield made
    os.close(made)


def matches(code: bytes, packet: bytes) -> bool:
    """Whether the kernel's own run of the program says yes."""
    loaded = bpf.load_program(bpf.PROG_TYPE_SOCKET_FILTER, code, "layer45_test")
    kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    frame = ctypes.create_string_buffer(bytes(12) + struct.pack("!H", kind) + packet)
    request = struct.pack("=IIIIQQII", loaded, 0, len(frame) - 1, 0, ctypes.addressof(frame), 0, 1, 0)
    buffer, number = ctypes.create_string_buffer(request, len(request)), bpf.SYSCALL[platform.machine()]
    try:
        result = ctypes.CDLL(None, use_errno=True).syscall(number, PROG_TEST_RUN, buffer, len(request))
        assert result == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(loaded)
    return bool(struct.unpack_from("=I", buffer.raw, 4)[0])


def packet_of(source: str, destination: str, source_port: int, port: int, options: bytes = b"") -> bytes:
    """A TCP packet; options: of IPv4, or the extension headers of IPv6, the last one's next header TCP."""
    addresses = ip_address(source).packed + ip_address(destination).packed
    tcp = struct.pack("!HHIIHHHH", source_port, port, 1, 2, 5 << 12 | 16, 99, 0, 0)
    if len(addresses) == 8:
        head = struct.pack("!BBHIBBH", 0x45 + len(options) // 4, 0, 40 + len(options), 0, 64, 6, 0)
        return head + addresses + options + tcp
    return (
        struct.pack("!IHBB", 6 << 28, 20 + len(options), 0 if options else 6, 64) + addresses + options + tcp
    )


def error_about(
    packet: bytes, kind: int = 3, options: bytes = b"", protocol: int = 0, mtu: int = 1400
) -> bytes:
    """The ICMP error that a router sends, without checksums; options: of its own IPv4 header."""
    icmp = struct.pack("!BBHI", kind, 4, 0, mtu) + packet
    if packet[0] >> 4 == 4:
        words, total = 5 + len(options) // 4, 20 + len(options) + len(icmp)
        head = struct.pack("!BBHIBBH", 0x40 | words, 0, total, 0, 64, protocol or 1, 0)
        return head + ip_address("192.0.2.1").packed + packet[12:16] + options + icmp
    head = struct.pack("!IHBB", 6 << 28, len(icmp), protocol or 58, 64)
    return head + ip_address("2001:db8::1").packed + packet[8:24] + icmp


def ways(pair: tuple[str, str], options: bytes = b"") -> dict[str, bytes]:
    """A packet of the connection 1000 -> 2000, by its direction, and an error about the first."""
    local, remote = pair
    out = packet_of(local, remote, 1000, 2000, options)
    return {"out": out, "in": packet_of(remote, local, 2000, 1000, options), "error": error_about(out)}


@every_pair
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_known_connection_is_found_by_class_and_customization(
    connections: int, pair: tuple[str, str], direction: str
) -> None:
    packet = ways(pair)[direction]
    programs = [
        known_program.known(connections, direction),
        known_program.of_block(connections, direction, 300, 300),
        known_program.of_block(connections, direction, 44, 44),
        known_program.of_block(connections, direction, 296, 303),
        known_program.of_block(connections, direction, 0, 255),
        known_program.customized(connections, direction),
    ]
    key = key_of(pair[0], 1000, pair[1], 2000)
    for value, expected in (
        (300, [1, 1, 0, 1, 0, 0]),
        (300 | known_program.CUSTOMIZED, [1, 1, 0, 1, 0, 1]),
        (303, [1, 0, 0, 1, 0, 0]),
        (304, [1, 0, 0, 0, 0, 0]),
        (None, [0] * 6),
    ):
        if value is None:
            bpf.delete(connections, key)
        else:
            bpf.update(connections, key, struct.pack("=I", value))
        assert [matches(code, packet) for code in programs] == expected, value


@every_pair
def test_directions_are_told_apart(connections: int, pair: tuple[str, str]) -> None:
    key = key_of(pair[0], 1000, pair[1], 2000)
    bpf.update(connections, key, struct.pack("=I", 1))
    for asked in DIRECTIONS:
        code = known_program.known(connections, asked)
        found = {way: matches(code, packet) for way, packet in ways(pair).items()}
        assert found == {way: way == asked for way in DIRECTIONS}
    bpf.delete(connections, key)


@pytest.mark.parametrize("pair", [V4, V6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("headers", [0, 1, 2, 3, 4])
def test_options_and_extension_headers_are_skipped(
    connections: int, pair: tuple[str, str], headers: int
) -> None:
    if pair == V4:
        options, found = bytes([1] * 8 * headers), True
    else:
        rest = [*([60] * (headers - 1)), 6][:headers]
        options, found = b"".join(bytes([kind, 1, 1, 12, *[0] * 12]) for kind in rest), headers < 4
    bpf.update(connections, key_of(pair[0], 1000, pair[1], 2000), struct.pack("=I", 1))
    for direction, packet in ways(pair, options).items():
        assert matches(known_program.known(connections, direction), packet) == found
    bpf.delete(connections, key_of(pair[0], 1000, pair[1], 2000))


PORTS = st.integers(0, 65535)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([V4, V6]), st.data())
def test_whatever_differs_is_another_connection(
    connections: int, pair: tuple[str, str], data: st.DataObject
) -> None:
    key = bytearray(key_of(pair[0], 1000, pair[1], 2000))
    at = data.draw(st.integers(0, len(key) - 1))
    key[at] ^= data.draw(st.integers(1, 255))
    bpf.update(connections, bytes(key), struct.pack("=I", 1))
    try:
        for direction, packet in ways(pair).items():
            assert not matches(known_program.known(connections, direction), packet)
    finally:
        bpf.delete(connections, bytes(key))


@every_pair
def test_what_is_cut_short_is_no_match(connections: int, pair: tuple[str, str]) -> None:
    bpf.update(connections, key_of(pair[0], 1000, pair[1], 2000), struct.pack("=I", 1))
    code = known_program.known(connections, "out")
    packet = ways(pair)["out"]
    head = 20 if pair == V4 else 40  # the kernel runs no program on less
    lengths = [length for length in range(head, len(packet)) if matches(code, packet[:length])]
    assert lengths == list(range(head + 4, len(packet)))
    bpf.delete(connections, key_of(pair[0], 1000, pair[1], 2000))


@every_pair
def test_only_errors_about_tcp_that_went_out_match(connections: int, pair: tuple[str, str]) -> None:
    bpf.update(connections, key_of(pair[0], 1000, pair[1], 2000), struct.pack("=I", 1))
    code = known_program.known(connections, known_program.ERROR)
    about, errors = ways(pair), known_program.ERRORS[4 if pair == V4 else 6]
    kinds = [kind for kind in range(256) if matches(code, error_about(about["out"], kind))]
    assert kinds == list(errors)
    assert not matches(code, error_about(about["in"]))
    protocol = 9 if pair == V4 else 6
    udp = about["out"][:protocol] + b"\x11" + about["out"][protocol + 1 :]
    assert not matches(code, error_about(udp))
    if pair == V4:
        assert matches(code, error_about(about["out"], options=bytes(40)))
    else:
        assert not matches(code, error_about(about["out"], protocol=60))
    whole = about["error"]
    least = len(whole) - 16  # the ports are enough
    lengths = [length for length in range(40, len(whole)) if matches(code, whole[:length])]
    assert lengths == list(range(least, len(whole)))
    bpf.delete(connections, key_of(pair[0], 1000, pair[1], 2000))
