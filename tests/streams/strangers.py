"""Packets that others send into a good connection: no TCP would believe them, an engine may.

A stranger knows the connection well: all numbers are made from a packet that really arrived last.
"""

from collections.abc import Callable
from random import Random

from .network import Network
from .packets import ACK, FIN, MODULUS, PSH, RST, SYN, URG, Packet, experiment, parse

FAR = 1 << 21  # more than any window of these tests

LIES = (
    b"\x05\xff\x01\x01",
    b"\xfd\x00\x00\x00",
    b"\xfd\x08\x4c\x45",
    b"\x05\x0a\x00\x00\x00\x01\x00\x00\x00\x09\x01\x01",
    b"\x05\x06\x00\x00\x00\x01\x01\x01",
    b"\x02\x00\x03\x01",
    b"\x01\x01\x01\xfd",
)


def anything(packet: Packet, random: Random) -> Packet:
    """Random numbers; what is no RST, SYN or ACK is dropped unseen."""
    return packet.but(
        seq=far(packet.seq, random),
        ack=random.getrandbits(32),
        flags=random.choice([ACK, ACK | FIN, ACK | PSH, RST, RST | ACK, ACK | URG, 0, 255 & ~SYN]),
        window=random.getrandbits(16),
        urgent=random.getrandbits(16),
        payload=random.randbytes(random.randint(0, 60)),
    )


def fin_of_bad_acknowledgement(packet: Packet, random: Random) -> Packet:
    """In the window, so that only its acknowledgement betrays it."""
    seq = packet.seq + random.randint(-3, 40)
    payload = random.randbytes(random.choice([0, 0, 3]))
    ack = packet.ack + random.randint(FAR, (MODULUS >> 1) - FAR)  # of what will be sent, perhaps
    return packet.but(seq=seq, ack=ack % MODULUS, flags=ACK | FIN, payload=payload)


def acknowledgement_of_nothing(packet: Packet, random: Random) -> Packet:
    """Of bytes never sent, with a window and SACK blocks to match.

    No FIN: where windows are wide, a number far back is an old acknowledgement (RFC 5961, section 5.2), and a
    FIN in the window then ends the stream.
    """
    blocks = b"".join(random.getrandbits(32).to_bytes(4) for _ in range(4))
    return packet.but(
        ack=far(packet.ack, random),
        flags=packet.flags & ~FIN,
        window=0xFFFF,
        payload=b"",
        options=b"\x01\x01\x05\x12" + blocks,
    )


def outside_the_window(packet: Packet, random: Random) -> Packet:
    flags = random.choice([ACK, ACK | FIN, RST, RST | ACK, ACK | URG])
    return packet.but(seq=far(packet.seq, random), flags=flags, payload=random.randbytes(20))


def other_bytes_again(packet: Packet, random: Random) -> Packet:
    """A segment once more, its bytes others: what was received stays."""
    count = len(packet.payload)
    return packet.but(payload=random.randbytes(count)) if count else outside_the_window(packet, random)


def reset(packet: Packet, random: Random) -> Packet:
    """Near, but not at the very byte that is waited for (RFC 5961)."""
    return packet.but(seq=packet.seq - random.randint(70_000, FAR), flags=random.choice([RST, RST | ACK]))


def opening(packet: Packet, random: Random) -> Packet:
    """A SYN or a SYN/ACK, with or without an offer that fits."""
    options = random.choice(
        [b"", experiment((0x1234, 0xABCD)), experiment((0xABCD, 0x1234)), experiment((1, 2))]
    )
    return packet.but(
        seq=random.choice([random.getrandbits(32), packet.seq - 1]),
        ack=random.choice([random.getrandbits(32), far(packet.ack, random)]),
        flags=random.choice([SYN, SYN | ACK]),
        options=options,
        payload=random.randbytes(random.choice([0, 0, 30])),
    )


def liar(packet: Packet, random: Random) -> Packet:
    """Options that lie about their length, on a segment that acknowledges nothing new."""
    return packet.but(seq=far(packet.seq, random), options=random.choice(LIES))


def far(number: int, random: Random) -> int:
    """On the other side of what any window reaches."""
    return (number + random.choice([1, -1]) * random.randint(FAR, (MODULUS >> 1) - FAR)) % MODULUS


TRICKS: dict[str, Callable[[Packet, Random], Packet]] = {
    each.__name__: each
    for each in (
        anything,
        fin_of_bad_acknowledgement,
        acknowledgement_of_nothing,
        outside_the_window,
        other_bytes_again,
        reset,
        opening,
        liar,
    )
}


def stranger(tricks: list[str], probability: float) -> Callable[[Network, int], bytes | None]:
    """What a Network asks with each step; silent until both ends have opened."""

    def send(network: Network, side: int) -> bytes | None:
        last = parse(network.last[side]) if network.last[side] else None
        if last is None or last.flags & (SYN | RST) or network.random.random() > probability:
            return None
        return TRICKS[network.random.choice(tricks)](last, network.random).build()

    return send
