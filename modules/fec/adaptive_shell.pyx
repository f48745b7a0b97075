"""Levels, controller and reports for tests and tools: a thin shell around their .pxd. Not for the packet path."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from layer45.modules.fec.adapt cimport adapt_loss, adapt_report, fec_adapt
from layer45.modules.fec.levels cimport (
    LEVELS_INTERLEAVES, LEVELS_LOSSES, LEVELS_MEMORIES, LEVELS_NONE, fec_levels, levels_choose, levels_fill,
    levels_repairs,
)
from layer45.modules.fec.report cimport (
    REPORT_BYTES, REPORT_KEY_BYTES, REPORTS_PRESENT, fec_report, report_is, report_read, report_write,
)

PRESENT = bool(REPORTS_PRESENT)
NONE = LEVELS_NONE
STATE_BYTES = sizeof(fec_adapt)
LEVELS_BYTES = sizeof(fec_levels)


def report_bytes(uint32_t number, uint32_t expected, uint32_t lost, uint32_t runs, bytes key=b"") -> bytes:
    """A report's payload. ValueError when the key is too long, RuntimeError without libsodium."""
    cdef fec_report report = fec_report(number, expected, lost, runs)
    cdef unsigned char payload[REPORT_BYTES]
    if not report_write(payload, &report, _padded(key)):
        raise RuntimeError("no libsodium at build time")
    return payload[:REPORT_BYTES]


def report_fields(bytes payload, bytes key=b"") -> tuple[int, int, int, int] | None:
    """number, expected, lost, runs. None: it is no report, or its check does not hold."""
    cdef fec_report report
    if not report_is(payload, <uint32_t> len(payload)) or not report_read(payload, _padded(key), &report):
        return None
    return report.number, report.expected, report.lost, report.runs


def looks_like_a_report(bytes payload) -> bool:
    """Whatever its check."""
    return report_is(payload, <uint32_t> len(payload))


cdef bytes _padded(bytes key):
    if len(key) > REPORT_KEY_BYTES:
        raise ValueError(f"{len(key)} bytes of key, at most {REPORT_KEY_BYTES}")
    return key.ljust(REPORT_KEY_BYTES, b"\0")


cdef class Levels:
    """The table. target and loss are parts of 1."""

    cdef fec_levels levels

    def __init__(self, uint32_t k, uint32_t most_repairs, uint32_t most_interleave, double target):
        with nogil:
            levels_fill(&self.levels, k, most_repairs, most_interleave, target)

    @property
    def losses(self) -> list[float]:
        """The grid."""
        return [self.levels.losses[at] for at in range(LEVELS_LOSSES)]

    @property
    def memories(self) -> list[float]:
        """The grid."""
        return [self.levels.memories[at] for at in range(LEVELS_MEMORIES)]

    @property
    def interleaves(self) -> list[int]:
        """Those that are allowed."""
        return [1 << power for power in range(self.levels.interleaves)]

    def entry(self, uint32_t loss_at, uint32_t memory_at, uint32_t power) -> int:
        """The fewest repairs at a point of the grid with interleave 2^power, or NONE."""
        if loss_at >= LEVELS_LOSSES or memory_at >= LEVELS_MEMORIES or power >= LEVELS_INTERLEAVES:
            raise IndexError
        return self.levels.repairs[loss_at][memory_at][power]

    def choose(self, double loss, double memory) -> tuple[int, int]:
        """Repairs and interleave."""
        cdef uint32_t repairs, interleave
        levels_choose(&self.levels, loss, memory, &repairs, &interleave)
        return repairs, interleave

    def repairs(self, double loss, double memory, uint32_t interleave) -> int:
        """With this interleave."""
        return levels_repairs(&self.levels, loss, memory, interleave)


cdef class Controller:
    """A flow's, with the repairs and the interleave of its next blocks, set once something is known."""

    cdef fec_adapt state
    cdef Levels levels
    cdef uint32_t k
    cdef public uint32_t repairs, interleave

    def __init__(self, Levels levels, uint32_t k, uint32_t repairs, uint32_t interleave=1):
        memset(&self.state, 0, sizeof(fec_adapt))
        self.levels, self.k, self.repairs, self.interleave = levels, k, repairs, interleave

    def report(self, uint32_t number, uint32_t expected, uint32_t lost, uint32_t runs, uint64_t now_ns) -> bool:
        """Takes a report; False: refused."""
        cdef fec_report report = fec_report(number, expected, lost, runs)
        return adapt_report(&self.state, &self.levels.levels, &report, self.k, self.interleave, now_ns,
                            &self.repairs, &self.interleave)

    @property
    def loss(self) -> float:
        """What it goes by, with the margin."""
        return adapt_loss(&self.state)

    @property
    def memory(self) -> float:
        """What it goes by."""
        return self.state.memory
