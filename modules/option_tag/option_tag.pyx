"""option_tag: an identity in a TCP option. Wire format, parameters and limits: README.md."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memset

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_AGREED, L45_DROP, L45_OPS_CAPSULE, L45_PASS, L45_REWRITTEN, l45_context, l45_ops, l45_packet,
    l45_param, l45_verdict,
)
from layer45.fastpath.packet cimport begin_edit, store_be16
from layer45.fastpath.params cimport choice_is, copy_bytes, param_named
from layer45.fastpath.tcp cimport (
    OFFER_EXID, OPTION_AO, OPTION_EXPERIMENT, OPTION_MD5, OPTION_NOP, TCP_ACK, TCP_SYN, l45_option,
    option_experiment, option_find, option_insert, option_remove, option_room, tcp_flags,
)

cdef enum:
    LARGEST_ID_BYTES = 24
    HEAD_BYTES = 4              # kind, length, ExID
    LARGEST_OPTION_BYTES = HEAD_BYTES + LARGEST_ID_BYTES

cdef enum:                      # counters, as in module.toml
    TAGGED, STRIPPED, NO_ROOM, UNMARKED, WRONG_IDENTITY

cdef struct option_tag_instance:
    uint32_t option_bytes
    uint32_t padded_bytes
    uint16_t exid
    uint8_t kind
    uint8_t on_all
    uint8_t drop_unmarked
    uint8_t expects
    uint8_t option[LARGEST_OPTION_BYTES]  # with its padding
    uint8_t expect[LARGEST_ID_BYTES]


# --- egress -----------------------------------------------------------------------------------------------------------

cdef l45_verdict egress(l45_context *context, l45_packet *packet) noexcept nogil:
    cdef option_tag_instance *own = <option_tag_instance *> context.instance
    if not is_tagged(own, packet):
        return L45_PASS
    if not may_grow(packet) or option_insert(packet, own.option, own.padded_bytes) != 0:
        context.counters[NO_ROOM] += 1
        return L45_PASS
    context.counters[TAGGED] += 1
    return L45_REWRITTEN


cdef inline bint is_tagged(const option_tag_instance *own, const l45_packet *packet) noexcept nogil:
    return tcp_flags(packet) & TCP_SYN != 0 or own.on_all and packet.flags & L45_AGREED != 0


cdef inline bint may_grow(const l45_packet *packet) noexcept nogil:
    """A SYN that the engine put no offer into is signed, or goes where SYNs with such options may get lost. Only SYNs
    are asked: nobody agreed on what was signed there."""
    cdef uint8_t flags = tcp_flags(packet)
    if not flags & TCP_SYN:
        return True
    if not flags & TCP_ACK:
        return option_experiment(packet, OPTION_EXPERIMENT, OFFER_EXID).at != 0
    return option_find(packet, OPTION_MD5).at == 0 and option_find(packet, OPTION_AO).at == 0


# --- ingress ----------------------------------------------------------------------------------------------------------

cdef l45_verdict ingress(l45_context *context, l45_packet *packet) noexcept nogil:
    cdef option_tag_instance *own = <option_tag_instance *> context.instance
    cdef l45_option found = option_experiment(packet, own.kind, own.exid)
    if found.bytes != own.option_bytes:
        return without(context, own, packet)
    if own.expects and memcmp(packet.data + found.at + HEAD_BYTES, own.expect, own.option_bytes - HEAD_BYTES) != 0:
        context.counters[WRONG_IDENTITY] += 1
        return L45_DROP
    take_out(own, packet, found)
    context.counters[STRIPPED] += 1
    return L45_REWRITTEN


cdef l45_verdict without(l45_context *context, const option_tag_instance *own,
                         const l45_packet *packet) noexcept nogil:
    """Of a SYN it is asked whether it had room or not; behind it, the peer lets go what has none."""
    if not is_tagged(own, packet) or not tcp_flags(packet) & TCP_SYN and option_room(packet) < own.padded_bytes:
        return L45_PASS
    context.counters[UNMARKED] += 1
    return L45_DROP if own.drop_unmarked else L45_PASS


cdef void take_out(const option_tag_instance *own, l45_packet *packet, l45_option found) noexcept nogil:
    """With its padding. If that is gone, by somebody on the way, NOPs take the option's place."""
    cdef uint32_t behind = found.at + own.option_bytes, padding_bytes = own.padded_bytes - own.option_bytes
    if behind + padding_bytes <= packet.payload_offset and \
            memcmp(packet.data + behind, own.option + own.option_bytes, padding_bytes) == 0:
        found.bytes = own.padded_bytes
        option_remove(packet, found)
        return
    begin_edit(packet)
    memset(packet.data + found.at, OPTION_NOP, found.bytes)


# --- cold -------------------------------------------------------------------------------------------------------------

cdef int configure(void *instance, const l45_param *params, size_t count, char *error,
                   size_t error_bytes) noexcept nogil:
    cdef option_tag_instance *own = <option_tag_instance *> instance
    cdef l45_param id = param_named(params, count, b"id"), expect = param_named(params, count, b"expect")
    cdef uint32_t id_bytes = <uint32_t> param_named(params, count, b"id_bytes").integer
    own.kind = <uint8_t> param_named(params, count, b"kind").integer
    own.exid = <uint16_t> param_named(params, count, b"exid").integer
    own.on_all = choice_is(param_named(params, count, b"on"), b"all")
    own.drop_unmarked = choice_is(param_named(params, count, b"unmarked"), b"drop")
    if id.byte_count > id_bytes or expect.byte_count > id_bytes:
        snprintf(error, error_bytes, b"id and expect: expected at most id_bytes = %u bytes", id_bytes)
        return -1
    if own.kind == OPTION_EXPERIMENT and own.exid == OFFER_EXID:
        snprintf(error, error_bytes, b"exid: 0x%X of kind %d is the engine's own", OFFER_EXID, OPTION_EXPERIMENT)
        return -1
    own.expects = copy_bytes(expect, own.expect, LARGEST_ID_BYTES) > 0
    write_option(own, id, id_bytes)
    return 0


cdef void write_option(option_tag_instance *own, l45_param id, uint32_t id_bytes) noexcept nogil:
    own.option_bytes = HEAD_BYTES + id_bytes
    own.padded_bytes = (own.option_bytes + 3) & ~<uint32_t> 3
    own.option[0] = own.kind
    own.option[1] = <uint8_t> own.option_bytes
    store_be16(own.option + 2, own.exid)
    copy_bytes(id, own.option + HEAD_BYTES, LARGEST_ID_BYTES)
    memset(own.option + own.option_bytes, OPTION_NOP, own.padded_bytes - own.option_bytes)


cdef l45_ops OPS
memset(&OPS, 0, sizeof(OPS))
OPS.abi_version = L45_ABI_VERSION
OPS.struct_bytes = sizeof(OPS)
OPS.instance_bytes = sizeof(option_tag_instance)
OPS.configure = configure
OPS.egress = egress
OPS.ingress = ingress
ops = PyCapsule_New(&OPS, L45_OPS_CAPSULE, NULL)
