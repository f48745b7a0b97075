"""Layouts as plain Python: what a stream module declares, and the maps that follow from it."""

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from math import isqrt


@dataclass(frozen=True)
class Layout:
    """Nothing is inserted, nothing changed."""

    def inserted(self, offset: int) -> int:
        """Bytes in front of stream bytes [0, offset)."""
        return 0

    def run(self, offset: int) -> bytes:
        """What is inserted in front of a byte."""
        count = self.inserted(offset + 1) - self.inserted(offset)
        return bytes((offset * 7 + at * 13 + 0xA5) & 0xFF for at in range(count))

    def change(self, direction: int, offset: int, content: bytes) -> bytes:
        return content

    @property
    def growth(self) -> tuple[int, int]:
        """(bytes, every): so many are inserted at most for each begun `every`."""
        return 0, 0

    @property
    def parameters(self) -> tuple[int, int, int, int, int]:
        """Of shapes.pyx: kind, t, n, change, key."""
        return 0, 0, 1, 0, 0


@dataclass(frozen=True)
class Periodic(Layout):
    """t bytes in front of every n."""

    t: int
    n: int

    def inserted(self, offset: int) -> int:
        return self.t * -(-offset // self.n)

    @property
    def growth(self) -> tuple[int, int]:
        return self.t, self.n

    @property
    def parameters(self) -> tuple[int, int, int, int, int]:
        return 0, self.t, self.n, 0, 0


@dataclass(frozen=True)
class Scattered(Layout):
    """t bytes somewhere in each n: in front of a byte that a hash chooses."""

    t: int
    n: int

    def inserted(self, offset: int) -> int:
        block, rest = divmod(offset, self.n)
        return self.t * (block + (rest > (block * 0x9E3779B97F4A7C15 % (1 << 64) >> 32) % self.n))

    @property
    def growth(self) -> tuple[int, int]:
        return 2 * self.t, self.n

    @property
    def parameters(self) -> tuple[int, int, int, int, int]:
        return 1, self.t, self.n, 0, 0


@dataclass(frozen=True)
class Roots(Layout):
    """t bytes in front of every byte that stands behind a square number, so ever more seldom."""

    t: int

    def inserted(self, offset: int) -> int:
        return self.t * (isqrt(offset - 1) + 1) if offset else 0

    @property
    def growth(self) -> tuple[int, int]:
        return self.t, 1

    @property
    def parameters(self) -> tuple[int, int, int, int, int]:
        return 2, self.t, 1, 0, 0


@dataclass(frozen=True)
class Primes(Layout):
    """t bytes in front of every byte whose offset is a prime number; of small offsets only."""

    t: int
    limit: int = 200_000

    @cached_property
    def primes(self) -> list[int]:
        sieve = bytearray([1]) * self.limit
        for at in range(2, isqrt(self.limit) + 1):
            if sieve[at]:
                sieve[at * at :: at] = bytes(len(range(at * at, self.limit, at)))
        return [at for at in range(2, self.limit) if sieve[at]]

    def inserted(self, offset: int) -> int:
        return self.t * bisect_left(self.primes, offset)

    @property
    def growth(self) -> tuple[int, int]:
        return self.t, 1

    @property
    def parameters(self) -> tuple[int, int, int, int, int]:
        return 3, self.t, 1, 0, 0


@dataclass(frozen=True)
class Masked(Layout):
    """Nothing inserted; each byte changed by its offset."""

    key: int = 0x5A

    @property
    def parameters(self) -> tuple[int, int, int, int, int]:
        return 0, 0, 1, 1, self.key

    def change(self, direction: int, offset: int, content: bytes) -> bytes:
        return bytes(
            byte ^ (offset + at + self.key) & 0xFF if offset + at >= 0 else byte
            for at, byte in enumerate(content)
        )


@dataclass(frozen=True)
class Shifted(Periodic):
    """As Periodic, and each byte plus its offset: an in-place change whose inverse is another one."""

    @property
    def parameters(self) -> tuple[int, int, int, int, int]:
        return 0, self.t, self.n, 2, 0

    def change(self, direction: int, offset: int, content: bytes) -> bytes:
        sign = -1 if direction else 1
        return bytes(
            (byte + sign * (offset + at)) & 0xFF if offset + at >= 0 else byte
            for at, byte in enumerate(content)
        )


class StreamMap:
    """Between the offsets of a stream and of the wire, of one direction. fin: where it is known to end."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.fin: int | None = None

    def wire(self, offset: int) -> int:
        """W: where the run in front of a byte begins."""
        return offset + self.layout.inserted(offset) if offset > 0 else offset

    def place(self, offset: int) -> int:
        """P: where a byte itself is."""
        return self.wire(offset + 1) - 1

    def stream(self, wire: int) -> int:
        """The largest offset whose W is not behind wire; the smallest whose P is not in front of it."""
        low, high = min(wire, 0), wire
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.wire(middle) <= wire else (low, middle - 1)
        return low

    def wire_number(self, offset: int) -> int:
        """As wire, but behind a FIN, which takes one number of the sequence space and no run."""
        if self.fin is not None and offset == self.fin + 1:
            return self.wire(self.fin) + 1
        return self.wire(offset)

    def stream_number(self, wire: int) -> int:
        if self.fin is not None and wire == self.wire(self.fin) + 1:
            return self.fin + 1
        return self.stream(wire)

    def expand(self, offset: int, content: bytes) -> bytes:
        """Stream bytes as they are on the wire."""
        changed = self.layout.change(0, offset, content)
        parts = []
        for at in range(len(changed)):
            if offset + at >= 0:
                parts.append(self.layout.run(offset + at))
            parts.append(changed[at : at + 1])
        return b"".join(parts)

    def extract(self, wire: int, content: bytes) -> bytes:
        """What of wire bytes is stream."""
        first = offset = self.stream(wire)
        found = bytearray()
        while self.place(offset) < wire + len(content):
            found.append(content[self.place(offset) - wire])
            offset += 1
        return self.layout.change(1, first, bytes(found))
