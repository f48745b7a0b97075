"""See repair.pxd."""

from libc.stdint cimport uint8_t, uint32_t

from layer45.fastpath.abi cimport l45_context, l45_packet
from layer45.fastpath.packet cimport claim_back, payload
from layer45.fastpath.reed_solomon cimport RS_MOST_REPAIRS, RS_MOST_SYMBOLS, rs_encode, rs_encode_short
from layer45.modules.fec.state cimport *
from layer45.modules.fec.wire cimport ID_BYTES, id_write, set_port


cdef uint32_t repairs_for(const fec_instance *fec, uint32_t full, uint32_t count) noexcept nogil:
    """How many repairs a block of so many datagrams gets, of which a full one gets `full`."""
    cdef uint32_t most = min(<uint32_t> RS_MOST_REPAIRS, RS_MOST_SYMBOLS - count)
    if count == fec.k:
        return full
    if fec.short_repairs[count] != NO_RULE:
        return min(<uint32_t> fec.short_repairs[count], count, most)
    return min(rooted(full, count, fec.k), count, most)


cdef inline uint32_t rooted(uint32_t full, uint32_t count, uint32_t k) noexcept nogil:
    """full · √(count / k), rounded up: losses of a block vary by the root of its size, so it protects about as well."""
    cdef uint32_t root = 0
    while root * root * k < full * full * count:
        root += 1
    return root


cdef void repair(l45_context *context, out_block *block, uint32_t sbn, uint32_t full) noexcept nogil:
    """Symbols are made where the packets have their payload, for they are as long as the copies would be."""
    cdef l45_packet *packets[RS_MOST_REPAIRS]
    cdef uint8_t *symbols[RS_MOST_REPAIRS]
    cdef fec_instance *fec = <fec_instance *> context.instance
    cdef uint32_t front = ID_BYTES if fec.repair_port_be else 0
    cdef uint32_t wanted = repairs_for(fec, full, block.count)
    cdef uint32_t made = 0, at
    while made < wanted:
        packets[made] = context.host.make(context)
        if packets[made] == NULL:
            break
        symbols[made] = payload(packets[made]) + front
        made += 1
    count(context, NOT_SENT, wanted - made)
    if made:
        encode(fec, block, symbols, made)
    for at in range(made):
        if fec.repair_port_be:
            set_port(packets[at], fec.repair_port_be)
        id_write(payload(packets[at]) if front else symbols[at] + block.bytes, sbn, block.count + at, block.count)
        send_repair(context, packets[at], block.bytes + ID_BYTES)


cdef void send_repair(l45_context *context, l45_packet *packet, uint32_t bytes) noexcept nogil:
    """Of bytes that lie behind the headers, which may be longer than those of the block's datagrams were."""
    if claim_back(packet, bytes) < 0:
        count(context, NOT_SENT, 1)
        context.host.discard(context, packet)
        return
    count(context, REPAIRS, 1)
    count(context, ADDED_BYTES, bytes)
    take_turn(&(<fec_state *> context.state).out, packet)
    context.host.resume(context, packet, 0)


cdef void encode(const fec_instance *fec, out_block *block, uint8_t **symbols, uint32_t wanted) noexcept nogil:
    cdef uint32_t *lengths = lengths_of(fec, block)
    if block.count == fec.k:
        rs_encode(fec.code, block.symbols, lengths, symbols, wanted, block.bytes)
    else:
        rs_encode_short(block.count, block.symbols, lengths, symbols, wanted, block.bytes)
