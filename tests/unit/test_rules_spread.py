"""The worker hash: bytecode equals the plain-Python reference, and both directions of a flow meet."""

from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layer45.rules.spread import (
    MAX_INSTRUCTIONS,
    Instruction,
    as_text,
    bytecode,
    bytecode_of_errors,
    worker_of,
)

ports = st.integers(0, 0xFFFF)
workers = st.integers(2, 64)
v4 = st.integers(0, 2**32 - 1).map(IPv4Address)
v6 = st.integers(0, 2**128 - 1).map(IPv6Address)
ENDS = {4: v4, 6: v6}
EXTENSIONS = (0, 43, 60)
Maker = Callable[[int, int, int], list[Instruction]]
ROUTER = {4: IPv4Address("192.0.2.1"), 6: IPv6Address("2001:db8::1")}
makers = pytest.mark.parametrize("made", [bytecode, bytecode_of_errors])


def run(program: list[Instruction], packet: bytes) -> int:
    """Classic BPF, as the kernel runs it: a load behind the packet's end is a return of 0."""
    a = x = place = 0
    memory = [0] * 16
    while True:
        code, yes, no, k = program[place]
        place += 1
        match code:
            case 0x20 | 0x30 | 0x40 | 0x50:
                start, size = k + (x if code & 0x40 else 0), 1 if code & 0x10 else 4
                if start + size > len(packet):
                    return 0
                a = int.from_bytes(packet[start : start + size], "big")
            case 0xB1:
                x = (packet[k] & 15) * 4
            case 0x60:
                a = memory[k]
            case 0x61:
                x = memory[k]
            case 0x02:
                memory[k] = a
            case 0x01:
                x = k
            case 0x07:
                x = a
            case 0x04 | 0x0C:
                a = a + (x if code & 8 else k) & 0xFFFFFFFF
            case 0x24:
                a = a * k & 0xFFFFFFFF
            case 0x54:
                a &= k
            case 0x64:
                a = a << k & 0xFFFFFFFF
            case 0x74:
                a >>= k
            case 0x94:
                a %= k
            case 0xAC:
                a ^= x
            case 0x15:
                place += yes if a == k else no
            case 0x25:
                place += yes if a > k else no
            case 0x06:
                return k
            case _:
                raise AssertionError(f"code {code:#x}")


def chosen(family: int, packet: bytes, count: int, made: Maker = bytecode) -> int:
    """The first worker whose rule matches; the last has no condition."""
    for worker in range(count - 1):
        if run(made(family, worker, count), packet):
            return worker
    return count - 1


def ipv4(source: IPv4Address, destination: IPv4Address, transport: bytes, options: int = 0) -> bytes:
    head = bytes([0x45 + options, *[0] * 8, 17, 0, 0])
    return head + source.packed + destination.packed + bytes(4 * options) + transport


def ipv6(source: IPv6Address, destination: IPv6Address, transport: bytes, last: int = 17,
         extensions: tuple[tuple[int, int], ...] = ()) -> bytes:  # fmt: skip
    kinds = [*(kind for kind, _ in extensions), last]
    body = b"".join(bytes([after, units]) + bytes(8 * units + 6)
                    for after, (_, units) in zip(kinds[1:], extensions, strict=True))  # fmt: skip
    return bytes(6) + bytes([kinds[0], 64]) + source.packed + destination.packed + body + transport


@given(v4, v4, ports, ports, workers, st.integers(0, 10))
def test_ipv4_bytecode_is_the_reference(
    a: IPv4Address, b: IPv4Address, p: int, q: int, n: int, o: int
) -> None:
    packet = ipv4(a, b, p.to_bytes(2, "big") + q.to_bytes(2, "big") + bytes(4), o)
    assert chosen(4, packet, n) == worker_of(a, b, p, q, n)
    for options in (0, 1, 10):
        error = ipv4(ROUTER[4], a, bytes(8) + packet, options)
        assert chosen(4, error, n, bytecode_of_errors) == worker_of(a, b, p, q, n)


@settings(max_examples=300)
@given(v6, v6, ports, ports, workers, st.sampled_from([6, 17]), st.data())
def test_ipv6_bytecode_is_the_reference_behind_extension_headers(
    a: IPv6Address, b: IPv6Address, p: int, q: int, n: int, last: int, data: st.DataObject
) -> None:
    hop = data.draw(st.sampled_from([(), ((0, 0),), ((0, 3),)]))
    more = data.draw(
        st.lists(st.tuples(st.sampled_from([43, 60]), st.integers(0, 20)), max_size=3 - len(hop))
    )
    packet = ipv6(a, b, p.to_bytes(2, "big") + q.to_bytes(2, "big") + bytes(4), last, (*hop, *more))
    assert chosen(6, packet, n) == worker_of(a, b, p, q, n)
    error = ipv6(ROUTER[6], a, bytes(8) + packet, 58)
    assert chosen(6, error, n, bytecode_of_errors) == worker_of(a, b, p, q, n)


@pytest.mark.parametrize("family", [4, 6])
@given(data=st.data())
def test_both_directions_meet(family: int, data: st.DataObject) -> None:
    a, b = data.draw(ENDS[family]), data.draw(ENDS[family])
    p, q, n = data.draw(ports), data.draw(ports), data.draw(workers)
    assert worker_of(a, b, p, q, n) == worker_of(b, a, q, p, n) < n


@makers
@pytest.mark.parametrize("family", [4, 6])
@given(packet=st.binary(max_size=160), n=workers)
def test_any_bytes_have_a_worker(family: int, made: Maker, packet: bytes, n: int) -> None:
    assert 0 <= chosen(family, bytes([family << 4]) + packet, n, made) < n


def test_packet_too_short_for_ports_goes_to_the_last_worker() -> None:
    assert chosen(4, ipv4(IPv4Address(1), IPv4Address(2), b"\0\1"), 5) == 4
    assert chosen(6, ipv6(IPv6Address(1), IPv6Address(2), b"\0\1"), 5) == 4


@makers
@pytest.mark.parametrize("family", [4, 6])
def test_program_fits_the_match(family: int, made: Maker) -> None:
    program = made(family, 63, 64)
    assert len(program) <= MAX_INSTRUCTIONS
    assert all(place + 1 + max(i[1], i[2]) < len(program) for place, i in enumerate(program) if i[0] & 7 == 5)
    assert as_text([(6, 0, 0, 1), (21, 1, 2, 3)]) == "2,6 0 0 1,21 1 2 3"


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_flows_of_one_pair_of_hosts_are_spread_evenly(count: int) -> None:
    """A client's ports to one server port, as they come: no worker gets half or double its share."""
    a, b = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")
    found = Counter(worker_of(a, b, port, 5004, count) for port in range(32768, 34768))
    assert len(found) == count
    assert all(0.5 < flows * count / 2000 < 2 for flows in found.values())


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_hosts_behind_one_port_pair_are_spread_evenly(count: int) -> None:
    b = IPv4Address("10.0.0.2")
    found = Counter(worker_of(IPv4Address("10.1.0.0") + i, b, 5004, 5004, count) for i in range(2000))
    assert all(0.5 < found[worker] * count / 2000 < 2 for worker in range(count))
