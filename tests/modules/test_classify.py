"""classify: what the standards fix is told, what is only like it is not, and its reference says the same."""

import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layer45.fastpath.chain import Chain, ClassTable, InstanceSpec
from layer45.fastpath.worker import Worker
from layer45.modules.classify import classify

from .conftest import Passage, Road
from .spoken import DATAGRAMS, SEGMENTS, rtp
from .wire import ACK, SYN, datagram, segment

SAMPLES = [("udp", *each) for each in DATAGRAMS] + [("tcp", *each) for each in SEGMENTS]
NAMES = [f"{way} {name} {at}" for at, (way, name, _) in enumerate(SAMPLES)]
TRUNCATED, COPY_BYTES = 32, 192
PARAMETERS = (("packets", 1), ("bypass", True))
COUNTERS = (
    "packets", "bytes", "undecided", "tls", "http", "ssh", "smtp", "imap", "pop3", "mqtt", "bittorrent",
    "sip", "rtsp", "dns", "quic", "dtls", "stun", "rtp", "wireguard", "other",
)  # fmt: skip
FALSE = [
    ("tcp", b"\x16\x03\x04\x00\x10\x01" + bytes(15)),
    ("tcp", b"\x16\x03\x01\x00\x10\x0b" + bytes(15)),
    ("tcp", b"\x17\x03\x03\x48\x01\x00"),
    ("tcp", b"\x17\x03\x03\x00\x00\x00"),
    ("tcp", b"\x15\x03\x03\x00\x02\x03"),
    ("tcp", b"GET key\r\n"),
    ("tcp", b"GETS / HTTP/1.1\r\n"),
    ("tcp", b"get / HTTP/1.1\r\n"),
    ("tcp", b"CONNECT {}"),
    ("tcp", b"HTTP/2"),
    ("tcp", b"SSH-3.0-x"),
    ("tcp", b"220 mail.example ESMTP\r\n"),
    ("tcp", b"+OKAY"),
    ("tcp", b"+OK\r\n"),
    ("tcp", b"* OKAY"),
    ("tcp", b"OPTIONS sipx:"),
    ("tcp", b"AAAAAAAAAAAAAAAAA sip:a"),
    ("tcp", b"AB sip:a"),
    ("tcp", b"\x10\x80\x80\x80\x80\x00\x04MQTT"),
    ("tcp", b"\x10\x0e\x00\x05MQTTX"),
    ("tcp", b"\x13BitTorrent protoco"),
    ("tcp", b"\x00\x05" + bytes(20)),
    ("tcp", b"G"),
    ("tcp", bytes(1460)),
    ("udp", bytes(12)),
    ("udp", b"\xc0\x00\x00\x00\x03" + bytes(30)),
    ("udp", b"\xc0\x00\x00\x00\x01\x15" + bytes(30)),
    ("udp", b"\x80\x00\x00\x00\x01\x00\x00"),
    ("udp", b"\x16\xfe\xfe" + bytes(10) + b"\x00\x01\x00"),
    ("udp", b"\x16\xfe\xfd" + bytes(8) + b"\x00\x02\x00"),
    ("udp", b"\x04\x00\x00\x00" + bytes(28)),
    ("udp", b"\x01\x00\x00\x00" + bytes(143)),
    ("udp", rtp(1)),
    ("udp", b"GET / HTTP/1.1\r\n"),
]


def sent(way: str, loads: list[bytes], first: int = 1) -> list[bytes]:
    if way == "udp":
        return [datagram(each) for each in loads]
    return [segment(each, first + sum(map(len, loads[:at]))) for at, each in enumerate(loads)]


def told(
    road: Road, way: str, sequence: list[bytes], direction: str = "egress", **entry: Any
) -> dict[str, int]:
    """What is counted, the same by hot code and reference; every packet goes on as it came."""
    chain = [{"module": "classify", **entry}]
    hot = road(chain, direction, sequence, protocol=way)
    plain = road(chain, direction, sequence, protocol=way, reference=True)
    assert hot.packets == plain.packets == sequence
    assert hot.counters == plain.counters
    assert hot.engine["passed"] == len(sequence)
    return Passage.counted(hot)


@pytest.mark.parametrize(("way", "name", "loads"), SAMPLES, ids=NAMES)
def test_every_protocol_is_told_at_its_first_words(
    road: Road, way: str, name: str, loads: list[bytes]
) -> None:
    for direction in ("egress", "ingress"):
        found = told(road, way, sent(way, loads), direction)
        assert found == {"packets": len(loads), "bytes": sum(map(len, loads)), name: 1}


@pytest.mark.parametrize(("way", "load"), FALSE, ids=lambda each: repr(each)[:24])
def test_what_is_only_like_one_is_other(road: Road, way: str, load: bytes) -> None:
    assert told(road, way, sent(way, [load]), packets=1) == {"packets": 1, "bytes": len(load), "other": 1}


def test_samples_of_one_transport_say_nothing_on_the_other(road: Road) -> None:
    both = {"sip", "rtsp"}
    for way, name, loads in SAMPLES:
        other = "tcp" if way == "udp" else "udp"
        if name not in both and len(loads) == 1:
            assert told(road, other, sent(other, loads), packets=1)["other"] == 1, (way, name)


@pytest.mark.parametrize(("way", "name", "loads"), SAMPLES, ids=NAMES)
@pytest.mark.parametrize("version", [4, 6])
def test_the_copied_bytes_are_enough(
    driver: Any, way: str, name: str, loads: list[bytes], version: int
) -> None:
    """Of a long packet, with all the options that a TCP header has room for."""
    spec = InstanceSpec("classify", classify.ops, (("packets", 9), ("bypass", True)), COUNTERS)
    worker, chain = (
        Worker(),
        Chain(1, "p", [spec], transports=("udp", "tcp"), whole_payload=False, looks_only=True),
    )
    worker.publish(ClassTable([chain]))
    drive = driver.Driver(worker)
    drive.rest()
    for load in loads:
        if way == "tcp":
            packet = segment(
                load.ljust(1400, b"\0"), 1, version, options=bytes(40) if version == 4 else bytes(12)
            )
        else:
            packet = datagram(load, version)
        cut = len(packet) > COPY_BYTES
        verdict, _ = drive.process(packet[:COPY_BYTES], flags=TRUNCATED if cut else 0)
        assert verdict == 1
    found = chain.counters()["instances"][0]["counters"]
    assert (found[name], found["other"], found["undecided"]) == (1, 0, 0)
    assert found["bytes"] == sum(len(each) if way == "udp" else max(1400, len(each)) for each in loads)


def test_it_gives_up_after_so_many_packets_with_payload(road: Road) -> None:
    empty, some = b"", b"?" * 10
    loads = [empty, some, empty, some, some, some]
    assert told(road, "tcp", sent("tcp", loads), packets=3) == {"packets": 5, "bytes": 30, "other": 1}
    assert told(road, "tcp", sent("tcp", loads), packets=5) == {"packets": 6, "bytes": 40, "undecided": 1}
    assert told(road, "tcp", sent("tcp", loads), packets=3, bypass=False) == {
        "packets": 6,
        "bytes": 40,
        "other": 1,
    }
    assert told(road, "tcp", sent("tcp", [empty] * 9), packets=3) == {"packets": 9}


def test_a_later_packet_may_tell(road: Road) -> None:
    loads = [b"220 mail.example ESMTP\r\n", b"250-hi\r\n", b"EHLO example\r\n", b"more"]
    assert told(road, "tcp", sent("tcp", loads))["smtp"] == 1
    assert told(road, "tcp", sent("tcp", loads), bypass=False) == {"packets": 4, "bytes": 50, "smtp": 1}


def test_a_greeting_is_the_first_word(road: Road) -> None:
    """Later, it may be anybody's."""
    for greeting in (b"+OK ready\r\n", b"* OK ready\r\n"):
        assert "other" in told(road, "tcp", sent("tcp", [b"SET a b\r\n", greeting]), packets=2)


def test_rtp_is_two_of_one_source(road: Road) -> None:
    for pair, certain in [
        ((rtp(1), rtp(2)), True),
        ((rtp(65535), rtp(3)), True),
        ((rtp(1), rtp(17)), True),
        ((rtp(1), rtp(18)), False),
        ((rtp(1), rtp(1)), False),
        ((rtp(2), rtp(1)), False),
        ((rtp(1), rtp(2, source=7)), False),
        ((rtp(1, kind=72), rtp(2, kind=72)), False),
        ((rtp(1), rtp(2, sources=15)[:20]), False),
    ]:
        assert ("rtp" in told(road, "udp", sent("udp", list(pair)), packets=2)) == certain, pair


def test_a_connection_with_the_ports_of_another_is_decided_anew(road: Road) -> None:
    def opened(load: bytes, flags: int = SYN) -> list[bytes]:
        return [segment(b"", 1, flags=flags), segment(load, 2)]

    ssh, http = b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\r\n"
    on = {"bypass": False}
    found = told(road, "tcp", opened(ssh) + opened(http), **on)
    assert found == {"packets": 4, "bytes": 27, "ssh": 1, "http": 1}
    assert told(road, "tcp", opened(ssh) + opened(http, SYN | ACK), **on) == {
        "packets": 4,
        "bytes": 27,
        "ssh": 1,
    }


def test_flows_are_told_apart(road: Road) -> None:
    packets = [datagram(DATAGRAMS[at % 3][1][0], port=5000 + at) for at in range(9)]
    found = told(road, "udp", packets)
    assert sum(found.get(name, 0) for name, _ in DATAGRAMS[:3]) == 9


def test_every_flow_has_its_own_counters(driver: Any) -> None:
    spec = InstanceSpec("classify", classify.ops, (("packets", 2), ("bypass", True)), COUNTERS)
    worker, chain = Worker(), Chain(1, "p", [spec], transports=("tcp", "udp"), whole_payload=False)
    worker.publish(ClassTable([chain]))
    drive = driver.Driver(worker)
    drive.rest()
    drive.process(segment(b"SSH-2.0-x", 1))
    drive.process(datagram(b"?"))
    found = [each["instances"][0]["counters"] for each in worker.flows()]
    expected = [{"packets": 1, "bytes": 1, "undecided": 1}, {"packets": 1, "bytes": 9, "ssh": 1}]
    counted = ({name: value for name, value in each.items() if value} for each in found)
    assert sorted(counted, key=lambda each: each["bytes"]) == expected


alterations = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=3)


@given(
    sample=st.sampled_from(SAMPLES),
    changes=alterations,
    end=st.integers(1, 1500),
    noise=st.binary(max_size=60),
    alone=st.booleans(),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reference_does_the_same_with_whatever_comes(
    road: Road, sample: Any, changes: Any, end: int, noise: bytes, alone: bool
) -> None:
    way, _, loads = sample
    altered = []
    for load in [noise] if alone else [*loads, noise]:
        bytes_ = bytearray(load)
        for at, value in changes:
            if at < len(bytes_):
                bytes_[at] = value
        altered.append(bytes(bytes_[:end]))
    told(road, way, sent(way, altered), packets=3)


def test_short_payloads_of_every_beginning(road: Road) -> None:
    """Each sample, cut at every place that could matter: told or not, the same by both."""
    for way in ("udp", "tcp"):
        loads = [
            load[:end]
            for of, _, found in SAMPLES
            if of == way
            for load in found
            for end in range(1, min(60, len(load)))
        ]
        if way == "udp":
            packets = [
                datagram(each, port=struct.unpack("!H", struct.pack("!H", 1024 + at))[0])
                for at, each in enumerate(loads)
            ]
        else:
            packets = [each for load in loads for each in (segment(b"", 1, flags=SYN), segment(load, 2))]
        told(road, way, packets, packets=1)
