"""What packets that a module makes look like: the headers of their flow's last egress packet."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from layer45.fastpath.abi cimport l45_flow_key
from layer45.fastpath.pool cimport NOTE_BYTES, l45_carrier

cdef enum:
    TEMPLATE_BYTES = 128    # headers longer than that are not kept

cdef struct l45_template:
    uint32_t mtu
    uint32_t ifindex
    uint32_t note_bytes
    uint16_t l4_offset
    uint16_t header_bytes   # 0: nothing kept yet
    uint8_t note[NOTE_BYTES]
    uint8_t headers[TEMPLATE_BYTES]

cdef void template_keep(l45_template *template, const l45_carrier *carrier) noexcept nogil
# Makes an empty carrier; its packet's bytes are the template's, which must hold still until they are copied.
cdef void template_apply(l45_template *template, const l45_flow_key *key, l45_carrier *carrier) noexcept nogil
