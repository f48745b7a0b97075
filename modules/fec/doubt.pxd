"""Whether there is a numbering at all, and which.

An id has no magic number: other traffic may end in bytes that look like one. So a numbering is believed in two cases
only: a flow's first datagram is as our senders begin (the first blocks, of the size that we use too), or two in a row
fit together. Until then the first of them is held (`doubt`), for a few milliseconds at the most; where a sender of ours
is at work its repairs, if not its next datagram, come within its deadline. The same goes for ids that are far from the
numbering in use: a peer that began anew, a replay, or a forgery.
"""

from libc.stdint cimport uint32_t

from layer45.fastpath.abi cimport l45_context, l45_packet, l45_verdict
from layer45.fastpath.packet cimport payload
from layer45.modules.fec.state cimport fec_instance
from layer45.modules.fec.wire cimport behind_first, fec_id, is_source

cdef enum:
    FIRST_BLOCKS = 16           # a flow that begins with one of these is believed
    MOST_DOUBTS = 8             # so many in a row came to nothing: hold no more


cdef inline bint is_copy(fec_id id) noexcept nogil:
    """Whether it is the repair of a single datagram, and so its symbol once more: one can tell whether it is sound.
    (A DNS query for an address ends in just such an id.)"""
    return id.k == 1 and not is_source(id)


cdef inline bint is_first(const fec_instance *fec, const l45_packet *packet, fec_id id) noexcept nogil:
    """Whether it may be taken for one of ours although it is alone; copies are sound."""
    if is_copy(id):
        return True
    if behind_first(id.sbn) >= FIRST_BLOCKS:
        return False
    return id.k == fec.k if is_source(id) else is_repair(fec, packet, id)


cdef inline bint is_repair(const fec_instance *fec, const l45_packet *packet, fec_id id) noexcept nogil:
    """Its symbol begins with a 0, as all do that it is made of, and a block that is not full has no more repairs than
    datagrams."""
    return payload(packet)[0] == 0 and id.k <= fec.k and (id.esi < 2 * id.k or id.k == fec.k)


cdef inline uint32_t first_of(fec_id id) noexcept nogil:
    return id.sbn - behind_first(id.sbn)


cdef inline uint32_t begins_at(fec_id id) noexcept nogil:
    """The first block to wait for, if this is the first datagram that is heard."""
    return first_of(id) if behind_first(id.sbn) < FIRST_BLOCKS else id.sbn


# Takes up the numbering of a datagram that begins at first_sbn, or shortly behind it. owned: it is held already.
cdef l45_verdict believe(l45_context *context, l45_packet *packet, fec_id id, uint32_t first_sbn,
                         bint owned) noexcept nogil
# A datagram that may be the beginning of a numbering, or the proof of the one before it.
cdef l45_verdict doubt(l45_context *context, l45_packet *packet, fec_id id) noexcept nogil
# Nothing came that fits to the one that is held, if there is one.
cdef void dismiss(l45_context *context) noexcept nogil
# Ends what is open of the numbering in use, if there is one, and lets everything of it go.
cdef void forget(l45_context *context) noexcept nogil
# The verdicts for what is not ours, and for what is of the past.
cdef l45_verdict unmarked(l45_context *context) noexcept nogil
cdef l45_verdict stale(l45_context *context) noexcept nogil
