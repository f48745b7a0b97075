"""Fragments of our own, put together again by Scapy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, IPOption_RR, defragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, PadN, defragment6
from scapy.packet import Raw, raw

from layer45.fastpath.fragment import fragments
from layer45.fastpath.packet import Editor

V4 = IP(src="192.0.2.1", dst="192.0.2.2", id=77)
V4_OPTIONS = IP(src="192.0.2.1", dst="192.0.2.2", options=[IPOption_RR(routers=["1.2.3.4"])])
V6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
V6_HOP = V6 / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 12)])


def cut(packet, mtu, identification=99):
    data = raw(packet)
    return data, fragments(data, Editor(data).fields["l4_offset"], mtu, identification)


@given(st.sampled_from([V4, V4_OPTIONS]), st.binary(min_size=1, max_size=4000), st.integers(100, 1500))
def test_ipv4_fragments_make_the_datagram(network, payload, mtu):
    data, pieces = cut(network / UDP(sport=1, dport=2) / Raw(payload), mtu)
    assert all(len(piece) <= mtu for piece in pieces)
    for piece in pieces:
        again = IP(piece)
        del again.chksum
        assert raw(again) == piece
    whole = defragment([IP(piece) for piece in pieces])[0]
    assert bytes(whole.payload) == data[network.copy().__class__(data).ihl * 4 :]
    assert {IP(piece).id for piece in pieces} == {IP(data).id or 99}


@given(st.sampled_from([V6, V6_HOP]), st.binary(min_size=1, max_size=4000), st.integers(1280, 1500))
def test_ipv6_fragments_make_the_datagram(network, payload, mtu):
    data, pieces = cut(network / UDP(sport=1, dport=2) / Raw(payload), mtu)
    assert all(len(piece) <= mtu for piece in pieces)
    found = [IPv6(piece) for piece in pieces]
    assert {piece[IPv6ExtHdrFragment].id for piece in found} == {99}
    assert [piece[IPv6ExtHdrFragment].m for piece in found] == [1] * (len(found) - 1) + [0]
    assert bytes(defragment6(found)[UDP]) == bytes(IPv6(data)[UDP])


@pytest.mark.parametrize(("packet", "mtu"), [(V4.__class__(bytes(V4)), 24), (V4, 27)])
def test_an_mtu_that_leaves_no_room_is_refused(packet, mtu):
    with pytest.raises(ValueError):
        cut(packet / UDP() / Raw(bytes(100)), mtu)


def test_a_packet_that_must_not_be_cut_is_not():
    packet = IP(src="192.0.2.1", dst="192.0.2.2", flags="DF") / UDP() / Raw(bytes(3000))
    with pytest.raises(ValueError):
        cut(packet, 1500)
