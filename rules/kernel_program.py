"""BPF bytecode that does what a chain does, for iptables' bpf match (xt_bpf); see kernel_chain.py.

Of a chain there is a program for each thing that can become of a packet. One answers 1 for packets that the
chain lets pass as they are, one for those that it drops, and one for each DSCP that it gives, for those that
go on with that one and came with another; each counts what it answers 1 for, and only that. Where all answer
0, the packet is for the engine, which then counts it: IPv6 with extension headers, fragments, lengths that
lie, super-packets of which the packets may fare differently, and what came in over IPv6 where that is marked.
So what is out of the ordinary is known in one place.

A super-packet that is to be cut counts as the packets in it, each with headers of its own.

The packet begins with its IP header, in LOCAL_IN as in LOCAL_OUT; what this host sends came in by no device.
Registers: r6 context, r7 where the transport header is, then the payload, r8 bytes of the packet, then of
the payload, r9 next header, then how many packets there are. Below the frame pointer: bytes of them all,
which steps have chosen it, the map's key; of chains that mark, the DSCP it came with, the one it has now, and
which steps have changed that.
"""

from collections.abc import Sequence
from typing import Literal

from layer45.rules.assembler import (
    ABOVE,
    ABOVE_CONST,
    ADD,
    ADD_CONST,
    AND_CONST,
    ATOMIC_ADD64,
    BELOW_CONST,
    BIT_CONST,
    CALL,
    DIVIDE,
    EQUAL_CONST,
    EXIT,
    JUMP,
    LEFT_CONST,
    LOAD32,
    LOAD64,
    MAP_DESCRIPTOR,
    MOVE,
    MOVE_CONST,
    MULTIPLY,
    NOT_EQUAL,
    NOT_EQUAL32_CONST,
    NOT_EQUAL_CONST,
    OR_CONST,
    PACKET8,
    PACKET8_BEHIND,
    PACKET16,
    PACKET16_BEHIND,
    PACKET32_BEHIND,
    RIGHT_CONST,
    STORE64,
    STORE_CONST32,
    STORE_CONST64,
    SUBTRACT,
    Assembler,
)
from layer45.rules.kernel_chain import (
    BEGUN_SENT,
    DROPPED,
    EGRESS_BYTES,
    EGRESS_PACKETS,
    INGRESS_BYTES,
    INGRESS_PACKETS,
    LONGEST_PAYLOAD,
    OWN_COUNTERS,
    Direction,
    KernelChain,
    Step,
)

Verdict = Literal["passes", "drops"] | int  # a number: it goes on with this DSCP, which it did not have

LENGTH, INGRESS_DEVICE, GSO_SIZE = 0, 36, 176  # of struct __sk_buff
MAP_LOOKUP_ELEMENT = 1
FRAME = 10
ALL_BYTES, CHOSEN, KEY, CAME_WITH, DSCP, CHANGED = -8, -16, -24, -32, -40, -48
PROTOCOLS = {"udp": 17, "tcp": 6}
UDP_HEADER, TCP_HEADER, IPV6_HEADER = 8, 20, 40
FRAGMENT_BITS = 0x3FFF
OTHER = "other"  # the label of what is not for this program
PIECES = ((4, PACKET32_BEHIND), (2, PACKET16_BEHIND), (1, PACKET8_BEHIND))


def program(map_descriptor: int, chain: KernelChain, verdict: Verdict, begun: bool) -> bytes:
    """Answers 1 for packets with the verdict, and counts them. begun: of flows that this host began."""
    a = Assembler()
    a.emit(MOVE, 6, 1)
    a.emit(STORE_CONST64, FRAME, at=CHOSEN)
    _network(a)
    _whole(a)
    _transport(a, chain)
    if not chain.super_packets:
        _cut(a, chain)
    if chain.dscps:
        _read_dscp(a)
    a.emit(LOAD32, 1, 6, at=INGRESS_DEVICE)
    a.emit(NOT_EQUAL_CONST, 1, at="ingress")
    _way(a, chain, "egress", verdict, map_descriptor, begun)
    a.label("ingress")
    _way(a, chain, "ingress", verdict, map_descriptor, begun)
    a.label(OTHER)
    a.emit(MOVE_CONST, 0)
    a.emit(EXIT)
    return a.code()


def _network(a: Assembler) -> None:
    """r7: where the transport header is; r8: length as the header tells it, or 0; r9: next header."""
    a.emit(PACKET8)
    a.emit(MOVE, 7, 0)
    a.emit(RIGHT_CONST, 0, constant=4)
    a.emit(EQUAL_CONST, 0, at="version4", constant=4)
    a.emit(NOT_EQUAL_CONST, 0, at=OTHER, constant=6)
    a.emit(MOVE_CONST, 7, constant=IPV6_HEADER)
    a.emit(PACKET8, constant=6)
    a.emit(MOVE, 9, 0)
    a.emit(PACKET16, constant=4)
    a.emit(MOVE, 8, 0)
    a.emit(EQUAL_CONST, 8, at="whole")
    a.emit(ADD_CONST, 8, constant=IPV6_HEADER)
    a.emit(JUMP, at="whole")
    a.label("version4")
    a.emit(AND_CONST, 7, constant=15)
    a.emit(LEFT_CONST, 7, constant=2)
    a.emit(BELOW_CONST, 7, at=OTHER, constant=20)
    a.emit(PACKET16, constant=6)
    a.emit(BIT_CONST, 0, at=OTHER, constant=FRAGMENT_BITS)
    a.emit(PACKET8, constant=9)
    a.emit(MOVE, 9, 0)
    a.emit(PACKET16, constant=2)
    a.emit(MOVE, 8, 0)


def _whole(a: Assembler) -> None:
    """r8: bytes behind the network header. A super-packet that outgrew the field has 0 there."""
    a.label("whole")
    a.emit(LOAD32, 1, 6, at=LENGTH)
    a.emit(NOT_EQUAL_CONST, 8, at="told")
    a.emit(LOAD32, 2, 6, at=GSO_SIZE)
    a.emit(EQUAL_CONST, 2, at=OTHER)
    a.emit(MOVE, 8, 1)
    a.label("told")
    a.emit(NOT_EQUAL, 8, 1, at=OTHER)
    a.emit(ABOVE, 7, 8, at=OTHER)
    a.emit(STORE64, FRAME, 8, at=ALL_BYTES)
    a.emit(SUBTRACT, 8, 7)


def _transport(a: Assembler, chain: KernelChain) -> None:
    """r7, r8: the payload and its length; r9: one packet."""
    for protocol in chain.protocols:
        a.emit(EQUAL_CONST, 9, at=protocol, constant=PROTOCOLS[protocol])
    a.emit(JUMP, at=OTHER)
    for protocol in chain.protocols:
        a.label(protocol)
        (_udp if protocol == "udp" else _tcp)(a)
    a.label("payload")
    a.emit(ADD, 7, 1)
    a.emit(SUBTRACT, 8, 1)
    a.emit(MOVE_CONST, 9, constant=1)


def _udp(a: Assembler) -> None:
    """r1: bytes of the header."""
    a.emit(BELOW_CONST, 8, at=OTHER, constant=UDP_HEADER)
    a.emit(PACKET16_BEHIND, source=7, constant=4)
    a.emit(NOT_EQUAL, 0, 8, at=OTHER)
    a.emit(MOVE_CONST, 1, constant=UDP_HEADER)
    a.emit(JUMP, at="payload")


def _tcp(a: Assembler) -> None:
    a.emit(PACKET8_BEHIND, source=7, constant=12)
    a.emit(RIGHT_CONST, 0, constant=4)
    a.emit(LEFT_CONST, 0, constant=2)
    a.emit(BELOW_CONST, 0, at=OTHER, constant=TCP_HEADER)
    a.emit(ABOVE, 0, 8, at=OTHER)
    a.emit(MOVE, 1, 0)
    a.emit(JUMP, at="payload")


def _cut(a: Assembler, chain: KernelChain) -> None:
    """r9: how many packets a super-packet is; all bytes: those of them all; r8: a payload's."""
    a.emit(LOAD32, 2, 6, at=GSO_SIZE)
    a.emit(EQUAL_CONST, 2, at="one")
    if not chain.cuts:
        a.emit(JUMP, at=OTHER)
        a.label("one")
        return
    a.emit(EQUAL_CONST, 8, at=OTHER)
    a.emit(MOVE, 9, 8)
    a.emit(ADD, 9, 2)
    a.emit(ADD_CONST, 9, constant=-1)
    a.emit(DIVIDE, 9, 2)
    a.emit(MOVE, 1, 9)
    a.emit(ADD_CONST, 1, constant=-1)
    a.emit(MULTIPLY, 1, 7)
    a.emit(LOAD64, 3, FRAME, at=ALL_BYTES)
    a.emit(ADD, 3, 1)
    a.emit(STORE64, FRAME, 3, at=ALL_BYTES)
    a.emit(MOVE, 8, 2)
    a.label("one")


def _read_dscp(a: Assembler) -> None:
    """In the first 16 bits, IPv4 has it behind version and header length, IPv6 behind the version alone."""
    a.emit(PACKET16)
    a.emit(MOVE, 1, 0)
    a.emit(RIGHT_CONST, 1, constant=12)
    a.emit(RIGHT_CONST, 0, constant=2)
    a.emit(EQUAL_CONST, 1, at="lowest", constant=4)
    a.emit(RIGHT_CONST, 0, constant=4)
    a.label("lowest")
    a.emit(AND_CONST, 0, constant=63)
    a.emit(STORE64, FRAME, 0, at=CAME_WITH)
    a.emit(STORE64, FRAME, 0, at=DSCP)
    a.emit(STORE_CONST64, FRAME, at=CHANGED)


def _only_ipv4(a: Assembler) -> None:
    """What came in over IPv6 is for the engine, where it may be marked.

    conntrack has summed it up by then, IPv6's header included, and the target DSCP does not tell the sum:
    the socket would drop the packet for it (Udp6InCsumErrors). IPv4's header sums to nothing, whatever it is.
    """
    a.emit(PACKET8)
    a.emit(RIGHT_CONST, 0, constant=4)
    a.emit(NOT_EQUAL_CONST, 0, at=OTHER, constant=4)


def _way(
    a: Assembler, chain: KernelChain, direction: Direction, verdict: Verdict, map_descriptor: int, begun: bool
) -> None:
    """The steps of a direction in their order, then what is to be counted."""
    order = 1 if direction == "egress" else -1
    steps = [(n, step) for n, step in enumerate(chain.steps) if direction in step.directions][::order]
    if direction == "ingress" and any(step.dscp is not None for _, step in steps):
        _only_ipv4(a)
    dropped = f"{direction} dropped"
    for number, step in steps:
        _step(a, step, number, f"{direction} {number}", dropped if verdict == "drops" else OTHER)
    if verdict == "drops":
        a.emit(JUMP, at=OTHER)
        if not any(step.drops for _, step in steps):
            return
        a.label(dropped)
    elif not _goes_on(a, steps, verdict):
        return
    _count(a, chain, direction, verdict, map_descriptor, begun)


def _step(a: Assembler, step: Step, number: int, name: str, dropped: str) -> None:
    """dropped: where what it drops goes. Both answers can come of it, or code behind it would be dead."""
    misses, following = f"{name} misses", f"{name} done"
    first, last = step.lengths
    a.emit(BELOW_CONST, 8, at=misses, constant=max(first, len(step.prefix)))
    if last != LONGEST_PAYLOAD:
        a.emit(ABOVE_CONST, 8, at=misses, constant=last)
    _prefix(a, step.prefix, misses)
    if step.invert:
        a.emit(JUMP, at=following)
        a.label(misses)
    a.emit(LOAD64, 1, FRAME, at=CHOSEN)
    a.emit(OR_CONST, 1, constant=1 << number)
    a.emit(STORE64, FRAME, 1, at=CHOSEN)
    if step.dscp is not None:
        _give_dscp(a, step.dscp, number, f"{name} has it")
    if step.drops:
        a.emit(JUMP, at=dropped)
    a.label(following if step.invert else misses)


def _give_dscp(a: Assembler, dscp: int, number: int, has_it: str) -> None:
    a.emit(LOAD64, 1, FRAME, at=DSCP)
    a.emit(EQUAL_CONST, 1, at=has_it, constant=dscp)
    a.emit(STORE_CONST64, FRAME, at=DSCP, constant=dscp)
    a.emit(LOAD64, 1, FRAME, at=CHANGED)
    a.emit(OR_CONST, 1, constant=1 << number)
    a.emit(STORE64, FRAME, 1, at=CHANGED)
    a.label(has_it)


def _goes_on(a: Assembler, steps: Sequence[tuple[int, Step]], verdict: Verdict) -> bool:
    """To what counts it, where it has the DSCP that the verdict is about. False: no step gives that one."""
    given = {step.dscp for _, step in steps} - {None}
    if verdict != "passes" and verdict not in given:
        a.emit(JUMP, at=OTHER)
        return False
    if given:
        a.emit(LOAD64, 1, FRAME, at=DSCP)
        a.emit(LOAD64, 2, FRAME, at=CAME_WITH)
        if verdict == "passes":
            a.emit(NOT_EQUAL, 1, 2, at=OTHER)
        else:
            a.emit(NOT_EQUAL_CONST, 1, at=OTHER, constant=int(verdict))
            a.emit(EQUAL_CONST, 2, at=OTHER, constant=int(verdict))
    return True


def _prefix(a: Assembler, prefix: bytes, misses: str) -> None:
    at = 0
    while at < len(prefix):
        count, load = next(piece for piece in PIECES if piece[0] <= len(prefix) - at)
        a.emit(load, source=7, constant=at)
        a.emit(NOT_EQUAL32_CONST, 0, at=misses, constant=int.from_bytes(prefix[at : at + count]))
        at += count


def _count(
    a: Assembler, chain: KernelChain, direction: Direction, verdict: Verdict, map_descriptor: int, begun: bool
) -> None:
    """Into the map, and the answer is 1."""
    sent = direction == "egress"
    a.emit(STORE_CONST32, FRAME, at=KEY)
    a.constant(1, map_descriptor, MAP_DESCRIPTOR)
    a.emit(MOVE, 2, FRAME)
    a.emit(ADD_CONST, 2, constant=KEY)
    a.emit(CALL, constant=MAP_LOOKUP_ELEMENT)
    a.emit(EQUAL_CONST, 0, at=OTHER)
    a.emit(LOAD64, 1, FRAME, at=ALL_BYTES)
    _add(a, EGRESS_BYTES if sent else INGRESS_BYTES, 1)
    _add(a, EGRESS_PACKETS if sent else INGRESS_PACKETS)
    if sent and begun:
        _add(a, BEGUN_SENT)
    if verdict == "drops":
        _add(a, DROPPED)
    _count_steps(a, CHOSEN, [step.counters for step in chain.steps], f"{direction} chosen")
    _count_steps(a, CHANGED, [step.changed_counters for step in chain.steps], f"{direction} changed")
    a.emit(MOVE_CONST, 0, constant=1)
    a.emit(EXIT)


def _count_steps(a: Assembler, bits: int, counters: Sequence[tuple[int, ...]], name: str) -> None:
    """bits: where those of the steps are. counters: of each step."""
    if any(counters):
        a.emit(LOAD64, 3, FRAME, at=bits)
    for number, places in enumerate(counters):
        if places:
            behind = f"{name} {number}"
            a.emit(MOVE, 1, 3)
            a.emit(AND_CONST, 1, constant=1 << number)
            a.emit(EQUAL_CONST, 1, at=behind)
            for place in places:
                _add(a, OWN_COUNTERS + place)
            a.label(behind)


def _add(a: Assembler, counter: int, register: int = 9) -> None:
    """At once for all: an interrupt may count in between."""
    a.emit(ATOMIC_ADD64, 0, register, at=8 * counter)
