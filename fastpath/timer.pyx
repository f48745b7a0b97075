"""See timer.pxd."""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

from layer45.fastpath.abi cimport L45_NEVER


cdef extern from *:
    int lowest_bit "__builtin_ctzll"(uint64_t) nogil
    int leading_zeros "__builtin_clzll"(uint64_t) nogil


cdef void wheel_start(l45_wheel *wheel, uint64_t now_ns) noexcept nogil:
    """Empties the wheel and sets its clock; timers armed before are forgotten."""
    cdef int level, slot
    wheel.tick = now_ns >> TICK_SHIFT
    wheel.armed = 0
    for level in range(LEVELS):
        wheel.occupied[level] = 0
        for slot in range(SLOTS):
            wheel.slots[level][slot].next = &wheel.slots[level][slot]
            wheel.slots[level][slot].previous = &wheel.slots[level][slot]


cdef void wheel_arm(l45_wheel *wheel, l45_timer *timer, uint64_t deadline_ns) noexcept nogil:
    """Sets or moves a timer; a deadline that has passed fires at the next pop."""
    if timer.next != NULL:
        wheel_disarm(wheel, timer)
    timer.deadline_ns = deadline_ns
    _place(wheel, timer)
    wheel.armed += 1


cdef void _place(l45_wheel *wheel, l45_timer *timer) noexcept nogil:
    cdef uint64_t tick = timer.deadline_ns >> TICK_SHIFT
    cdef l45_timer *behind
    cdef int level, slot
    if tick < wheel.tick:
        tick = wheel.tick
    level = (63 - leading_zeros((tick ^ wheel.tick) | 1)) // 6
    slot = (tick >> (6 * level)) & (SLOTS - 1)
    timer.level = level
    timer.slot = slot
    behind = wheel.slots[level][slot].previous
    if level == 0:
        while behind != &wheel.slots[level][slot] and behind.deadline_ns > timer.deadline_ns:
            behind = behind.previous
    timer.previous = behind
    timer.next = behind.next
    behind.next.previous = timer
    behind.next = timer
    wheel.occupied[level] |= <uint64_t> 1 << slot


cdef void wheel_disarm(l45_wheel *wheel, l45_timer *timer) noexcept nogil:
    if timer.next == NULL:
        return
    timer.previous.next = timer.next
    timer.next.previous = timer.previous
    if timer.next == timer.previous and timer.next == &wheel.slots[timer.level][timer.slot]:
        wheel.occupied[timer.level] &= ~(<uint64_t> 1 << timer.slot)
    timer.next = NULL
    wheel.armed -= 1


cdef l45_timer *wheel_pop(l45_wheel *wheel, uint64_t now_ns) noexcept nogil:
    """The timer with the earliest deadline at or before now, disarmed; NULL when none is due."""
    cdef l45_timer *timer
    cdef uint64_t start
    cdef int level
    while wheel.armed:
        level = _first_level(wheel)
        start = _slot_start(wheel, level)
        if level == 0:
            timer = wheel.slots[0][start & (SLOTS - 1)].next
            if timer.deadline_ns > now_ns:
                return NULL
            wheel.tick = start
            wheel_disarm(wheel, timer)
            return timer
        if start > now_ns >> TICK_SHIFT:
            return NULL
        wheel.tick = start
        _spread(wheel, level, (start >> (6 * level)) & (SLOTS - 1))
    return NULL


cdef void _spread(l45_wheel *wheel, int level, int slot) noexcept nogil:
    """Moves a slot's timers to lower levels, now that its time has come."""
    cdef l45_timer *head = &wheel.slots[level][slot]
    cdef l45_timer *timer = head.next
    cdef l45_timer *following
    head.next = head
    head.previous = head
    wheel.occupied[level] &= ~(<uint64_t> 1 << slot)
    while timer != head:
        following = timer.next
        _place(wheel, timer)
        timer = following


cdef inline int _first_level(const l45_wheel *wheel) noexcept nogil:
    cdef int level = 0
    while not wheel.occupied[level]:
        level += 1
    return level


cdef inline uint64_t _slot_start(const l45_wheel *wheel, int level) noexcept nogil:
    """The first tick of the level's first occupied slot; the wheel never passes an occupied one."""
    cdef uint64_t above = wheel.tick >> (6 * (level + 1)) << (6 * (level + 1))
    return above | <uint64_t> lowest_bit(wheel.occupied[level]) << (6 * level)


cdef uint64_t wheel_next_ns(const l45_wheel *wheel) noexcept nogil:
    """When to call wheel_pop next: never later than the earliest deadline; L45_NEVER when nothing is armed."""
    cdef int level
    cdef uint64_t start
    if not wheel.armed:
        return L45_NEVER
    level = _first_level(wheel)
    start = _slot_start(wheel, level)
    if level == 0:
        return wheel.slots[0][start & (SLOTS - 1)].next.deadline_ns
    return start << TICK_SHIFT


cdef class Wheel:
    """A wheel with a fixed number of timers, named by their index; for tests."""
    cdef l45_wheel wheel
    cdef l45_timer *timers
    cdef size_t count

    def __cinit__(self, size_t count, uint64_t now_ns=0):
        self.timers = <l45_timer *> calloc(count, sizeof(l45_timer))
        if self.timers == NULL:
            raise MemoryError
        self.count = count
        wheel_start(&self.wheel, now_ns)

    def __dealloc__(self):
        free(self.timers)

    @property
    def armed(self) -> int:
        return self.wheel.armed

    @property
    def next_ns(self) -> int:
        return wheel_next_ns(&self.wheel)

    def arm(self, size_t index, uint64_t deadline_ns) -> None:
        wheel_arm(&self.wheel, &self.timers[index], deadline_ns)

    def disarm(self, size_t index) -> None:
        wheel_disarm(&self.wheel, &self.timers[index])

    def pop(self, uint64_t now_ns) -> tuple[int, int] | None:
        """(index, deadline) of the next due timer."""
        cdef l45_timer *timer = wheel_pop(&self.wheel, now_ns)
        return None if timer == NULL else (timer - self.timers, timer.deadline_ns)
