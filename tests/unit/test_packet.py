"""The parser and the edits, against Scapy as an independent implementation."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption_RR, IPOption_Timestamp
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Packet, Raw, raw

from layer45.fastpath.packet import Editor

V4 = {"src": "192.0.2.1", "dst": "198.51.100.77"}
V6 = {"src": "2001:db8::1", "dst": "2001:db8:ffff::2"}

networks = st.sampled_from(
    [
        IP(**V4, id=7, flags="DF"),
        IP(**V4, id=0, tos=3, ttl=1, options=[IPOption_RR(routers=["1.2.3.4"])]),
        IP(**V4, options=[IPOption_Timestamp()]),
        IPv6(**V6, fl=9),
        IPv6(**V6) / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 12)]) / IPv6ExtHdrDestOpt(),
    ]
)
transports = st.sampled_from(
    [UDP(sport=1024, dport=53), TCP(sport=5, dport=80, options=[("MSS", 1400), ("Timestamp", (1, 2))]), TCP()]
)
payloads = st.binary(max_size=300)
edits = st.lists(
    st.one_of(
        st.tuples(st.just("insert_front"), st.binary(max_size=40)),
        st.tuples(st.just("insert_back"), st.binary(max_size=40)),
        st.tuples(st.just("remove_front"), st.integers(0, 60)),
        st.tuples(st.just("remove_back"), st.integers(0, 60)),
        st.tuples(st.just("change"), st.tuples(st.integers(0, 50), st.binary(max_size=40))),
        st.tuples(st.just("change_in_pieces"), st.integers(0, 255)),
    ),
    max_size=6,
)


@given(networks, transports, payloads, st.integers(0, 255), st.integers(0, 63))
def test_dscp(network: Packet, transport: Packet, payload: bytes, field: int, dscp: int) -> None:
    """As Scapy would have written it; ECN and all else is as it was, and every sum is right."""
    name = "tos" if isinstance(network, IP) else "tc"
    before, wanted = network.copy(), network.copy()
    setattr(before, name, field)
    setattr(wanted, name, dscp << 2 | field & 3)
    editor = Editor(built(before, transport, payload))
    assert editor.dscp == field >> 2
    assert editor.set_dscp(dscp) == (dscp != field >> 2)
    assert (editor.dscp, editor.seal()) == (dscp, built(wanted, transport, payload))


def test_dscp_of_what_is_not_whole() -> None:
    editor = Editor(built(IP(**V4), UDP(), b"payload")[:-3], truncated=True)
    with pytest.raises(ValueError, match="no room"):
        editor.set_dscp(9)
    assert editor.dscp == 0


def built(network: Packet, transport: Packet, payload: bytes) -> bytes:
    return raw(network.copy() / transport.copy() / Raw(payload))


def with_true_sums(data: bytes) -> bytes:
    """The packet with every length and checksum computed by Scapy."""
    packet = IP(data) if data[0] >> 4 == 4 else IPv6(data)
    for layer in (IP, UDP, TCP):
        if layer in packet:
            for name in ("chksum", "len"):
                if name in packet[layer].fields:
                    delattr(packet[layer], name)
    if IPv6 in packet:
        del packet[IPv6].plen
    return raw(packet)


def exchanged(payload: bytes, mask: int) -> bytes:
    return bytes(byte ^ at & 255 ^ mask for at, byte in enumerate(payload))


def applied(editor: Editor, payload: bytes, changes: list) -> bytes:
    """Makes the edits on both; the payload that must result."""
    for kind, value in changes:
        before = payload
        if kind == "insert_front":
            payload = value + payload
        elif kind == "insert_back":
            payload = payload + value
        elif kind == "remove_front":
            payload = payload[value:]
        elif kind == "remove_back":
            payload = payload[: len(payload) - value]
        elif kind == "change_in_pieces":
            payload = exchanged(payload, value)
        else:
            offset, data = value
            payload = payload[:offset] + data + payload[offset + len(data) :]
        size = value[0] + len(value[1]) if kind == "change" else value if kind.startswith("remove") else 0
        if size > len(before):
            with pytest.raises(ValueError):
                getattr(editor, kind)(*value) if kind == "change" else getattr(editor, kind)(value)
            payload = before
        elif kind == "change":
            editor.change(*value)
        elif kind == "change_in_pieces":
            editor.change_in_pieces(0, len(payload), value)
        else:
            getattr(editor, kind)(value)
        assert editor.payload == payload
    return payload


@given(networks, transports, payloads, edits)
def test_edits_keep_lengths_and_checksums_true(network, transport, payload, changes):
    editor = Editor(built(network, transport, payload), room_bytes=512)
    assert editor.result == "parsed"
    assert editor.payload == payload
    expected = applied(editor, payload, changes)
    sealed = editor.seal()
    assert sealed.endswith(expected)
    assert sealed == with_true_sums(sealed)


@given(networks, transports, payloads, edits)
def test_partial_checksums_are_completed(network, transport, payload, changes):
    data = bytearray(built(network, transport, payload))
    whole = Editor(bytes(data), room_bytes=512)
    offset = whole.fields["l4_offset"] + (6 if whole.fields["protocol"] == 17 else 16)
    data[offset : offset + 2] = pseudo_header_sum(bytes(data), whole.fields)
    partial = Editor(bytes(data), room_bytes=512, partial=True)
    applied(partial, payload, [("change", (0, b"")), *changes])
    sealed = partial.seal()
    assert sealed == with_true_sums(sealed)


@pytest.mark.parametrize("bounds", [(0, 10001), (0, 10000), (1, 10001), (4097, 8193)])
@pytest.mark.parametrize("twice", [False, True])
def test_a_payload_of_many_pieces(bounds, twice):
    """A checksum is kept, and one still to be computed comes out right, whatever part changes."""
    payload = bytes(at * 7 & 255 for at in range(10001))
    data = bytearray(built(IP(**V4), TCP(), payload))
    part = exchanged(payload[slice(*bounds)], 9)
    expected = payload[: bounds[0]] + (exchanged(part, 9) if twice else part) + payload[bounds[1] :]
    for partial in (False, True):
        if partial:
            data[36:38] = pseudo_header_sum(bytes(data), Editor(bytes(data)).fields)
        editor = Editor(bytes(data), partial=partial)
        for _ in range(1 + twice):
            editor.change_in_pieces(*bounds, 9)
        editor.insert_back(b"one more")
        sealed = editor.seal()
        assert sealed.endswith(expected + b"one more")
        assert sealed == with_true_sums(sealed)


def pseudo_header_sum(data: bytes, fields: dict) -> bytes:
    """What the kernel leaves in the checksum field of a packet whose sum the device is to complete."""
    addresses = data[12:20] if fields["ip_version"] == 4 else data[8:40]
    rest = struct.pack("!HH", fields["protocol"], len(data) - fields["l4_offset"])
    total = sum(struct.unpack(f"!{len(addresses + rest) // 2}H", addresses + rest))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", total)


@given(networks, transports, payloads, edits, st.integers(1, 0xFFFE))
def test_a_wrong_checksum_stays_as_wrong(network, transport, payload, changes, error):
    """The arithmetic never repairs: what was corrupt on arrival is told from good at the receiver.

    An odd number of bytes in front of the payload swaps the bytes of the error along with its words.
    """
    data = bytearray(built(network, transport, payload))
    fields = Editor(bytes(data)).fields
    offset = fields["l4_offset"] + (6 if fields["protocol"] == 17 else 16)
    right = struct.unpack_from("!H", data, offset)[0]
    wrong = (right + error) % 0xFFFF or 0xFFFF
    struct.pack_into("!H", data, offset, wrong)
    editor = Editor(bytes(data), room_bytes=512)
    applied(editor, payload, changes)
    sealed = editor.seal()
    true = with_true_sums(sealed)
    found = struct.unpack_from("!H", sealed, offset)[0]
    right = struct.unpack_from("!H", true, offset)[0]
    swapped = error >> 8 | (error & 0xFF) << 8
    assert (found - right) % 0xFFFF in (error, swapped)


@given(networks, payloads, st.binary(max_size=40))
def test_udp_without_checksum_stays_without(network, payload, more):
    data = bytearray(built(network, UDP(sport=1, dport=2), payload))
    offset = Editor(bytes(data)).fields["l4_offset"] + 6
    data[offset : offset + 2] = b"\0\0"
    editor = Editor(bytes(data))
    editor.insert_back(more)
    assert editor.seal()[offset : offset + 2] == b"\0\0"


@given(networks, transports, payloads, st.binary(max_size=80), st.binary(max_size=80))
def test_undone_edits_leave_no_trace(network, transport, payload, front, back):
    data = built(network, transport, payload)
    editor = Editor(data)
    editor.insert_front(front)
    editor.insert_back(back)
    once = editor.seal()
    again = Editor(once)
    again.remove_back(len(back))
    again.remove_front(len(front))
    assert again.seal() == data


@settings(max_examples=400)
@given(networks, transports, payloads, st.data())
def test_any_bytes_are_parsed_without_harm(network, transport, payload, data):
    """Cut and changed anywhere: an answer, and for "parsed" offsets inside the packet."""
    packet = bytearray(built(network, transport, payload))
    for _ in range(data.draw(st.integers(0, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    packet = packet[: data.draw(st.integers(0, len(packet)))]
    editor = Editor(bytes(packet))
    if editor.result == "parsed":
        fields = editor.fields
        assert 20 <= fields["l4_offset"] < fields["payload_offset"] <= fields["wire_bytes"] <= len(packet)
        assert len(editor.payload) == fields["wire_bytes"] - fields["payload_offset"]


@pytest.mark.parametrize(
    ("packet", "result"),
    [
        (b"", "short"),
        (b"\x45" + b"\0" * 18, "short"),
        (b"\x55" + b"\0" * 40, "malformed"),
        (raw(IP(**V4, proto=1) / Raw(b"12345678")), "other_protocol"),
        (raw(IP(**V4, flags="MF") / UDP() / b"123"), "fragment"),
        (raw(IP(**V4, frag=5, proto=17) / Raw(b"12345678")), "fragment"),
        (raw(IP(**V4) / UDP(len=9) / b"123"), "malformed"),
        (raw(IP(**V4) / UDP(len=12) / b"123"), "malformed"),
        (raw(IP(**V4, len=31 + 1) / UDP() / b"123"), "malformed"),
        (raw(IP(**V4, ihl=4) / UDP() / b"123"), "malformed"),
        (raw(IP(**V4) / TCP(dataofs=4) / b"123"), "malformed"),
        (raw(IP(**V4) / TCP(dataofs=15)), "short"),
        (raw(IP(**V4, proto=6) / Raw(b"123")), "short"),
        (raw(IPv6(**V6) / IPv6ExtHdrFragment(m=1) / UDP() / b"12345678"), "fragment"),
        (raw(IPv6(**V6, nh=58) / Raw(b"12345678")), "other_protocol"),
        (raw(IPv6(**V6, nh=0) / Raw(b"\x11\xff" + b"\0" * 6)), "short"),
    ],
)
def test_what_is_not_a_whole_datagram_is_refused(packet, result):
    assert Editor(packet).result == result


@pytest.mark.parametrize("count", [7, 8, 9, 200])
def test_extension_header_bombs_are_refused(count):
    packet = IPv6(**V6)
    for _ in range(count):
        packet = packet / IPv6ExtHdrDestOpt()
    result = Editor(raw(packet / UDP() / b"123")).result
    assert result == ("parsed" if count <= 8 else "too_many_headers")


def test_padding_behind_the_packet_is_trimmed():
    data = raw(IP(**V4) / UDP() / b"12345")
    editor = Editor(data + b"\0" * 13)
    assert editor.payload == b"12345"
    assert editor.seal() == data


def test_a_truncated_packet_is_looked_at_and_never_edited():
    data = raw(IP(**V4) / UDP() / Raw(bytes(100)))
    editor = Editor(data[:60], truncated=True)
    assert editor.result == "parsed"
    assert editor.fields["wire_bytes"] == len(data)
    for edit, value in (("insert_back", b"1"), ("insert_front", b"1"), ("remove_back", 1)):
        with pytest.raises(ValueError):
            getattr(editor, edit)(value)


def test_a_packet_grows_to_what_a_verdict_carries_and_no_further():
    editor = Editor(raw(IP(**V4) / UDP() / Raw(bytes(65503 - 4))), room_bytes=100)
    editor.insert_back(b"1234")
    with pytest.raises(ValueError):
        editor.insert_back(b"5")
    with pytest.raises(ValueError):
        editor.insert_front(b"5")
    assert len(editor.seal()) == 65531


def test_routing_header_keeps_the_pseudo_header_of_the_final_address():
    data = raw(IPv6(**V6) / IPv6ExtHdrRouting(addresses=["2001:db8::9"]) / UDP(sport=1, dport=2) / b"1234")
    editor = Editor(data)
    editor.insert_back(b"abc")
    sealed = editor.seal()
    assert sealed == with_true_sums(sealed)


@pytest.mark.parametrize(("identification", "expected"), [(0, 99), (77, 77)])
def test_cleared_dont_fragment_bit_needs_an_identification(identification, expected):
    editor = Editor(raw(IP(**V4, id=identification, flags="DF") / UDP() / b"1"))
    editor.insert_back(b"2")
    editor.allow_fragments(99)
    sealed = IP(editor.seal())
    assert (sealed.flags, sealed.id) == (0, expected)
    assert raw(sealed) == with_true_sums(raw(sealed))
