"""See admit.pxd."""

from libc.stdint cimport uint32_t

from layer45.fastpath.abi cimport L45_DROP, L45_REWRITTEN, l45_context, l45_packet, l45_verdict
from layer45.fastpath.packet cimport remove_back
from layer45.modules.fec.block cimport block_end
from layer45.modules.fec.losses cimport losses_of_all
from layer45.modules.fec.order cimport order_pass, order_release
from layer45.modules.fec.state cimport *
from layer45.modules.fec.symbols cimport block_repair, block_source
from layer45.modules.fec.window cimport clear, see, seen, slot_of
from layer45.modules.fec.wire cimport ID_BYTES, SBN_MASK, fec_id, is_source, sbn_ahead


cdef l45_verdict admit(l45_context *context, l45_packet *packet, fec_id id, bint owned) noexcept nogil:
    reach(context, id.sbn)
    if is_source(id):
        return admit_source(context, packet, id, owned)
    count(context, REPAIRS_ARRIVED, 1)
    if (<fec_state *> context.state).window.over[slot_of(id.sbn)]:
        return L45_DROP
    return admit_repair(context, packet, id, owned)


cdef l45_verdict admit_repair(l45_context *context, l45_packet *packet, fec_id id, bint owned) noexcept nogil:
    cdef l45_verdict verdict = block_repair(context, packet, id, owned)
    order_release(context)
    return verdict


cdef l45_verdict admit_source(l45_context *context, l45_packet *packet, fec_id id, bint owned) noexcept nogil:
    cdef fec_window *window = (<fec_state *> context.state).window
    if seen(window, id.sbn, id.esi):
        count(context, DUPLICATE, 1)
        return L45_DROP
    see(window, id.sbn, id.esi)
    count(context, ARRIVED, 1)
    if window.over[slot_of(id.sbn)]:
        count(context, LATE, 1)
    else:
        block_source(context, packet, id)
    remove_back(packet, ID_BYTES)
    return order_pass(context, packet, id, owned)


cdef l45_verdict admit_straggler(l45_context *context, l45_packet *packet, fec_id id) noexcept nogil:
    cdef fec_window *window = (<fec_state *> context.state).previous
    while sbn_ahead(id.sbn, window.newest) > 0:
        window.newest = (window.newest + 1) & SBN_MASK
        clear(window, window.newest)
    if not is_source(id):
        count(context, REPAIRS_ARRIVED, 1)
        return L45_DROP
    if seen(window, id.sbn, id.esi):
        count(context, DUPLICATE, 1)
        return L45_DROP
    see(window, id.sbn, id.esi)
    count(context, ARRIVED, 1)
    count(context, LATE, 1)
    remove_back(packet, ID_BYTES)
    return L45_REWRITTEN


cdef void reach(l45_context *context, uint32_t sbn) noexcept nogil:
    """Moves the window on to a block; what it leaves behind is over."""
    cdef fec_window *window = (<fec_state *> context.state).window
    while sbn_ahead(sbn, window.newest) > 0:
        window.newest = (window.newest + 1) & SBN_MASK
        leave(context, slot_of(window.newest))
        clear(window, window.newest)


cdef void leave(l45_context *context, uint32_t slot) noexcept nogil:
    cdef fec_window *window = (<fec_state *> context.state).window
    if window.blocks[slot] != NULL:
        count(context, BLOCKS_DROPPED, 1)
        block_end(context, window.blocks[slot])
    elif not window.over[slot]:
        count(context, UNRECOVERED, window.usual_size)
        losses_of_all(context, window.usual_size)


cdef void end_blocks(l45_context *context) noexcept nogil:
    cdef fec_window *window = (<fec_state *> context.state).window
    cdef uint32_t slot
    for slot in range(<uint32_t> WINDOW):
        if window.blocks[slot] != NULL:
            block_end(context, window.blocks[slot])
