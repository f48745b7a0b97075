"""tag: an identity and a sequence number in every datagram. Wire format, parameters and limits: README.md."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_DROP, L45_ERROR, L45_OPS_CAPSULE, L45_PASS, L45_REWRITTEN, l45_context, l45_ops,
    l45_packet, l45_param, l45_verdict,
)
from layer45.fastpath.check_field cimport CHECK_BEGIN, check_bytes
from layer45.fastpath.packet cimport (
    editable, insert_back, insert_front, load_be32, payload, payload_bytes, remove_back, remove_front,
    store_be16, store_be32,
)
from layer45.fastpath.params cimport choice_is, copy_bytes, param_named

cdef enum:
    VERSION = 1
    FIXED_BYTES = 12            # magic 2, version 1, identity's length 1, check 4, sequence 4
    LARGEST_IDENTITY_BYTES = 32
    LARGEST_MARK_BYTES = FIXED_BYTES + LARGEST_IDENTITY_BYTES
    RESTART_DISTANCE = 65536    # a larger jump is no loss

cdef enum:                      # counters, as in module.toml
    TAGGED, STRIPPED, UNMARKED, BAD_VERSION, WRONG_IDENTITY, NO_ROOM, GAPS, REORDERED, RESTARTS

cdef struct tag_instance:
    uint8_t identity[LARGEST_IDENTITY_BYTES]
    uint8_t expect[LARGEST_IDENTITY_BYTES]
    uint32_t identity_bytes
    uint32_t expect_bytes
    bint in_front
    bint drop_unmarked

cdef struct tag_state:
    uint32_t next               # the sequence number that should come
    uint32_t begun

cdef struct mark:               # where a tag's two parts are
    uint8_t *fixed
    uint8_t *identity


cdef uint32_t check_of(mark found, uint32_t datagram_bytes) noexcept nogil:
    """Over all of the tag but magic and check, and the length of the datagram without it."""
    cdef uint8_t length_be[2]
    cdef uint32_t check = check_bytes(CHECK_BEGIN, found.identity, found.fixed[3])
    store_be16(length_be, datagram_bytes)
    check = check_bytes(check, length_be, 2)
    check = check_bytes(check, found.fixed + 2, 2)
    return check_bytes(check, found.fixed + 8, 4)


cdef l45_verdict egress(l45_context *context, l45_packet *packet) noexcept nogil:
    cdef tag_instance *tag = <tag_instance *> context.instance
    cdef uint8_t room[LARGEST_MARK_BYTES]
    cdef uint8_t *bytes = room
    cdef uint32_t count = FIXED_BYTES + tag.identity_bytes
    cdef mark made
    made.fixed = bytes if tag.in_front else bytes + tag.identity_bytes
    made.identity = bytes + FIXED_BYTES if tag.in_front else bytes
    memcpy(made.identity, tag.identity, tag.identity_bytes)
    made.fixed[0], made.fixed[1], made.fixed[2] = b'L', b'T', VERSION
    made.fixed[3] = <uint8_t> tag.identity_bytes
    store_be32(made.fixed + 8, packet.sequence)
    store_be32(made.fixed + 4, check_of(made, payload_bytes(packet)))
    if (insert_front(packet, bytes, count) if tag.in_front else insert_back(packet, bytes, count)) < 0:
        context.counters[NO_ROOM] += 1
        return L45_ERROR
    context.counters[TAGGED] += 1
    return L45_REWRITTEN


cdef bint find(const tag_instance *tag, const l45_packet *packet, mark *found) noexcept nogil:
    """Whether the datagram has a tag, of whatever version; all versions share magic, lengths and check."""
    cdef uint32_t count = payload_bytes(packet)
    cdef uint8_t *fixed
    if count < FIXED_BYTES + 1:
        return False
    fixed = payload(packet) if tag.in_front else packet.tail - FIXED_BYTES
    if fixed[0] != b'L' or fixed[1] != b'T' or not 1 <= fixed[3] <= LARGEST_IDENTITY_BYTES \
            or fixed[3] > count - FIXED_BYTES:
        return False
    found.fixed = fixed
    found.identity = fixed + FIXED_BYTES if tag.in_front else fixed - fixed[3]
    return load_be32(fixed + 4) == check_of(found[0], count - FIXED_BYTES - fixed[3])


cdef void follow(tag_state *state, uint64_t *counters, uint32_t sequence) noexcept nogil:
    """Counts what is missing, late or begun anew. Serial arithmetic: the number wraps."""
    cdef int32_t ahead = <int32_t> (sequence - state.next)
    if not state.begun:
        state.begun = True
    elif ahead >= RESTART_DISTANCE or ahead < -RESTART_DISTANCE:
        counters[RESTARTS] += 1
    elif ahead < 0:
        counters[REORDERED] += 1
        return
    else:
        counters[GAPS] += ahead
    state.next = sequence + 1


cdef l45_verdict ingress(l45_context *context, l45_packet *packet) noexcept nogil:
    cdef tag_instance *tag = <tag_instance *> context.instance
    cdef l45_verdict without = L45_DROP if tag.drop_unmarked else L45_PASS
    cdef mark found
    cdef uint32_t sequence, count
    if not editable(packet):
        context.counters[NO_ROOM] += 1
        return L45_ERROR
    if not find(tag, packet, &found):
        context.counters[UNMARKED] += 1
        return without
    if found.fixed[2] != VERSION:
        context.counters[BAD_VERSION] += 1
        return without
    count = FIXED_BYTES + found.fixed[3]
    if tag.expect_bytes and (tag.expect_bytes != found.fixed[3]
                             or memcmp(tag.expect, found.identity, tag.expect_bytes) != 0):
        context.counters[WRONG_IDENTITY] += 1
        return L45_DROP
    sequence = load_be32(found.fixed + 8)
    if (remove_front(packet, count) if tag.in_front else remove_back(packet, count)) < 0:
        return L45_ERROR
    packet.sequence = sequence
    follow(<tag_state *> context.state, context.counters, sequence)
    context.counters[STRIPPED] += 1
    return L45_REWRITTEN


cdef int configure(void *instance, const l45_param *params, size_t count, char *error,
                   size_t error_bytes) noexcept nogil:
    cdef tag_instance *tag = <tag_instance *> instance
    tag.identity_bytes = copy_bytes(param_named(params, count, b"id"), tag.identity, LARGEST_IDENTITY_BYTES)
    tag.expect_bytes = copy_bytes(param_named(params, count, b"expect"), tag.expect, LARGEST_IDENTITY_BYTES)
    tag.in_front = choice_is(param_named(params, count, b"position"), b"front")
    tag.drop_unmarked = choice_is(param_named(params, count, b"unmarked"), b"drop")
    return 0


cdef l45_ops OPS
memset(&OPS, 0, sizeof(OPS))
OPS.abi_version = L45_ABI_VERSION
OPS.struct_bytes = sizeof(OPS)
OPS.instance_bytes = sizeof(tag_instance)
OPS.flow_state_bytes = sizeof(tag_state)
OPS.configure = configure
OPS.egress = egress
OPS.ingress = ingress
ops = PyCapsule_New(&OPS, L45_OPS_CAPSULE, NULL)
