"""What becomes of each packet of a capture: rewritten, copied as it was, and restored by the way back."""

import struct
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6

from layer45.replay import Summary
from layer45.replay_view import show_summary

from .captures import (
    COOKED,
    COOKED2,
    ETHERNET,
    IPV4,
    IPV6,
    LOOP,
    MICROSECONDS,
    NANOSECONDS,
    NULL,
    RAW,
    SCRAMBLE,
    START_NS,
    STEP_NS,
    TAG,
    Record,
    ethernet,
    linked,
    read,
    tcp,
    udp,
    write,
    write_pcapng,
)
from .conftest import Send

LINKS = {
    "ethernet": ETHERNET, "raw": RAW, "cooked": COOKED, "cooked2": COOKED2, "null": NULL, "loop": LOOP,
}  # fmt: skip
TAG_BYTES = 12 + len("host-7")


def there_and_back(send: Send, source: Path, *instances: str, **keys: str) -> Summary:
    """Asserts that ingress of the egress output is the source, byte for byte."""
    away, back = source.with_suffix(".egress"), source.with_suffix(".ingress")
    summary = send(source, away, *instances, **keys)
    send(away, back, *instances, direction="ingress", **keys)
    assert back.read_bytes() == source.read_bytes()
    return summary


def checksums_hold(packet: bytes) -> bool:
    """Scapy computes the same ones."""
    view = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
    again = view.copy()
    if isinstance(again, IP):
        del again.chksum, again.len
    else:
        del again.plen
    del again[UDP].chksum, again[UDP].len
    return bytes(again) == packet


@pytest.mark.parametrize("magic", [MICROSECONDS, NANOSECONDS])
@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_the_way_back_restores_every_link_type(tmp_path: Path, send: Send, link: int, magic: int) -> None:
    payloads = [b"%d" % size * size for size in (0, 1, 31, 500, 700)]
    frames = [linked(link, udp(payload, version)) for payload in payloads for version in (4, 6)]
    source = write(tmp_path / "in.pcap", frames, link, magic)
    summary = there_and_back(send, source, TAG, SCRAMBLE)
    assert (summary.customized, summary.engine["rewritten"]) == (10, 10)
    for before, after in zip(frames, read(source.with_suffix(".egress")), strict=True):
        header = len(linked(link, b"\x45")) - 1
        assert after.frame[:header] == before[:header]
        assert len(after.frame) == len(before) + TAG_BYTES == after.len
        assert checksums_hold(after.frame[header:])


@pytest.mark.parametrize("link", [IPV4, IPV6])
def test_links_of_one_version(tmp_path: Path, send: Send, link: int) -> None:
    version = 4 if link == IPV4 else 6
    there_and_back(send, write(tmp_path / "in.pcap", [udp(b"x" * 100, version)] * 3, link), TAG)


def test_every_length_comes_back(tmp_path: Path, send: Send) -> None:
    frames = [udp((b"%d" % at * 1500)[:at], version) for at in range(1452) for version in (4, 6)]
    there_and_back(send, write(tmp_path / "in.pcap", frames, RAW), TAG, SCRAMBLE)


def test_tcp_is_scrambled_and_comes_back(tmp_path: Path, send: Send) -> None:
    packets = [tcp(b"x" * at, version, seq=at) for at in range(1, 600, 7) for version in (4, 6)]
    frames = [linked(ETHERNET, packet) for packet in packets]
    source = write(tmp_path / "in.pcap", frames)
    there_and_back(send, source, SCRAMBLE, match='{ protocol = "tcp" }')


@pytest.mark.parametrize("tags", [(0x8100,), (0x88A8, 0x8100), (0x8100,) * 8], ids=["Q", "QinQ", "eight"])
def test_vlan_tags_stay(tmp_path: Path, send: Send, tags: tuple[int, ...]) -> None:
    frame = ethernet(udp(b"x" * 40), tags)
    source = write(tmp_path / "in.pcap", [frame])
    there_and_back(send, source, TAG)
    (after,) = read(source.with_suffix(".egress"))
    assert after.frame[: 14 + 4 * len(tags)] == frame[: 14 + 4 * len(tags)]


def test_padding_goes_with_a_rewrite_and_stays_without(tmp_path: Path, send: Send) -> None:
    frame, target = ethernet(udp(b"abc")), tmp_path / "out.pcap"
    source = write(tmp_path / "in.pcap", [frame])
    assert len(frame) == 60
    send(source, target, TAG)
    assert [len(each.frame) for each in read(target)] == [14 + 28 + 3 + TAG_BYTES]
    send(source, target, match='{ protocol = "udp" }')
    assert target.read_bytes() == source.read_bytes()


def test_what_the_chain_is_not_for_is_copied_and_counted(tmp_path: Path, send: Send) -> None:
    whole = linked(ETHERNET, udp(b"x" * 100))
    fragment = bytes(IP(src="10.0.0.1", dst="10.0.0.2", flags="MF") / UDP() / b"12345678")
    lies = whole[:12] + b"\x86\xdd" + whole[14:]
    malformed = whole[:16] + b"\xff\xff" + whole[18:]
    headers = linked(ETHERNET, bytes(IPv6(nh=60) / (bytes([60, 0, 1, 4, 0, 0, 0, 0]) * 9)))
    cases: list[tuple[str, bytes | Record]] = [
        ("truncated", Record(START_NS, whole[:90], len(whole))),
        ("truncated", Record(START_NS, whole[:40], len(whole))),
        ("not_ip", whole[:12] + b"\x08\x06" + whole[14:]),
        ("link_short", whole[:13]),
        ("link_short", b""),
        ("link_lies", lies),
        ("too_many_tags", ethernet(udp(b""), (0x8100,) * 9)),
        ("short", whole[:14] + whole[14:30]),
        ("malformed", malformed),
        ("fragment", linked(ETHERNET, fragment)),
        ("other_protocol", whole[:23] + b"\x01" + whole[24:]),
        ("too_many_headers", headers),
        ("not_matched", linked(ETHERNET, udp(b"x", dport=5005))),
    ]
    source = write(tmp_path / "in.pcap", [frame for _, frame in cases])
    summary = send(source, tmp_path / "out.pcap", TAG, match='{ protocol = "udp", remote_port = ["5004"] }')
    assert (tmp_path / "out.pcap").read_bytes() == source.read_bytes()
    expected: dict[str, int] = {}
    for reason, _ in cases:
        expected[reason] = expected.get(reason, 0) + 1
    assert {reason: count for reason, count in summary.untouched.items() if count} == expected


def test_a_frame_cut_only_behind_its_packet_is_whole(tmp_path: Path, send: Send) -> None:
    frame = linked(ETHERNET, udp(b"x" * 10))
    source = write(tmp_path / "in.pcap", [Record(START_NS, frame, len(frame) + 8)])
    assert send(source, tmp_path / "out.pcap", TAG).engine["rewritten"] == 1


@pytest.mark.parametrize("direction", ["egress", "ingress"])
def test_local_is_the_source_on_egress_and_the_destination_on_ingress(
    tmp_path: Path, send: Send, direction: str
) -> None:
    from_us = linked(ETHERNET, udp(b"x"))
    to_us = linked(ETHERNET, bytes(IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=5004, dport=40000) / b"x"))
    source = write(tmp_path / "in.pcap", [from_us, to_us, to_us])
    match = '{ local = ["10.0.0.1"], remote_port = [5004], user = [0], unless = { protocol = "tcp" } }'
    summary = send(source, tmp_path / "out.pcap", SCRAMBLE, direction=direction, match=match)
    assert summary.customized == (1 if direction == "egress" else 2)


def test_unless_excepts_but_not_by_owner(tmp_path: Path, send: Send) -> None:
    source = write(tmp_path / "in.pcap", [linked(ETHERNET, udp(b"x", dport=port)) for port in (5004, 5005)])
    for unless, customized in (("{ remote_port = [5005] }", 1), ("{ remote_port = [5005], user = [0] }", 2)):
        match = f'{{ protocol = "udp", unless = {unless} }}'
        assert send(source, tmp_path / "out.pcap", TAG, match=match).customized == customized


@pytest.mark.parametrize("resolution", [6, 9])
def test_pcapng_is_read(tmp_path: Path, send: Send, resolution: int) -> None:
    frames = [linked(ETHERNET, udp(b"x" * at)) for at in range(20)]
    source = write_pcapng(tmp_path / "in.pcapng", frames, resolution=resolution)
    send(source, tmp_path / "out.pcap")
    records = read(tmp_path / "out.pcap")
    assert records == [Record(START_NS + at * STEP_NS, each, len(each)) for at, each in enumerate(frames)]
    assert struct.unpack_from("=I", (tmp_path / "out.pcap").read_bytes())[0] == NANOSECONDS


def test_the_other_byte_order_is_read(tmp_path: Path, send: Send) -> None:
    frame = linked(ETHERNET, udp(b"x"))
    source = tmp_path / "in.pcap"
    head = struct.pack(">IHHiIIIIIII", MICROSECONDS, 2, 4, 0, 0, 65535, 1, 7, 5, len(frame), len(frame))
    if struct.pack("=H", 1) == b"\0\1":
        head = struct.pack("<IHHiIIIIIII", MICROSECONDS, 2, 4, 0, 0, 65535, 1, 7, 5, len(frame), len(frame))
    source.write_bytes(head + frame)
    send(source, tmp_path / "out.pcap")
    assert read(tmp_path / "out.pcap") == [Record(7_000_005_000, frame, len(frame))]


def test_the_snapshot_length_grows_only_if_it_must(tmp_path: Path, send: Send) -> None:
    target = tmp_path / "out.pcap"
    for payload_bytes, expected in ((100, 200), (150, 14 + 28 + 150 + TAG_BYTES)):
        frame = linked(ETHERNET, udp(b"x" * payload_bytes))
        send(write(tmp_path / "in.pcap", [frame], snaplen=200), target, TAG)
        assert struct.unpack_from("=I", target.read_bytes(), 16)[0] == expected
        assert [each.len for each in read(target)] == [len(frame) + TAG_BYTES]


def test_the_largest_packets_pass_where_there_is_no_room(tmp_path: Path, send: Send) -> None:
    room = 65531 - 28 - TAG_BYTES  # what one netlink message can carry bounds the engine's packets
    frames = [udp(bytes(size)) for size in (65507, room, room + 1)]
    source = write(tmp_path / "in.pcap", frames, RAW, snaplen=262144)
    summary = there_and_back(send, source, TAG)
    assert (summary.engine["rewritten"], summary.engine["failed_open"]) == (1, 2)


def test_the_reference_gives_the_same_output(tmp_path: Path, send: Send) -> None:
    frames = [linked(ETHERNET, udp(b"x" * at, version)) for at in range(0, 300, 13) for version in (4, 6)]
    source = write(tmp_path / "in.pcap", frames)
    compiled, plain = tmp_path / "compiled.pcap", tmp_path / "plain.pcap"
    send(source, compiled, TAG, SCRAMBLE)
    send(source, plain, TAG, SCRAMBLE, reference=True)
    assert compiled.read_bytes() == plain.read_bytes()


def test_modules_in_python_run(tmp_path: Path, send: Send) -> None:
    source = write(tmp_path / "in.pcap", [linked(ETHERNET, udp(b"abc" * at)) for at in range(1, 100)])
    there_and_back(send, source, '{ module = "example_python" }')


def test_an_empty_chain_and_an_empty_capture(tmp_path: Path, send: Send) -> None:
    source = write(tmp_path / "in.pcap", [])
    summary = there_and_back(send, source)
    assert (summary.read, summary.written) == (0, 0)


def test_ratios_stand_with_the_counters(
    send: Send, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    payloads = [b"a" * 100, b"", b"b" * 100, b"a" * 100]
    source = write(tmp_path / "in.pcap", [ethernet(udp(each)) for each in payloads])
    summary = send(source, tmp_path / "out.pcap", '{ module = "example_python" }')
    (instance,) = summary.instances
    assert (instance["module"], instance["ratios"]) == ("example_python", {"compressed_share": 0.75})
    show_summary(summary.as_dict(), as_json=False, to_stderr=False)
    assert "example_python  compressed_share   0.75" in capsys.readouterr().out
    back = send(
        tmp_path / "out.pcap", tmp_path / "back.pcap", '{ module = "example_python" }', direction="ingress"
    )
    assert back.instances[0]["ratios"] == {"compressed_share": None}
    show_summary(back.as_dict(), as_json=False, to_stderr=False)
    assert "example_python  compressed_share      -" in capsys.readouterr().out
