"""`layer45 fec plan`: the cheapest code that takes a path's loss down to a target within a latency."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import ceil, floor, inf
from typing import Any

from layer45.errors import Layer45Error
from layer45.loss_model import Path, Repairs, Sources, independent_residual, residual

MOST_SOURCES = 200
MOST_REPAIRS = 100
MOST_SYMBOLS = 255
MOST_INTERLEAVE = 16
TRAILER_BYTES = 6  # on every packet
ENCODED_BYTES = 3  # that only the repair symbols carry
NEAR = 1e-12


@dataclass(frozen=True)
class Wish:
    """What a plan is for. Losses are parts of 1."""

    loss: float
    target: float
    rate_pps: float
    packet_bytes: int
    latency_ms: float
    burst: float = 0.0
    most_overhead: float = inf

    @property
    def path(self) -> Path:
        return Path(self.loss, self.burst)

    @property
    def window(self) -> int:
        """How many packets leave within the latency."""
        return floor(self.rate_pps * self.latency_ms / 1000 + NEAR)


@dataclass(frozen=True)
class Plan:
    """A code, and what to expect of it. Overhead is bytes added to a byte of payload."""

    source_symbols: int
    repair_symbols: int
    interleave: int
    deadline_ms: int
    overhead: float
    residual_loss: float
    residual_loss_independent: float

    @property
    def chain(self) -> str:
        """As it stands in a policy."""
        values = (
            f"{name} = {getattr(self, name)}"
            for name in ("source_symbols", "repair_symbols", "interleave", "deadline_ms")
        )
        return f'{{ module = "fec", {", ".join(values)} }}'

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "chain": self.chain}


@dataclass(frozen=True)
class _Code:
    k: int
    m: int
    interleave: int
    residual: float

    @property
    def cost(self) -> tuple[float, int, int]:
        """Repair symbols a source symbol, then packets to wait for, then interleave."""
        return self.m / self.k, self.k * self.interleave, self.interleave

    @property
    def goodness(self) -> tuple[float, float, int, int]:
        return self.residual, *self.cost


def plan(wish: Wish) -> Plan:
    """The cheapest code that does it. Layer45Error, one line: none does, and what the best one would do."""
    _refuse_nonsense(wish)
    enough = [code for code in _codes(wish, wish.window) if code.residual <= wish.target]
    if not enough:
        raise Layer45Error(_impossible(wish))
    return _made(wish, min(enough, key=lambda code: code.cost))


def overhead(k: int, m: int, packet_bytes: int) -> float:
    """Bytes that FEC adds to a byte of payload, where all packets are of one length."""
    repair_bytes = packet_bytes + ENCODED_BYTES + TRAILER_BYTES
    return (k * TRAILER_BYTES + m * repair_bytes) / (k * packet_bytes)


def _refuse_nonsense(wish: Wish) -> None:
    least_burst = 1 / (1 - wish.loss)
    if wish.target >= wish.loss:
        raise Layer45Error(
            f"a loss of {percent(wish.loss)} is within {percent(wish.target)} already: no FEC is needed"
        )
    if wish.burst and wish.burst < least_burst - NEAR:
        raise Layer45Error(f"--burst: at least {least_burst:.3g} packets, which independent losses have too")
    if wish.window < 1:
        raise Layer45Error(
            f"no second packet within {wish.latency_ms:g} ms at {wish.rate_pps:g} packets/s;"
            f" the least is --latency {ceil(1000 / wish.rate_pps)}ms"
        )


def _codes(wish: Wish, window: int) -> Iterator[_Code]:
    """For each k and interleave that fit the window: the fewest repair symbols that do, or the most."""
    repairs = Repairs(wish.path, min(MOST_REPAIRS, window))
    for interleave in range(1, min(MOST_INTERLEAVE if wish.path.memory > NEAR else 1, window) + 1):
        sources = Sources(wish.path, interleave)
        for k in range(1, min(MOST_SOURCES, window // interleave) + 1):
            sources.add()
            yield _fewest(wish, sources, repairs, k, interleave)


def _most_repairs(wish: Wish, k: int) -> int:
    """A block never sends more repair symbols than source symbols, nor costs more than it may."""
    most = min(k, MOST_REPAIRS, MOST_SYMBOLS - k)
    while most and overhead(k, most, wish.packet_bytes) > wish.most_overhead + NEAR:
        most -= 1
    return most


def _fewest(wish: Wish, sources: Sources, repairs: Repairs, k: int, interleave: int) -> _Code:
    """By halves: one more repair symbol never does harm."""
    low, high = 0, _most_repairs(wish, k)
    while low < high:
        middle = (low + high) // 2
        if residual(sources, repairs, middle) <= wish.target:
            high = middle
        else:
            low = middle + 1
    return _Code(k, low, interleave, residual(sources, repairs, low))


def _made(wish: Wish, code: _Code) -> Plan:
    fills_ms = code.k * code.interleave * 1000 / wish.rate_pps
    return Plan(
        source_symbols=code.k,
        repair_symbols=code.m,
        interleave=code.interleave,
        deadline_ms=max(1, min(ceil(fills_ms - NEAR), floor(wish.latency_ms))),
        overhead=overhead(code.k, code.m, wish.packet_bytes),
        residual_loss=code.residual,
        residual_loss_independent=independent_residual(wish.loss, code.k, code.m),
    )


def _impossible(wish: Wish) -> str:
    best = min(_codes(wish, wish.window), key=lambda code: code.goodness)
    found = _made(wish, best)
    return (
        f"no code reaches {percent(wish.target)} within {wish.latency_ms:g} ms;"
        f" the best is {percent(best.residual)}, with {best.k} source and {best.m} repair symbols,"
        f" interleave {best.interleave}, overhead {percent(found.overhead)}"
    )


def percent(part: float) -> str:
    """Three digits: "0.0985 %"."""
    return f"{100 * part:.3g} %"
