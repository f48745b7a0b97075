"""Stream modules of all shapes, as layouts.py has them: one module, its parameters say which."""

from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport sqrt
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_EGRESS, L45_OPS_CAPSULE, L45_PASS, L45_DROP, l45_context, l45_ops, l45_param, l45_stream,
    l45_verdict,
)

cdef enum:
    PERIODIC, SCATTERED, ROOTS, PRIMES
    PRIME_LIMIT = 200000

cdef enum:
    UNCHANGED, MASKED, SHIFTED

cdef struct shape:
    uint64_t kind, t, n, change, key

cdef uint32_t primes_below[PRIME_LIMIT + 1]


def _count_primes() -> None:
    cdef list is_prime = [1] * PRIME_LIMIT
    cdef uint32_t at, multiple
    for at in range(2, 448):
        if is_prime[at]:
            for multiple in range(at * at, PRIME_LIMIT, at):
                is_prime[multiple] = 0
    primes_below[0] = primes_below[1] = primes_below[2] = 0
    for at in range(2, PRIME_LIMIT):
        primes_below[at + 1] = primes_below[at] + is_prime[at]


cdef uint64_t root(uint64_t square) noexcept nogil:
    cdef uint64_t found = <uint64_t> sqrt(<double> square)
    while found * found > square:
        found -= 1
    while (found + 1) * (found + 1) <= square:
        found += 1
    return found


cdef uint64_t inserted(const void *instance, uint64_t offset) noexcept nogil:
    cdef const shape *own = <const shape *> instance
    cdef uint64_t block
    if own.t == 0 or offset == 0:
        return 0
    if own.kind == PERIODIC:
        return (offset + own.n - 1) // own.n * own.t
    if own.kind == SCATTERED:
        block = offset // own.n
        return own.t * (block + (offset % own.n > (block * <uint64_t> 0x9E3779B97F4A7C15 >> 32) % own.n))
    if own.kind == ROOTS:
        return own.t * (root(offset - 1) + 1)
    return own.t * primes_below[min(offset, <uint64_t> PRIME_LIMIT)]


cdef inline uint8_t inserted_byte(uint64_t offset, uint64_t at) noexcept nogil:
    return <uint8_t> (offset * 7 + at * 13 + 0xA5)


cdef void fill(l45_context *context, uint64_t offset, uint32_t skip, uint8_t *bytes, uint32_t count) noexcept nogil:
    cdef uint32_t at
    for at in range(count):
        bytes[at] = inserted_byte(offset, skip + at)


cdef l45_verdict check(l45_context *context, uint64_t offset, uint32_t skip, const uint8_t *bytes,
                       uint32_t count) noexcept nogil:
    """What is taken out is what was put in."""
    cdef uint32_t at
    for at in range(count):
        if bytes[at] != inserted_byte(offset, skip + at):
            return L45_DROP
    return L45_PASS


cdef void change(l45_context *context, uint8_t direction, uint64_t offset, uint8_t *bytes,
                 uint32_t count) noexcept nogil:
    cdef const shape *own = <const shape *> context.instance
    cdef uint32_t at
    if own.change == MASKED:
        for at in range(count):
            bytes[at] ^= <uint8_t> (offset + at + own.key)
    elif own.change == SHIFTED:
        for at in range(count):
            bytes[at] += <uint8_t> (offset + at if direction == L45_EGRESS else 0 - (offset + at))


cdef int configure(void *instance, const l45_param *params, size_t count, char *error,
                   size_t error_bytes) noexcept nogil:
    cdef shape *own = <shape *> instance
    own.kind = <uint64_t> params[0].integer
    own.t = <uint64_t> params[1].integer
    own.n = <uint64_t> params[2].integer
    own.change = <uint64_t> params[3].integer
    own.key = <uint64_t> params[4].integer
    return 0


_count_primes()

cdef l45_stream STREAM
memset(&STREAM, 0, sizeof(STREAM))
STREAM.struct_bytes = sizeof(STREAM)
STREAM.inserted = inserted
STREAM.fill = fill
STREAM.check = check
STREAM.change = change

cdef l45_ops OPS
memset(&OPS, 0, sizeof(OPS))
OPS.abi_version = L45_ABI_VERSION
OPS.struct_bytes = sizeof(OPS)
OPS.instance_bytes = sizeof(shape)
OPS.configure = configure
OPS.stream = &STREAM
ops = PyCapsule_New(&OPS, L45_OPS_CAPSULE, NULL)
