"""See pool.pxd."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset


cdef int pool_start(l45_pool *pool, uint32_t limit) noexcept nogil:
    """Room for limit packets; 0, or -1 when there is no memory. Buffers are touched only as they are used."""
    memset(pool, 0, sizeof(l45_pool))
    pool.limit = limit
    pool.owned = <l45_owned *> calloc(limit + 1, sizeof(l45_owned))
    pool.buffers = <uint8_t *> malloc((<size_t> limit + 1) * POOL_BUFFER_BYTES)
    if pool.owned == NULL or pool.buffers == NULL:
        pool_end(pool)
        return -1
    return 0


cdef void pool_end(l45_pool *pool) noexcept nogil:
    free(pool.owned)
    free(pool.buffers)
    pool.owned = NULL
    pool.buffers = NULL


cdef l45_owned *_take(l45_pool *pool) noexcept nogil:
    cdef l45_owned *owned = pool.unused
    if owned != NULL:
        pool.unused = owned.next
    elif pool.touched < pool.limit:
        owned = &pool.owned[pool.touched]
        owned.buffer = pool.buffers + <size_t> pool.touched * POOL_BUFFER_BYTES
        pool.touched += 1
    return owned


cdef l45_owned *pool_copy(l45_pool *pool, const l45_carrier *source) noexcept nogil:
    """A copy of a packet and its note, with room around it; NULL when the pool is empty."""
    cdef l45_owned *owned = _take(pool)
    cdef size_t count = source.packet.tail - source.packet.data
    if owned == NULL:
        return NULL
    owned.carrier = source[0]
    owned.carrier.packet.head = owned.buffer
    owned.carrier.packet.data = owned.buffer + HEAD_ROOM_BYTES
    owned.carrier.packet.tail = owned.carrier.packet.data + count
    owned.carrier.packet.end = owned.buffer + POOL_BUFFER_BYTES
    memcpy(owned.carrier.packet.data, source.packet.data, count)
    pool.live += 1
    return owned


cdef void pool_return(l45_pool *pool, l45_owned *owned) noexcept nogil:
    owned.serial += 1
    owned.taken = 0
    owned.carrier.packet.origin = ORIGIN_TAKEN
    owned.next = pool.unused
    pool.unused = owned
    pool.live -= 1
