"""See report.pxd."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from layer45.fastpath.packet cimport load_be32, store_be32
from layer45.modules.fec.sodium cimport SODIUM_PRESENT, crypto_shorthash

cdef enum:                      # offsets
    EXPECTED = 4
    LOST = 8
    RUNS = 12
    CHECK = 16
    NUMBER = 24
    ESI = 27
    SIZE = 28

cdef enum:
    VERSION = 1
    NO_SYMBOL = 255
    CHECK_BYTES = NUMBER - CHECK
    SIGNED_BYTES = REPORT_BYTES - CHECK_BYTES

REPORTS_PRESENT = SODIUM_PRESENT


cdef bint find_check(const uint8_t *payload, const uint8_t *key16, uint8_t *check) noexcept nogil:
    cdef uint8_t told[SIGNED_BYTES]
    memcpy(told, payload, CHECK)
    memcpy(told + CHECK, payload + NUMBER, REPORT_BYTES - NUMBER)
    return crypto_shorthash(check, told, SIGNED_BYTES, key16) == 0


cdef bint report_write(uint8_t *payload, const fec_report *report, const uint8_t *key16) noexcept nogil:
    memset(payload, 0, REPORT_BYTES)
    payload[0] = VERSION
    store_be32(payload + EXPECTED, report.expected)
    store_be32(payload + LOST, report.lost)
    store_be32(payload + RUNS, report.runs)
    store_be32(payload + NUMBER, report.number << 8 | NO_SYMBOL)
    return find_check(payload, key16, payload + CHECK)


cdef bint report_is(const uint8_t *payload, uint32_t bytes) noexcept nogil:
    return (bytes == REPORT_BYTES and load_be32(payload) == VERSION << 24 and payload[ESI] == NO_SYMBOL
            and payload[SIZE] == 0 and payload[SIZE + 1] == 0)


cdef bint check_holds(const uint8_t *payload, const uint8_t *key16) noexcept nogil:
    """Compares all bytes, whichever differs: the time tells a forger nothing."""
    cdef uint8_t check[CHECK_BYTES]
    cdef uint8_t different = 0
    cdef uint32_t at
    if not find_check(payload, key16, check):
        return False
    for at in range(<uint32_t> CHECK_BYTES):
        different |= check[at] ^ payload[CHECK + at]
    return different == 0


cdef bint report_read(const uint8_t *payload, const uint8_t *key16, fec_report *report) noexcept nogil:
    if not check_holds(payload, key16):
        return False
    report.number = load_be32(payload + NUMBER) >> 8
    report.expected = load_be32(payload + EXPECTED)
    report.lost = load_be32(payload + LOST)
    report.runs = load_be32(payload + RUNS)
    return True
