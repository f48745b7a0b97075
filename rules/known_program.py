"""BPF bytecode that asks the map of known connections about a TCP packet; for iptables' bpf match (xt_bpf).

The key is that of the engine's flow table, as far as it is the same for all classes: local and remote address
(IPv4 as ::ffff:a.b.c.d), local and remote port, in network order. The value is the class, and a bit that says
that both ends have agreed, so that no packet of the connection may pass as it is.

The packet begins with its IP header, in LOCAL_IN as in LOCAL_OUT. IPv4 options are skipped; in IPv6, up to
three extension headers are. Direction "error" is the ICMP error about a packet that went out: that one is
asked for. Registers: r6 packet, r7 where the transport header is, r8 next header, r9 where the IP header is
that is asked for. Below the frame pointer: the key, and scratch space.
"""

from layer45.rules.assembler import (
    ADD,
    ADD_CONST,
    AND_CONST,
    CALL,
    EQUAL_CONST,
    EXIT,
    JUMP,
    LEFT_CONST,
    LOAD8,
    LOAD16,
    LOAD32,
    MAP_DESCRIPTOR,
    MOVE,
    MOVE_CONST,
    NOT_EQUAL_CONST,
    RIGHT_CONST,
    STORE16,
    STORE32,
    STORE_CONST32,
    Assembler,
)

KEY_BYTES, VALUE_BYTES = 36, 4
CLASS_MASK = 0xFFFF  # of a value
CUSTOMIZED = 0x80000000
DIRECTIONS = ("out", "in")
ERROR = "error"

MAP_LOOKUP_ELEMENT, SKB_LOAD_BYTES = 1, 26  # helper functions
FRAME = 10  # the register of the frame pointer
KEY, SCRATCH = -40, -48
LOCAL, REMOTE, LOCAL_PORT, REMOTE_PORT = KEY, KEY + 16, KEY + 32, KEY + 34
TCP, EXTENSION_HEADERS, STEPS = 6, (0, 43, 60), 3  # hop-by-hop, routing, destination options
ICMPV6, ICMP_BYTES = 58, 8
ERRORS = {4: (3, 11, 12), 6: (1, 2, 3, 4)}  # types
MAPPED_BE = 0xFFFF0000  # as a little-endian word: 00 00 ff ff


def known(map_descriptor: int, direction: str) -> bytes:
    """Matches packets of all connections in the map. direction: "out", "in" or "error"."""
    a = _found(map_descriptor, direction)
    a.emit(MOVE_CONST, 0, constant=1)
    return _ended(a)


def of_block(map_descriptor: int, direction: str, first: int, last: int) -> bytes:
    """Matches those of the classes first .. last, which are a block: 2^n, the first a multiple of 2^n."""
    a = _found(map_descriptor, direction)
    a.emit(LOAD32, 1, 0)
    a.emit(AND_CONST, 1, constant=CLASS_MASK & ~(last - first))
    a.emit(NOT_EQUAL_CONST, 1, at="none", constant=first)
    a.emit(MOVE_CONST, 0, constant=1)
    return _ended(a)


def customized(map_descriptor: int, direction: str) -> bytes:
    """Matches those that must not pass as they are."""
    a = _found(map_descriptor, direction)
    a.emit(LOAD32, 0, 0)
    a.emit(RIGHT_CONST, 0, constant=31)
    return _ended(a)


def _found(map_descriptor: int, direction: str) -> Assembler:
    """r0: the connection's value."""
    a = Assembler()
    a.emit(MOVE, 6, 1)
    a.emit(MOVE_CONST, 9)
    if direction == ERROR:
        _quoted(a)
    _version(a, "version4")
    _version6(a, direction)
    a.emit(JUMP, at="ports")
    a.label("version4")
    _version4(a, direction)
    a.label("ports")
    _ports(a, direction)
    a.constant(1, map_descriptor, MAP_DESCRIPTOR)
    _address(a, 2, KEY)
    a.emit(CALL, constant=MAP_LOOKUP_ELEMENT)
    a.emit(EQUAL_CONST, 0, at="none")
    return a


def _ended(a: Assembler) -> bytes:
    a.emit(EXIT)
    a.label("none")
    a.emit(MOVE_CONST, 0)
    a.emit(EXIT)
    return a.code()


def _version(a: Assembler, at4: str) -> None:
    """r7: version and IPv4 header length; r8: next header of IPv6. IPv4 goes on at the label."""
    _load(a, 0, SCRATCH, 8)
    a.emit(LOAD8, 7, FRAME, at=SCRATCH)
    a.emit(LOAD8, 8, FRAME, at=SCRATCH + 6)
    a.emit(MOVE, 1, 7)
    a.emit(RIGHT_CONST, 1, constant=4)
    a.emit(EQUAL_CONST, 1, at=at4, constant=4)


def _quoted(a: Assembler) -> None:
    """From the ICMP packet on to the one that it is about. Nothing stands in front of ICMPv6, as a rule."""
    _version(a, "icmp4")
    a.emit(NOT_EQUAL_CONST, 8, at="none", constant=ICMPV6)
    a.emit(MOVE_CONST, 9, constant=40)
    _error(a, 6)
    a.label("icmp4")
    a.emit(MOVE, 9, 7)
    _header_bytes4(a, 9)
    _error(a, 4)
    a.label("quoted")
    a.emit(ADD_CONST, 9, constant=ICMP_BYTES)


def _error(a: Assembler, family: int) -> None:
    _load(a, 0, SCRATCH, 1)
    a.emit(LOAD8, 1, FRAME, at=SCRATCH)
    for kind in ERRORS[family]:
        a.emit(EQUAL_CONST, 1, at="quoted", constant=kind)
    a.emit(JUMP, at="none")


def _version4(a: Assembler, direction: str) -> None:
    if direction == ERROR:  # else, a rule has seen to it
        _load(a, 9, SCRATCH, 1)
        a.emit(LOAD8, 1, FRAME, at=SCRATCH)
        a.emit(NOT_EQUAL_CONST, 1, at="none", constant=TCP)
    _load(a, 12, SCRATCH, 8)
    for place, offset in zip((LOCAL, REMOTE), (4, 0) if direction == "in" else (0, 4), strict=True):
        a.emit(STORE_CONST32, FRAME, at=place)
        a.emit(STORE_CONST32, FRAME, at=place + 4)
        a.emit(STORE_CONST32, FRAME, at=place + 8, constant=MAPPED_BE)
        a.emit(LOAD32, 1, FRAME, at=SCRATCH + offset)
        a.emit(STORE32, FRAME, 1, at=place + 12)
    _header_bytes4(a, 7)
    a.emit(ADD, 7, 9)


def _header_bytes4(a: Assembler, register: int) -> None:
    a.emit(AND_CONST, register, constant=15)
    a.emit(LEFT_CONST, register, constant=2)


def _version6(a: Assembler, direction: str) -> None:
    if direction == "in":
        _load(a, 8, REMOTE, 16)
        _load(a, 24, LOCAL, 16)
    else:
        _load(a, 8, LOCAL, 32)  # both addresses in the key's order
    a.emit(MOVE, 7, 9)
    a.emit(ADD_CONST, 7, constant=40)
    for step in range(STEPS):
        a.emit(EQUAL_CONST, 8, at="ports", constant=TCP)
        for kind in EXTENSION_HEADERS:
            a.emit(EQUAL_CONST, 8, at=f"header{step}", constant=kind)
        a.emit(JUMP, at="none")
        a.label(f"header{step}")
        _step(a)
    a.emit(NOT_EQUAL_CONST, 8, at="none", constant=TCP)


def _step(a: Assembler) -> None:
    """Over one extension header: its next header, and its length in units of 8 behind the first 8 bytes."""
    _load(a, 0, SCRATCH, 2, base=7)
    a.emit(LOAD8, 8, FRAME, at=SCRATCH)
    a.emit(LOAD8, 1, FRAME, at=SCRATCH + 1)
    a.emit(LEFT_CONST, 1, constant=3)
    a.emit(ADD_CONST, 1, constant=8)
    a.emit(ADD, 7, 1)


def _ports(a: Assembler, direction: str) -> None:
    if direction != "in":
        _load(a, 0, LOCAL_PORT, 4, base=7)
        return
    _load(a, 0, SCRATCH, 4, base=7)
    for place, offset in ((REMOTE_PORT, 0), (LOCAL_PORT, 2)):
        a.emit(LOAD16, 1, FRAME, at=SCRATCH + offset)
        a.emit(STORE16, FRAME, 1, at=place)


def _load(a: Assembler, offset: int, place: int, count: int, base: int = 9) -> None:
    """Bytes of the packet onto the stack, or no match. base: the register from whose value offset counts."""
    a.emit(MOVE, 1, 6)
    a.emit(MOVE, 2, base)
    a.emit(ADD_CONST, 2, constant=offset)
    _address(a, 3, place)
    a.emit(MOVE_CONST, 4, constant=count)
    a.emit(CALL, constant=SKB_LOAD_BYTES)
    a.emit(NOT_EQUAL_CONST, 0, at="none")


def _address(a: Assembler, register: int, place: int) -> None:
    a.emit(MOVE, register, FRAME)
    a.emit(ADD_CONST, register, constant=place)
