"""A path that loses UDP datagrams at random, and remembers which: host b's raw PREROUTING, before any queue.

veth -> statistic -> NFLOG -> DROP          tcpdump reads the NFLOG group
            `------> mangle, queue, socket
"""

import contextlib
import struct
from collections.abc import Iterator

from tests.netns.topology import Capture, Host

GROUP = 45
CHAIN = "lost"
KEPT_BYTES = 64  # of each: IPv4 and UDP headers, and a datagram's stamp
AT_ONCE = "--nflog-threshold 1"  # or the last hundred wait for others, and seem not to have been lost
NFLOG = f"-j NFLOG --nflog-group {GROUP} --nflog-size {KEPT_BYTES} {AT_ONCE}"
HEADERS_BYTES = 28
STAMP = struct.Struct("=QQ")  # number, sent_ns: what udp_load puts first
NFULA_PAYLOAD = 9


@contextlib.contextmanager
def lossy(host: Host, share: float) -> Iterator[Capture]:
    """Datagrams for this host are lost with this probability while the context lasts; read `stamps` then."""
    chance = f"-i {host.device} -p udp -m statistic --mode random --probability {share} -j {CHAIN}"
    with host.capture(device=f"nflog:{GROUP}") as capture:
        try:
            for rule in (f"-N {CHAIN}", f"-A {CHAIN} {NFLOG}", f"-A {CHAIN} -j DROP"):
                _rule(host, rule)
            _rule(host, f"-A PREROUTING {chance}")
            yield capture
        finally:
            for rule in (f"-D PREROUTING {chance}", f"-F {CHAIN}", f"-X {CHAIN}"):
                _rule(host, rule)


def _rule(host: Host, words: str) -> None:
    host.run(["iptables", "-t", "raw", *words.split()])


def stamps(capture: Capture) -> set[tuple[int, int]]:
    """What stands where udp_load puts number and sent_ns, of every lost datagram that is long enough."""
    packets = (_attribute(frame, NFULA_PAYLOAD) for frame in _frames(capture.content))
    found = set()
    for packet in packets:
        if len(packet) >= HEADERS_BYTES + STAMP.size:
            number, sent_ns = STAMP.unpack_from(packet, HEADERS_BYTES)
            found.add((number, sent_ns))
    return found


def _frames(pcap: bytes) -> Iterator[bytes]:
    """Of a capture file in this machine's byte order."""
    at = 24
    while at + 16 <= len(pcap):
        length = struct.unpack_from("=8xI", pcap, at)[0]
        yield pcap[at + 16 : at + 16 + length]
        at += 16 + length


def _attribute(frame: bytes, wanted: int) -> bytes:
    """Of an NFLOG frame: four bytes, then length, kind and value of each attribute, padded to four bytes."""
    at = 4
    while at + 4 <= len(frame):
        length, kind = struct.unpack_from("=HH", frame, at)
        if kind == wanted:
            return frame[at + 4 : at + length]
        at += max(4, length + 3 & ~3)
    return b""
