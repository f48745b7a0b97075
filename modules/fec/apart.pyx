"""A repair finds its source flow, gets the form that it would have had there, and goes on as one of that flow."""

from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from layer45.fastpath.abi cimport L45_DROP, L45_ERROR, l45_context, l45_packet, l45_verdict
from layer45.fastpath.packet cimport insert_back, payload, payload_bytes, remove_front, sum_holds
from layer45.modules.fec.admit cimport admit
from layer45.modules.fec.state cimport *
from layer45.modules.fec.window cimport is_near
from layer45.modules.fec.wire cimport ID_BYTES, fec_id, id_read, id_valid, is_source, set_port


cdef l45_verdict receive_apart(l45_context *context, l45_packet *packet) noexcept nogil:
    cdef fec_instance *fec = <fec_instance *> context.instance
    cdef l45_context other
    cdef fec_id id
    if payload_bytes(packet) < ID_BYTES:
        return not_used(context, INVALID)
    id = id_read(payload(packet))
    if not id_valid(id) or is_source(id):
        return not_used(context, INVALID)
    if not sum_holds(packet):
        return not_used(context, CORRUPT)
    if not fec.source_port_be or not context.host.enter(context, fec.source_port_be, &other) \
            or not is_expected(<fec_state *> other.state, id):
        return not_used(context, STALE)
    if put_id_behind(packet) < 0:
        count(context, NO_ROOM, 1)
        return L45_ERROR
    set_port(packet, fec.source_port_be)
    return admit(&other, packet, id, False)


cdef inline bint is_expected(const fec_state *state, fec_id id) noexcept nogil:
    return state.heard == A_NUMBERING and is_near(state.window, id.sbn)


cdef l45_verdict not_used(l45_context *context, uint32_t why) noexcept nogil:
    count(context, REPAIRS_ARRIVED, 1)
    count(context, why, 1)
    return L45_DROP


cdef int put_id_behind(l45_packet *packet) noexcept nogil:
    cdef uint8_t id[ID_BYTES]
    memcpy(id, payload(packet), ID_BYTES)
    remove_front(packet, ID_BYTES)
    return insert_back(packet, id, ID_BYTES)
