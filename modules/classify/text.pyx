"""See text.pxd. A request is known by its method and the form of its target, a response by its version."""

from libc.stdint cimport uint8_t, uint32_t

from layer45.modules.classify.protocols cimport HTTP, IMAP, POP3, RTSP, SIP, SMTP, SSH, UNKNOWN, begins

cdef enum:
    LONGEST_METHOD_BYTES = 16


cdef uint32_t method_bytes(const uint8_t *at, uint32_t count) noexcept nogil:
    """Of capital letters and _ in front of a space; 0: there is none."""
    cdef uint32_t length = 0
    while length < count and (c'A' <= at[length] <= c'Z' or at[length] == c'_'):
        length += 1
    return length if 3 <= length <= LONGEST_METHOD_BYTES and length < count and at[length] == c' ' else 0


cdef uint32_t protocol_of_call(const uint8_t *at, uint32_t count) noexcept nogil:
    cdef uint32_t method = method_bytes(at, count)
    cdef const uint8_t *target = at + method + 1
    cdef uint32_t left = count - min(count, method + 1)
    if begins(at, count, b"SIP/2.0 ", 8):
        return SIP
    if begins(at, count, b"RTSP/1.0 ", 9) or begins(at, count, b"RTSP/2.0 ", 9):
        return RTSP
    if not method:
        return UNKNOWN
    if begins(target, left, b"sip:", 4) or begins(target, left, b"sips:", 5):
        return SIP
    return RTSP if begins(target, left, b"rtsp://", 7) or begins(target, left, b"rtsps://", 8) else UNKNOWN


cdef bint is_http_method(const uint8_t *at, uint32_t length) noexcept nogil:
    """RFC 9110 section 9.3, RFC 5789."""
    return begins(at, length, b"GET ", 4) or begins(at, length, b"HEAD ", 5) or begins(at, length, b"POST ", 5) \
        or begins(at, length, b"PUT ", 4) or begins(at, length, b"DELETE ", 7) or begins(at, length, b"TRACE ", 6) \
        or begins(at, length, b"OPTIONS ", 8) or begins(at, length, b"PATCH ", 6)


cdef bint is_http(const uint8_t *at, uint32_t count) noexcept nogil:
    cdef uint32_t method = method_bytes(at, count)
    cdef const uint8_t *target = at + method + 1
    cdef uint32_t left = count - min(count, method + 1)
    if begins(at, count, b"HTTP/1.", 7) or begins(at, count, b"PRI * HTTP/2.0\r\n", 16):
        return True
    if not method or not is_http_method(at, method + 1):
        return False
    return begins(target, left, b"/", 1) or begins(target, left, b"http://", 7) or begins(target, left, b"* HTTP/", 7)


cdef uint32_t greeting(const uint8_t *at, uint32_t count) noexcept nogil:
    """Of a server that speaks first; later, others say the same."""
    if begins(at, count, b"* OK ", 5) or begins(at, count, b"* PREAUTH ", 10) or begins(at, count, b"* BYE ", 6):
        return IMAP
    return POP3 if begins(at, count, b"+OK ", 4) else UNKNOWN


cdef uint32_t protocol_of_text(const uint8_t *at, uint32_t count, bint opens) noexcept nogil:
    if begins(at, count, b"SSH-2.0-", 8) or begins(at, count, b"SSH-1.99-", 9) or begins(at, count, b"SSH-1.5-", 8):
        return SSH
    if is_http(at, count):
        return HTTP
    if begins(at, count, b"EHLO ", 5) or begins(at, count, b"HELO ", 5):
        return SMTP
    if opens and greeting(at, count):
        return greeting(at, count)
    return protocol_of_call(at, count)
