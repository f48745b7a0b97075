"""Where the IP packet begins: every link type, tagged and cut at every byte, and hostile frames."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from layer45.fastpath.link import locate, supported

NULL, ETHERNET, RAW, RAW_OPENBSD, LOOP, COOKED, IPV4, IPV6, COOKED2 = 0, 1, 12, 14, 108, 113, 228, 229, 276
LINK_TYPES = (NULL, ETHERNET, RAW, RAW_OPENBSD, LOOP, COOKED, IPV4, IPV6, COOKED2)
V4 = bytes.fromhex("4500001c000100004011ffff0a0000010a000002") + bytes(8)
V6 = bytes.fromhex("6000000008114000") + bytes(31) + b"\1" + bytes(8)
MACS = bytes(range(12))


def tags(*types: int) -> bytes:
    """VLAN tags in front of an Ethertype."""
    return b"".join(struct.pack("!HH", each, 100 + at) for at, each in enumerate(types))


def cooked(protocol: int, hardware: int = 1) -> bytes:
    return struct.pack("!HHH8sH", 0, hardware, 6, bytes(8), protocol)


def cooked2(protocol: int, hardware: int = 1) -> bytes:
    return struct.pack("!HHIHBB8s", protocol, 0, 1, hardware, 0, 6, bytes(8))


FRAMES = {
    "ethernet v4": (ETHERNET, MACS + b"\x08\x00", V4),
    "ethernet v6": (ETHERNET, MACS + b"\x86\xdd", V6),
    "802.1Q": (ETHERNET, MACS + tags(0x8100) + b"\x08\x00", V4),
    "802.1ad and 802.1Q": (ETHERNET, MACS + tags(0x88A8, 0x8100) + b"\x86\xdd", V6),
    "eight tags": (ETHERNET, MACS + tags(*[0x8100] * 8) + b"\x08\x00", V4),
    "cooked v4": (COOKED, cooked(0x0800), V4),
    "cooked v6": (COOKED, cooked(0x86DD), V6),
    "cooked tagged": (COOKED, cooked(0x8100) + struct.pack("!HH", 7, 0x0800), V4),
    "cooked2 v4": (COOKED2, cooked2(0x0800), V4),
    "cooked2 v6": (COOKED2, cooked2(0x86DD), V6),
    "raw v4": (RAW, b"", V4),
    "raw v6": (RAW, b"", V6),
    "raw openbsd": (RAW_OPENBSD, b"", V6),
    "ipv4": (IPV4, b"", V4),
    "ipv6": (IPV6, b"", V6),
    "null little": (NULL, b"\2\0\0\0", V4),
    "null big": (NULL, b"\0\0\0\2", V4),
    "null linux v6": (NULL, b"\x0a\0\0\0", V6),
    "null bsd v6": (NULL, b"\x18\0\0\0", V6),
    "null freebsd v6": (NULL, b"\0\0\0\x1c", V6),
    "null macos v6": (NULL, b"\x1e\0\0\0", V6),
    "loop v4": (LOOP, b"\0\0\0\2", V4),
    "loop v6": (LOOP, b"\0\0\0\x18", V6),
}

REFUSED = {
    "arp": (ETHERNET, MACS + b"\x08\x06" + bytes(28), "not_ip"),
    "llc": (ETHERNET, MACS + b"\x00\x26" + bytes(38), "not_ip"),
    "arp behind a tag": (ETHERNET, MACS + tags(0x8100) + b"\x08\x06" + bytes(28), "not_ip"),
    "nine tags": (ETHERNET, MACS + tags(*[0x8100] * 9) + b"\x08\x00" + V4, "too_many_tags"),
    "v6 said, v4 sent": (ETHERNET, MACS + b"\x86\xdd" + V4, "link_lies"),
    "v4 said, v6 sent": (COOKED, cooked(0x0800) + V6, "link_lies"),
    "netlink": (COOKED, cooked(0x0800, hardware=824) + V4, "not_ip"),
    "radiotap": (COOKED2, cooked2(0x0800, hardware=803) + V4, "not_ip"),
    "v4 as ipv6": (IPV6, V4, "link_lies"),
    "neither": (RAW, b"\x50" + bytes(30), "not_ip"),
    "null of appletalk": (NULL, b"\x10\0\0\0" + V4, "not_ip"),
    "loop in the wrong order": (LOOP, b"\2\0\0\0" + V4, "not_ip"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_finds_the_packet(name: str) -> None:
    link_type, link, packet = FRAMES[name]
    assert locate(link_type, link + packet) == len(link)


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_cut_in_its_link_header_is_short(name: str) -> None:
    link_type, link, packet = FRAMES[name]
    for count in range(len(link) + 1):
        assert locate(link_type, (link + packet)[:count]) == "link_short"
    assert locate(link_type, link + packet[:1]) == len(link)


@pytest.mark.parametrize("name", REFUSED)
def test_names_the_reason(name: str) -> None:
    link_type, frame, reason = REFUSED[name]
    assert locate(link_type, frame) == reason


def test_tells_what_is_supported() -> None:
    assert [each for each in range(300) if supported(each)] == list(LINK_TYPES)


@given(st.sampled_from(LINK_TYPES), st.binary(max_size=120))
@example(ETHERNET, MACS + b"\x81\x00" * 50)
def test_what_it_finds_is_in_the_frame_and_of_its_version(link_type: int, frame: bytes) -> None:
    found = locate(link_type, frame)
    if isinstance(found, int):
        assert 0 <= found < len(frame)
        assert found <= 52
        assert frame[found] >> 4 in (4, 6)
