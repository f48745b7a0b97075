"""See arena.pxd."""

from libc.stdint cimport SIZE_MAX, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from posix.mman cimport (
    MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap,
)

cdef extern from *:
    int lowest_bit "__builtin_ctz"(uint32_t) nogil
    int leading_zeros "__builtin_clzl"(size_t) nogil

cdef enum:
    WORD_BITS = 8 * sizeof(size_t)
    TOP = ORDERS - 1
    FREE = 0x40             # marks: with the order in the low bits
    OUT = 0x80


cdef int arena_start(l45_arena *arena, size_t bytes) noexcept nogil:
    cdef uint32_t order
    memset(arena, 0, sizeof(l45_arena))
    for order in range(<uint32_t> ORDERS):
        arena.heads[order].next = &arena.heads[order]
        arena.heads[order].previous = &arena.heads[order]
    if bytes > SIZE_MAX // 2:
        return -1
    arena.bytes = LEAST_ARENA_BYTES
    while arena.bytes < bytes:
        arena.bytes *= 2
    return _memory_start(arena)


cdef int _memory_start(l45_arena *arena) noexcept nogil:
    cdef void *memory = mmap(
        NULL, arena.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0
    )
    if memory == MAP_FAILED:
        arena.bytes = 0
        return -1
    arena.memory = <uint8_t *> memory
    arena.marks = <uint8_t *> calloc(arena.bytes >> UNIT_SHIFT, 1)
    if arena.marks == NULL:
        arena_end(arena)
        return -1
    return 0


cdef void arena_end(l45_arena *arena) noexcept nogil:
    """Of one that has ended, or was only ever zero, too."""
    if arena.memory != NULL:
        munmap(arena.memory, arena.bytes)
    free(arena.marks)
    memset(arena, 0, sizeof(l45_arena))


cdef inline void _put(l45_arena *arena, size_t unit, uint32_t order) noexcept nogil:
    """Makes a free cell. Last in, first out: what was used last is still in the cache."""
    cdef l45_free_cell *head = &arena.heads[order]
    cdef l45_free_cell *cell = <l45_free_cell *> (arena.memory + (unit << UNIT_SHIFT))
    cell.next = head.next
    cell.previous = head
    head.next.previous = cell
    head.next = cell
    arena.marks[unit] = FREE | order
    arena.stocked |= <uint32_t> 1 << order


cdef inline void _remove(l45_arena *arena, size_t unit, uint32_t order) noexcept nogil:
    cdef l45_free_cell *head = &arena.heads[order]
    cdef l45_free_cell *cell = <l45_free_cell *> (arena.memory + (unit << UNIT_SHIFT))
    cell.next.previous = cell.previous
    cell.previous.next = cell.next
    arena.marks[unit] = 0
    if head.next == head:
        arena.stocked &= ~(<uint32_t> 1 << order)


cdef bint _touch_more(l45_arena *arena) noexcept nogil:
    """One more of the largest cells, so that a start need not write to all of them."""
    if arena.touched_bytes == arena.bytes:
        return False
    _put(arena, arena.touched_bytes >> UNIT_SHIFT, TOP)
    arena.touched_bytes += MOST_BYTES
    return True


cdef inline uint32_t _order_for(size_t bytes) noexcept nogil:
    """Of the smallest cell that holds them."""
    return WORD_BITS - UNIT_SHIFT - leading_zeros((bytes - (bytes != 0)) | (UNIT_BYTES - 1))


cdef void *arena_take(l45_arena *arena, size_t bytes) noexcept nogil:
    cdef uint32_t order = _order_for(bytes), found
    cdef size_t unit
    if order > TOP or (arena.stocked >> order == 0 and not _touch_more(arena)):
        return NULL
    found = order + lowest_bit(arena.stocked >> order)
    unit = <size_t> (<uint8_t *> arena.heads[found].next - arena.memory) >> UNIT_SHIFT
    _remove(arena, unit, found)
    while found > order:
        found -= 1
        _put(arena, unit + (<size_t> 1 << found), found)
    arena.marks[unit] = OUT | order
    arena.live += 1
    arena.used_bytes += <size_t> UNIT_BYTES << order
    return arena.memory + (unit << UNIT_SHIFT)


cdef inline bint _is_out(const l45_arena *arena, size_t offset) noexcept nogil:
    """Whether a cell that is out begins there. An address below the arena wraps to an offset behind it."""
    return offset < arena.bytes and offset & (UNIT_BYTES - 1) == 0 and arena.marks[offset >> UNIT_SHIFT] & OUT


cdef void arena_give(l45_arena *arena, void *memory) noexcept nogil:
    cdef size_t offset = <size_t> memory - <size_t> arena.memory
    if memory == NULL:
        return
    if not _is_out(arena, offset):
        arena.misuse += 1
        return
    _give_unit(arena, offset >> UNIT_SHIFT)


cdef inline void _give_unit(l45_arena *arena, size_t unit) noexcept nogil:
    """Two halves join as long as both are free and whole."""
    cdef uint32_t order = arena.marks[unit] & ~<uint32_t> OUT
    cdef size_t half = <size_t> 1 << order
    arena.live -= 1
    arena.used_bytes -= half << UNIT_SHIFT
    arena.marks[unit] = 0
    while order < TOP and arena.marks[unit ^ half] == FREE | order:
        _remove(arena, unit ^ half, order)
        unit &= ~half
        order += 1
        half *= 2
    _put(arena, unit, order)


cdef class Arena:
    """An arena whose memory goes by its address; for tests. MemoryError: it cannot start."""
    cdef l45_arena arena

    def __cinit__(self, size_t count):
        if arena_start(&self.arena, count) != 0:
            raise MemoryError

    def __dealloc__(self):
        arena_end(&self.arena)

    @property
    def base(self) -> int:
        return <size_t> self.arena.memory

    @property
    def bytes(self) -> int:
        return self.arena.bytes

    @property
    def touched_bytes(self) -> int:
        return self.arena.touched_bytes

    @property
    def live(self) -> int:
        return self.arena.live

    @property
    def used_bytes(self) -> int:
        return self.arena.used_bytes

    @property
    def misuse(self) -> int:
        return self.arena.misuse

    def take(self, size_t count) -> int | None:
        """The address of at least so many bytes."""
        cdef void *memory = arena_take(&self.arena, count)
        return None if memory == NULL else <size_t> memory

    def give(self, size_t address) -> None:
        """Any address; 0 is NULL."""
        arena_give(&self.arena, <void *> address)

    def end(self) -> None:
        """Ends the arena early, and may be called again."""
        arena_end(&self.arena)

    def borrow(self, size_t count, uint32_t cells, uint32_t rounds) -> None:
        """Takes so many cells of `count` bytes and gives them back in order, again and again: to measure."""
        cdef void *taken[1024]
        cdef uint32_t at, _
        if cells > 1024:
            raise ValueError("at most 1024 cells at once")
        with nogil:
            for _ in range(rounds):
                for at in range(cells):
                    taken[at] = arena_take(&self.arena, count)
                for at in range(cells):
                    arena_give(&self.arena, taken[at])
