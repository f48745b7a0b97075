"""See verdict.pxd."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from layer45.fastpath.netlink cimport (
    NF_ACCEPT, NFNL_SUBSYS_QUEUE, NFQA_PAYLOAD, NFQA_VERDICT_HDR, NFQNL_MSG_VERDICT, NFQNL_MSG_VERDICT_BATCH,
    NLM_F_REQUEST, htonl, htons, iovec, msghdr, nfgenmsg, nfqnl_msg_verdict_hdr, nlattr, nlmsghdr, sendmsg,
)


cdef int verdicts_start(l45_verdicts *verdicts, int fd, uint32_t queue, uint64_t *errors) noexcept nogil:
    """0, or -1 when there is no memory."""
    memset(verdicts, 0, sizeof(l45_verdicts))
    verdicts.fd = fd
    verdicts.queue_be = htons(<uint16_t> queue)
    verdicts.errors = errors
    verdicts.staging = <uint8_t *> malloc(STAGING_BYTES)
    return 0 if verdicts.staging != NULL else -1


cdef void verdicts_end(l45_verdicts *verdicts) noexcept nogil:
    free(verdicts.staging)
    verdicts.staging = NULL


cdef inline void _append(l45_verdicts *verdicts, const void *data, size_t count) noexcept nogil:
    """Adds a piece to the message, joined to the one before where they touch."""
    cdef iovec *last = &verdicts.iov[verdicts.pieces - 1] if verdicts.pieces else NULL
    verdicts.bytes += count
    if last != NULL and <const uint8_t *> last.iov_base + last.iov_len == data:
        last.iov_len += count
        return
    verdicts.iov[verdicts.pieces].iov_base = <void *> data
    verdicts.iov[verdicts.pieces].iov_len = count
    verdicts.pieces += 1


cdef inline void _header(l45_verdicts *verdicts, const void *data, size_t count) noexcept nogil:
    cdef uint8_t *into = verdicts.headers + verdicts.header_used
    memcpy(into, data, count)
    verdicts.header_used += count
    _append(verdicts, into, count)


cdef struct fixed_part:
    nlmsghdr message
    nfgenmsg general
    nlattr attribute
    nfqnl_msg_verdict_hdr verdict


cdef void verdict_add(l45_verdicts *verdicts, uint32_t packet_id, uint32_t verdict, const uint8_t *data,
                      size_t count, bint stays) noexcept nogil:
    cdef fixed_part fixed
    cdef nlattr payload
    cdef uint32_t zero = 0
    verdicts.run = NULL
    if verdicts.count == VERDICT_LIMIT or verdicts.bytes + count > VERDICT_BYTES_LIMIT:
        verdicts_flush(verdicts)
    if data != NULL and not stays:
        data = _stage(verdicts, data, count)
    memset(&fixed, 0, sizeof(fixed))
    fixed.message.nlmsg_len = sizeof(fixed) if data == NULL else sizeof(fixed) + sizeof(nlattr) + <uint32_t> count
    fixed.message.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT
    fixed.message.nlmsg_flags = NLM_F_REQUEST
    fixed.general.res_id = verdicts.queue_be
    fixed.attribute.nla_len = sizeof(nlattr) + sizeof(nfqnl_msg_verdict_hdr)
    fixed.attribute.nla_type = NFQA_VERDICT_HDR
    fixed.verdict.verdict = htonl(verdict)
    fixed.verdict.id = htonl(packet_id)
    _header(verdicts, &fixed, sizeof(fixed))
    verdicts.count += 1
    if data == NULL:
        return
    payload.nla_len = <uint16_t> (sizeof(nlattr) + count)
    payload.nla_type = NFQA_PAYLOAD
    _header(verdicts, &payload, sizeof(payload))
    _append(verdicts, data, count)
    if count & 3:
        _header(verdicts, &zero, 4 - (count & 3))


cdef void verdict_accept(l45_verdicts *verdicts, uint32_t packet_id, bint alone) noexcept nogil:
    cdef bint first = verdicts.run == NULL or not alone or <int32_t> (packet_id - verdicts.run_end) <= 0
    cdef fixed_part fixed
    if first:
        verdict_add(verdicts, packet_id, NF_ACCEPT, NULL, 0, True)
        verdicts.run = verdicts.headers + verdicts.header_used - sizeof(fixed) if alone else NULL
    else:
        memcpy(&fixed, verdicts.run, sizeof(fixed))
        fixed.message.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT_BATCH
        fixed.verdict.id = htonl(packet_id)
        memcpy(verdicts.run, &fixed, sizeof(fixed))
    verdicts.run_end = packet_id


cdef const uint8_t *_stage(l45_verdicts *verdicts, const uint8_t *data, size_t count) noexcept nogil:
    cdef uint8_t *into
    if verdicts.staging_used + count > STAGING_BYTES:
        verdicts_flush(verdicts)
    into = verdicts.staging + verdicts.staging_used
    memcpy(into, data, count)
    verdicts.staging_used += count
    return into


cdef void verdicts_flush(l45_verdicts *verdicts) noexcept nogil:
    """Sends what is packed. The kernel reinjects the packets within this call."""
    cdef msghdr message
    if verdicts.count == 0:
        return
    memset(&message, 0, sizeof(message))
    message.msg_iov = verdicts.iov
    message.msg_iovlen = verdicts.pieces
    if sendmsg(verdicts.fd, &message, 0) < 0:
        verdicts.errors[0] += verdicts.count
    verdicts.run = NULL
    verdicts.count = 0
    verdicts.bytes = 0
    verdicts.pieces = 0
    verdicts.header_used = 0
    verdicts.staging_used = 0
