"""Captures of TCP connections through chains with streams: as they are on the wire, and as they were.

http.pcap is real: curl and Python's http.server in two network namespaces, once over IPv4 and once over IPv6,
captured at the server, whose larger segments were lost at random behind it: sent again, with SACK.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from layer45.errors import Layer45Error
from layer45.replay import Summary, replay_through

from .captures import (
    COOKED,
    COOKED2,
    ETHERNET,
    LOOP,
    NULL,
    RAW,
    SCRAMBLE,
    configure,
    linked,
    read,
    udp,
    write,
)
from .conftest import Send
from .segments import ACK, FIN, SPACE, SYN, Segment, assert_restored, segments

HTTP = Path(__file__).with_name("http.pcap")
PACKETS = 74
OF_CLIENT = '{ protocol = "tcp", remote_port = [8080] }'
OF_SERVER = '{ protocol = "tcp", local_port = [8080] }'
OF_BOTH = '{ protocol = "tcp" }'

Pair = Callable[..., tuple[Summary, Summary]]


def tags(count: int, every: int, more: str = "") -> str:
    return f'{{ module = "stream_tag", tag_bytes = {count}, every_bytes = {every}{more} }}'


LAYOUTS = {
    "prototype": (tags(32, 1000),),
    "short": (tags(1, 16),),
    "double": (tags(16, 16),),
    "odd": (tags(7, 101),),
    "two": (tags(7, 100), tags(20, 333)),
    "scrambled": (tags(32, 1000), SCRAMBLE),
    "options": ('{ module = "option_tag", id = "me" }',),
    "all options": ('{ module = "option_tag", id = "me", on = "all" }', tags(5, 300), SCRAMBLE),
    "each way its own": (tags(7, 100, ', direction = "egress"'), tags(3, 64, ', direction = "ingress"')),
}


@pytest.fixture
def pair(tmp_path: Path, send: Send) -> Pair:
    """pair(source, *instances, match=) -> summaries of the way out, wire.pcap, and of that in, back.pcap."""

    def run(source: Path, *instances: str, match: str = OF_BOTH, **keys: str) -> tuple[Summary, Summary]:
        wire, back = tmp_path / "wire.pcap", tmp_path / "back.pcap"
        out = send(source, wire, *instances, match=match, **keys)
        return out, send(wire, back, *instances, match=match, direction="ingress", **keys)

    return run


def http() -> list[Segment]:
    found = [each for each in segments(HTTP) if each]
    assert len(found) == PACKETS
    return found


@pytest.mark.parametrize("match", [OF_CLIENT, OF_SERVER, OF_BOTH])
@pytest.mark.parametrize("chain", LAYOUTS.values(), ids=LAYOUTS)
def test_a_download_comes_back(tmp_path: Path, pair: Pair, chain: tuple[str, ...], match: str) -> None:
    out, back = pair(HTTP, *chain, match=match)
    wire = tmp_path / "wire.pcap"
    assert_restored(HTTP, wire, tmp_path / "back.pcap")
    assert (out.customized, out.injected, out.dropped, back.dropped) == (PACKETS, 0, 0, 0)
    assert out.engine["connections_customized"] == back.engine["connections_customized"] == 2
    on_the_wire = [each for each in segments(wire) if each]
    assert [each.fault for each in on_the_wire] == [0] * PACKETS
    grown = [len(after.tcp) - len(before.tcp) for before, after in zip(http(), on_the_wire, strict=True)]
    assert min(grown) == 0 < max(grown)


@pytest.mark.parametrize(("count", "every"), [(32, 1000), (1, 16), (16, 16), (7, 101)])
def test_the_wire_has_the_layout(tmp_path: Path, send: Send, count: int, every: int) -> None:
    """Each number and each payload is where the layout puts it, sent for the first time or again."""
    send(HTTP, tmp_path / "wire.pcap", tags(count, every, ', id = "me", expect = "me"'), match=OF_BOTH)
    tag = b"me"[:count].ljust(count, b"\0")
    firsts: dict[bytes, int] = {}
    ends: dict[bytes, int] = {}

    def place(offset: int) -> int:
        return offset + (offset + every - 1) // every * count if offset > 0 else offset

    def number(host: bytes, value: int) -> int:
        offset = (value - firsts[host]) % SPACE
        behind = offset == ends.get(host, -2) + 1
        return (firsts[host] + place(offset - behind) + behind) % SPACE

    for was, now in zip(http(), segments(tmp_path / "wire.pcap"), strict=True):
        assert now
        if was.flags & SYN:
            firsts[was.source] = was.seq + 1
            assert (was.seq, was.ack) == (now.seq, now.ack)
            continue
        offset = was.seq - firsts[was.source]
        if was.flags & FIN:
            ends[was.source] = offset + len(was.payload)
        assert now.seq == number(was.source, was.seq)
        assert now.ack == number(was.target, was.ack)
        assert now.sack == [number(was.target, edge) for edge in was.sack]
        pieces = [
            (b"" if (offset + at) % every else tag) + was.payload[at : at + 1]
            for at in range(len(was.payload))
        ]
        assert now.payload == b"".join(pieces)


def test_the_same_input_gives_the_same_output(tmp_path: Path, send: Send) -> None:
    for name in ("one", "two"):
        send(HTTP, tmp_path / name, *LAYOUTS["two"], match=OF_BOTH)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("direction", ["egress", "ingress"])
def test_a_direction_is_that_of_the_policys_host(tmp_path: Path, send: Send, direction: str) -> None:
    """Where a policy is for both hosts, it is the one that opened the connection."""
    for match in (OF_CLIENT, OF_SERVER, OF_BOTH):
        chain = tags(4, 20, f', direction = "{direction}"')
        send(HTTP, tmp_path / "wire.pcap", chain, match=match)
        grown = {
            before.tcp[2:4] == b"\x1f\x90"  # to port 8080
            for before, after in zip(http(), segments(tmp_path / "wire.pcap"), strict=True)
            if after and len(after.payload) > len(before.payload)
        }
        assert grown == {(direction == "egress") == (match != OF_SERVER)}


def test_counters_are_those_of_the_policys_host(tmp_path: Path, pair: Pair) -> None:
    tagged, stripped = {}, {}
    for match in (OF_CLIENT, OF_SERVER):
        out, back = pair(HTTP, tags(32, 1000), match=match)
        assert out.instances == back.instances
        tagged[match] = out.instances[0]["counters"]["tags"]
        stripped[match] = out.instances[0]["counters"]["stripped"]
    assert tagged[OF_CLIENT] == stripped[OF_SERVER] == 2  # one for each request
    assert stripped[OF_CLIENT] == tagged[OF_SERVER] > 30


@pytest.mark.parametrize("match", [OF_CLIENT, OF_SERVER])
@pytest.mark.parametrize("module", ["stream_tag", "option_tag"])
def test_the_peer_has_the_identity_that_is_expected(
    tmp_path: Path, pair: Pair, module: str, match: str
) -> None:
    on = ', on = "all"' if module == "option_tag" else ""
    out, back = pair(HTTP, f'{{ module = "{module}", id = "we", expect = "they"{on} }}', match=match)
    assert (out.dropped, back.dropped) == (0, 0)
    assert out.instances[0]["counters"]["wrong_identity"] == 0
    assert_restored(HTTP, tmp_path / "wire.pcap", tmp_path / "back.pcap")
    seen = {
        (part.tcp[2:4] == b"\x1f\x90", name)
        for part in segments(tmp_path / "wire.pcap")
        for name in (b"we\0", b"they\0")
        if part and part.payload and name in part.tcp[:200]
    }
    assert seen == {(match == OF_CLIENT, b"we\0"), (match == OF_SERVER, b"they\0")}


@pytest.mark.parametrize("link", [ETHERNET, RAW, COOKED, COOKED2, NULL, LOOP])
def test_every_link_type(tmp_path: Path, pair: Pair, link: int) -> None:
    source = write(tmp_path / "in.pcap", [linked(link, each.ip + each.tcp) for each in http()], link)
    out, _ = pair(source, tags(32, 1000))
    assert out.engine["connections_customized"] == 2
    assert_restored(source, tmp_path / "wire.pcap", tmp_path / "back.pcap")


@pytest.mark.parametrize("missing", [SYN, SYN | ACK], ids=["SYN", "SYN/ACK"])
def test_a_connection_whose_start_is_missing_stays_as_it_is(tmp_path: Path, pair: Pair, missing: int) -> None:
    parts = [each for each in http() if each.flags != missing]
    source = write(tmp_path / "in.pcap", [each.link + each.ip + each.tcp for each in parts])
    out, _ = pair(source, tags(32, 1000))
    wire = zip(read(source), read(tmp_path / "wire.pcap"), strict=True)
    changed = [part.flags for part, (one, two) in zip(parts, wire, strict=True) if one != two]
    assert changed == ([] if missing == SYN else [SYN, SYN])  # an offer that nobody takes
    assert out.engine["connections_customized"] == 0
    assert out.engine["connections_alone"] == (2 if missing == SYN else 0)
    assert_restored(source, tmp_path / "wire.pcap", tmp_path / "back.pcap")


def test_other_packets_stay_as_they_are(tmp_path: Path, pair: Pair) -> None:
    others = [linked(ETHERNET, udp(b"x", dport=8080)), linked(ETHERNET, udp(b"x", 6))]
    elsewhere = [
        part.link + part.ip + part.tcp[:2] + b"\0\x50" + part.tcp[4:] for part in http() if part.flags == SYN
    ]
    source = write(tmp_path / "in.pcap", [*others, *elsewhere, *[each.frame for each in read(HTTP)]])
    out, back = pair(source, tags(32, 1000), match=OF_CLIENT)
    assert out.untouched["not_matched"] == back.untouched["not_matched"] == 4
    assert read(tmp_path / "wire.pcap")[:4] == read(source)[:4]
    assert_restored(source, tmp_path / "wire.pcap", tmp_path / "back.pcap")


@pytest.mark.parametrize("snaplen", [94, 200])
def test_what_was_not_captured_whole_stays_as_it_is(tmp_path: Path, pair: Pair, snaplen: int) -> None:
    """The rest of its connection is customized all the same, if its SYNs are whole."""
    cut = [replace(each, frame=each.frame[:snaplen]) for each in read(HTTP)]
    truncated = [len(each.frame) < each.len for each in cut]
    source = write(tmp_path / "in.pcap", cut, snaplen=snaplen)
    out, back = pair(source, tags(32, 1000))
    assert out.untouched["truncated"] == back.untouched["truncated"] == sum(truncated) > 20
    wire = read(tmp_path / "wire.pcap")
    assert [one.frame == two.frame for one, two in zip(cut, wire, strict=True)] == truncated
    assert_restored(source, tmp_path / "wire.pcap", tmp_path / "back.pcap")


def test_what_outgrows_a_packet_goes_on_in_pieces_behind_it(tmp_path: Path, pair: Pair) -> None:
    """A super-packet of 64 KB, as a host's own capture has them."""
    opening, request = http()[:3], http()[3]
    payload = bytes(range(256)) * 240
    tcp = bytearray(request.tcp[:32] + payload)
    tcp[16:18] = bytes(2)
    big = replace(request, ip=request.ip[:2] + (20 + len(tcp)).to_bytes(2) + request.ip[4:], tcp=bytes(tcp))
    tcp[16:18] = (0xFFFF - big.fault).to_bytes(2)
    frames = [each.link + each.ip + each.tcp for each in (*opening, replace(big, tcp=bytes(tcp)))]
    out, back = pair(write(tmp_path / "in.pcap", frames, snaplen=100_000), tags(16, 100))
    wire, after = (
        [each for each in segments(tmp_path / name) if each] for name in ("wire.pcap", "back.pcap")
    )
    assert out.injected == len(wire) - 4 > 0
    assert (out.dropped, back.dropped, back.injected) == (0, 0, 0)
    assert [each.fault for each in (*wire, *after)] == [0] * (len(wire) + len(after))
    assert b"".join(each.payload for each in after) == payload
    ends = [each.seq + len(each.payload) for each in after[3:]]
    assert [each.seq for each in after[4:]] == ends[:-1]


def test_held_packets_are_learned_when_they_leave(tmp_path: Path, pair: Pair) -> None:
    late = '{ module = "impair", delay_ms = 3, direction = "egress" }'
    out, _ = pair(HTTP, tags(32, 1000), late, match=OF_SERVER)
    assert out.engine["connections_customized"] == 2
    times = [sorted(each.time_ns for each in read(path)) for path in (HTTP, tmp_path / "back.pcap")]
    assert 0 < sum(times[1]) - sum(times[0]) < 3_000_000 * PACKETS  # only the server's
    by_host = {
        path: {
            host: [each.payload for each in segments(path) if each and each.source == host] for host in HOSTS
        }
        for path in (HTTP, tmp_path / "back.pcap")
    }
    assert by_host[HTTP] == by_host[tmp_path / "back.pcap"]


HOSTS = {each.source for each in segments(HTTP) if each}


def test_a_table_that_is_full(tmp_path: Path, send: Send) -> None:
    """Of the two connections one is evicted at both ends: what goes on of it is left alone."""
    frames = [each.frame for each in read(HTTP)]
    parts = http()
    six = next(at for at, each in enumerate(parts) if each.ip[0] >> 4 == 6)
    source = write(tmp_path / "in.pcap", [*frames[:10], *frames[six:], *frames[10:six]])
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "layer45.toml").write_text("max_flows = 1\n")
    summary = send(source, tmp_path / "wire.pcap", tags(32, 1000), match=OF_BOTH)
    assert summary.engine["flows_evicted"] == 2
    assert (summary.engine["connections_customized"], summary.engine["connections_unseen"]) == (2, 1)
    left = read(tmp_path / "wire.pcap")[10 + len(frames) - six :]
    assert [each.frame for each in left] == frames[10:six]


def test_a_network_between_is_refused(tmp_path: Path) -> None:
    config = configure(tmp_path / "config", tags(32, 1000), match=OF_BOTH)
    target = tmp_path / "out.pcap"
    with pytest.raises(Layer45Error, match="--through: policy bench changes TCP streams") as caught:
        replay_through(config, "bench", ["impair loss_percent=5"], HTTP, target)
    assert "\n" not in str(caught.value)
    assert not target.exists()
