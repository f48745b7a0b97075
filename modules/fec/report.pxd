"""A receiver's report of what was lost, as it goes over the wire; README.md, section Reports.

check is the eight bytes that SipHash-2-4 gives, in the order of its reference implementation (the number, little
endian), of the 22 bytes around it: those in front, then those behind.
Threads: nothing is shared, all functions may run in any number of threads.
"""

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    REPORT_BYTES = 30
    REPORT_KEY_BYTES = 16
    REPORT_NUMBERS = 1 << 24    # number is modulo this

cdef struct fec_report:
    uint32_t number
    uint32_t expected       # source datagrams of all blocks that ended, since the flow began; this and those below
    uint32_t lost           # of them, those that did not arrive                            are modulo 2^32
    uint32_t runs           # of these, those whose predecessor in their block arrived, and first ones of a block

cdef bint REPORTS_PRESENT   # whether libsodium was built in; without it nothing is written, and nothing holds

# REPORT_BYTES to payload, signed. False: REPORTS_PRESENT is.
cdef bint report_write(uint8_t *payload, const fec_report *report, const uint8_t *key16) noexcept nogil

# Whether a payload looks like one: its length, its version, its reserved bytes, and an id that no symbol has.
cdef bint report_is(const uint8_t *payload, uint32_t bytes) noexcept nogil

# Of a payload that report_is: what it says, and whether its check holds. False: nothing was written.
cdef bint report_read(const uint8_t *payload, const uint8_t *key16, fec_report *report) noexcept nogil
