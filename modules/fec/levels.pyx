"""See levels.pxd, and layer45/loss_model.py for the model: it is the same, and a test compares every entry.

The memories are 0.97 squared again and again. So a memory over an interleave is a memory of the table again, or one of
a few weaker ones, and the rows of source symbols of all interleaves are thirteen a loss, not forty-five.
"""

from libc.math cimport pow
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from layer45.fastpath.reed_solomon cimport RS_MOST_REPAIRS, RS_MOST_SOURCES
from layer45.modules.fec.residual cimport (
    add_repair, fill_sources, lost_beyond, repair_rows, source_row, start_repairs, unmended,
)

cdef enum:
    WITHOUT_MEMORY = LEVELS_MEMORIES + LEVELS_INTERLEAVES - 2  # the row behind those of GREATEST_MEMORY^(2^row)
    ROWS = WITHOUT_MEMORY + 1

cdef double LEAST_LOSS = 0.0001
cdef double GREATEST_LOSS = 0.6
cdef double GREATEST_MEMORY = 0.97


cdef uint32_t row_of(uint32_t memory_at, uint32_t power) noexcept nogil:
    return LEVELS_MEMORIES - 1 - memory_at + power if memory_at else <uint32_t> WITHOUT_MEMORY


cdef double residual(const fec_levels *levels, const source_row *sources, const repair_rows *repairs, uint32_t m,
                     double target) noexcept nogil:
    """But for the most repairs, only the least that it can be, where that is more than the target already."""
    cdef double least = lost_beyond(sources, m) / levels.k
    return least if least > target and m < levels.most_repairs else unmended(sources, repairs, m) / levels.k


cdef uint32_t note_enough(fec_levels *levels, uint8_t *fewest, const source_row *sources, uint32_t memory_at,
                          const repair_rows *repairs, uint32_t m, double target, double *left) noexcept nogil:
    """Writes m to the interleaves that it is enough for first. How many need more."""
    cdef uint32_t power, more = 0
    for power in range(levels.interleaves):
        if fewest[power] == LEVELS_NONE:
            left[power] = residual(levels, &sources[row_of(memory_at, power)], repairs, m, target)
            if left[power] <= target:
                fewest[power] = <uint8_t> m
            else:
                more += 1
    return more


cdef uint8_t best_of(const uint8_t *fewest, const double *left, uint32_t count) noexcept nogil:
    """Which is the first with the fewest repairs; where none is enough, with the least left."""
    cdef uint32_t power, best = 0
    for power in range(1, count):
        if fewest[power] < fewest[best] or (fewest[best] == LEVELS_NONE and left[power] < left[best]):
            best = power
    return <uint8_t> best


cdef void fill_path(fec_levels *levels, uint32_t loss_at, uint32_t memory_at, const source_row *sources,
                    double target) noexcept nogil:
    cdef uint8_t *fewest = levels.repairs[loss_at][memory_at]
    cdef double left[LEVELS_INTERLEAVES]
    cdef repair_rows repairs
    cdef uint32_t m = 0
    memset(fewest, LEVELS_NONE, LEVELS_INTERLEAVES)
    start_repairs(&repairs, levels.losses[loss_at], levels.memories[memory_at])
    while note_enough(levels, fewest, sources, memory_at, &repairs, m, target, left) and m < levels.most_repairs:
        m += 1
        add_repair(&repairs, m)
    levels.best[loss_at][memory_at] = best_of(fewest, left, levels.interleaves)


cdef void fill_loss(fec_levels *levels, uint32_t loss_at, double target) noexcept nogil:
    cdef source_row sources[ROWS]
    cdef uint32_t row, memory_at
    for row in range(<uint32_t> WITHOUT_MEMORY):
        fill_sources(&sources[row], levels.k, levels.losses[loss_at], pow(GREATEST_MEMORY, 1 << row))
    fill_sources(&sources[<uint32_t> WITHOUT_MEMORY], levels.k, levels.losses[loss_at], 0)
    for memory_at in range(<uint32_t> LEVELS_MEMORIES):
        fill_path(levels, loss_at, memory_at, sources, target)


cdef void fill_grid(fec_levels *levels) noexcept nogil:
    cdef double step = pow(GREATEST_LOSS / LEAST_LOSS, 1.0 / (LEVELS_LOSSES - 2))
    cdef uint32_t at
    levels.losses[0] = levels.memories[0] = 0
    for at in range(1, <uint32_t> LEVELS_LOSSES):
        levels.losses[at] = LEAST_LOSS * pow(step, at - 1)
    for at in range(1, <uint32_t> LEVELS_MEMORIES):
        levels.memories[at] = pow(GREATEST_MEMORY, 1 << (LEVELS_MEMORIES - 1 - at))


cdef uint32_t powers_within(uint32_t most) noexcept nogil:
    """How many of 1, 2, 4 … are at most so much; the first always."""
    cdef uint32_t count = 1
    while count < LEVELS_INTERLEAVES and most >> count:
        count += 1
    return count


cdef void levels_fill(fec_levels *levels, uint32_t k, uint32_t most_repairs, uint32_t most_interleave,
                      double target) noexcept nogil:
    cdef uint32_t loss_at
    levels.k = max(1, min(k, <uint32_t> RS_MOST_SOURCES))
    levels.most_repairs = min(most_repairs, <uint32_t> RS_MOST_REPAIRS)
    levels.interleaves = powers_within(most_interleave)
    memset(levels.repairs, LEVELS_NONE, sizeof(levels.repairs))
    fill_grid(levels)
    for loss_at in range(<uint32_t> LEVELS_LOSSES):
        fill_loss(levels, loss_at, target)


cdef uint32_t rounded_up(const double *grid, uint32_t count, double value) noexcept nogil:
    """Its place in the grid; beyond the end, the last."""
    cdef uint32_t at = 0
    while at < count - 1 and grid[at] < value:
        at += 1
    return at


cdef uint32_t repairs_at(const fec_levels *levels, uint32_t loss_at, uint32_t memory_at,
                         uint32_t power) noexcept nogil:
    cdef uint32_t repairs = levels.repairs[loss_at][memory_at][power]
    return levels.most_repairs if repairs == LEVELS_NONE else repairs


cdef void levels_choose(const fec_levels *levels, double loss, double memory, uint32_t *repairs,
                        uint32_t *interleave) noexcept nogil:
    cdef uint32_t loss_at = rounded_up(levels.losses, LEVELS_LOSSES, loss)
    cdef uint32_t memory_at = rounded_up(levels.memories, LEVELS_MEMORIES, memory)
    cdef uint32_t power = levels.best[loss_at][memory_at]
    repairs[0] = repairs_at(levels, loss_at, memory_at, power)
    interleave[0] = 1 << power


cdef uint32_t levels_repairs(const fec_levels *levels, double loss, double memory,
                             uint32_t interleave) noexcept nogil:
    cdef uint32_t loss_at = rounded_up(levels.losses, LEVELS_LOSSES, loss)
    cdef uint32_t memory_at = rounded_up(levels.memories, LEVELS_MEMORIES, memory)
    cdef uint32_t power = min(powers_within(interleave), levels.interleaves) - 1
    return repairs_at(levels, loss_at, memory_at, power)
