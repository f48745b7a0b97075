"""stream_tag: an identity in front of every so many bytes of a TCP stream. Wire format and parameters: README.md."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_DROP, L45_OPS_CAPSULE, L45_PASS, l45_context, l45_ops, l45_param, l45_stream, l45_verdict,
)
from layer45.fastpath.params cimport choice_is, copy_bytes, param_named

cdef enum:
    LARGEST_TAG_BYTES = 255

cdef enum:                      # counters, as in module.toml
    TAGS, STRIPPED, WRONG_IDENTITY

cdef struct stream_tag_instance:
    uint64_t every_bytes
    uint64_t tag_bytes
    uint32_t expect_bytes
    int drop_unmarked
    uint8_t tag[LARGEST_TAG_BYTES]
    uint8_t expect[LARGEST_TAG_BYTES]


cdef uint64_t inserted(const void *instance, uint64_t offset) noexcept nogil:
    """A tag in front of bytes 0, every_bytes, 2 * every_bytes, …"""
    cdef const stream_tag_instance *own = <const stream_tag_instance *> instance
    return (offset + own.every_bytes - 1) // own.every_bytes * own.tag_bytes


cdef void fill(l45_context *context, uint64_t offset, uint32_t skip, uint8_t *bytes, uint32_t count) noexcept nogil:
    cdef stream_tag_instance *own = <stream_tag_instance *> context.instance
    memcpy(bytes, own.tag + skip, count)
    context.counters[TAGS] += 1


cdef l45_verdict check(l45_context *context, uint64_t offset, uint32_t skip, const uint8_t *bytes,
                       uint32_t count) noexcept nogil:
    cdef stream_tag_instance *own = <stream_tag_instance *> context.instance
    if skip < own.expect_bytes and memcmp(bytes, own.expect + skip, min(count, own.expect_bytes - skip)) != 0:
        context.counters[WRONG_IDENTITY] += 1
        return L45_DROP
    context.counters[STRIPPED] += skip + count == own.tag_bytes
    return L45_PASS


cdef int strict(const void *instance) noexcept nogil:
    return (<const stream_tag_instance *> instance).drop_unmarked


cdef int configure(void *instance, const l45_param *params, size_t count, char *error,
                   size_t error_bytes) noexcept nogil:
    cdef stream_tag_instance *own = <stream_tag_instance *> instance
    own.every_bytes = <uint64_t> param_named(params, count, b"every_bytes").integer
    own.tag_bytes = <uint64_t> param_named(params, count, b"tag_bytes").integer
    own.expect_bytes = copy_bytes(param_named(params, count, b"expect"), own.expect, LARGEST_TAG_BYTES)
    own.expect_bytes = min(own.expect_bytes, <uint32_t> own.tag_bytes)
    own.drop_unmarked = choice_is(param_named(params, count, b"unmarked"), b"drop")
    copy_bytes(param_named(params, count, b"id"), own.tag, LARGEST_TAG_BYTES)
    return 0


cdef l45_stream STREAM
memset(&STREAM, 0, sizeof(STREAM))
STREAM.struct_bytes = sizeof(STREAM)
STREAM.inserted = inserted
STREAM.fill = fill
STREAM.check = check
STREAM.strict = strict

cdef l45_ops OPS
memset(&OPS, 0, sizeof(OPS))
OPS.abi_version = L45_ABI_VERSION
OPS.struct_bytes = sizeof(OPS)
OPS.instance_bytes = sizeof(stream_tag_instance)
OPS.configure = configure
OPS.stream = &STREAM
ops = PyCapsule_New(&OPS, L45_OPS_CAPSULE, NULL)
