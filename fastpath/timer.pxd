"""A hierarchical timer wheel that fires in exact order of deadlines.

Eight levels of 64 slots, enough for any 64-bit clock; a tick is 2^17 ns (131 us). A timer lies in the level of the
highest bit in which its tick and the wheel's differ (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels",
scheme 7); slots of level 0 are kept sorted, so that a replay fires timers at their own deadlines. A timer is part of
its owner: nothing is allocated.
One worker thread owns a wheel and all its timers.
"""

from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    TICK_SHIFT = 17
    TICK_NS = 1 << TICK_SHIFT
    LEVELS = 8
    SLOTS = 64

cdef struct l45_timer:
    uint64_t deadline_ns
    l45_timer *next         # NULL: not armed
    l45_timer *previous
    void *owner
    uint8_t kind            # the owner's own
    uint8_t level
    uint8_t slot

cdef struct l45_wheel:
    uint64_t tick           # every timer of an earlier tick has fired
    uint64_t armed          # how many
    uint64_t occupied[LEVELS]
    l45_timer slots[LEVELS][SLOTS]  # heads of circular lists

cdef void wheel_start(l45_wheel *wheel, uint64_t now_ns) noexcept nogil
cdef void wheel_arm(l45_wheel *wheel, l45_timer *timer, uint64_t deadline_ns) noexcept nogil
cdef void wheel_disarm(l45_wheel *wheel, l45_timer *timer) noexcept nogil
cdef l45_timer *wheel_pop(l45_wheel *wheel, uint64_t now_ns) noexcept nogil
cdef uint64_t wheel_next_ns(const l45_wheel *wheel) noexcept nogil
