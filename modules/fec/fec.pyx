"""fec: forward error correction, RFC 6865. Wire format, parameters and limits: README.md.

Out: sender (ids, blocks) -> repair. In: receiver -> doubt (which numbering?) -> admit -> symbols, block -> recover ->
order; apart for repairs on a port of their own. Both: losses -> report -> adapt, levels. state.pxd: what they share.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memset

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_NEVER, L45_OPS_CAPSULE, l45_context, l45_ops, l45_packet, l45_param, l45_verdict,
)
from layer45.fastpath.netlink cimport htons
from layer45.fastpath.params cimport choice_is, copy_bytes, param_named
from layer45.fastpath.reed_solomon cimport RS_MOST_REPAIRS, RS_MOST_SOURCES, RS_MOST_SYMBOLS, rs_code_end, rs_code_open
from layer45.modules.fec.levels cimport levels_fill
from layer45.modules.fec.receiver cimport receive, receive_due, receive_end
from layer45.modules.fec.report cimport REPORTS_PRESENT
from layer45.modules.fec.sender cimport send, send_due, send_end
from layer45.modules.fec.state cimport *
from layer45.modules.fec.wire cimport first_sbn


cdef l45_verdict egress(l45_context *context, l45_packet *packet) noexcept nogil:
    return send(context, packet)


cdef l45_verdict ingress(l45_context *context, l45_packet *packet) noexcept nogil:
    return receive(context, packet)


cdef int flow_open(l45_context *context) noexcept nogil:
    cdef fec_instance *fec = <fec_instance *> context.instance
    cdef fec_state *state = <fec_state *> context.state
    state.timer_ns = L45_NEVER
    state.out.interleave = state.out.next_interleave = fec.interleave
    state.out.repairs = fec.m
    state.out.base = first_sbn(context.host.random(context))
    return 0


cdef void flow_close(l45_context *context) noexcept nogil:
    send_end(context)
    receive_end(context)


cdef void tick(l45_context *context) noexcept nogil:
    cdef uint64_t next_ns
    (<fec_state *> context.state).timer_ns = L45_NEVER
    next_ns = min(send_due(context), receive_due(context))
    if next_ns != L45_NEVER:
        wake_at(context, next_ns)


# --- cold -------------------------------------------------------------------------------------------------------------

cdef int configure(void *instance, const l45_param *params, size_t count, char *error,
                   size_t error_bytes) noexcept nogil:
    cdef fec_instance *fec = <fec_instance *> instance
    fec.k = <uint32_t> param_named(params, count, b"source_symbols").integer
    fec.m = <uint32_t> param_named(params, count, b"repair_symbols").integer
    fec.interleave = <uint32_t> param_named(params, count, b"interleave").integer
    fec.deadline_ns = <uint64_t> (param_named(params, count, b"deadline_ms").number * 1e6)
    fec.give_up_ns = max(<uint64_t> (param_named(params, count, b"give_up_ms").number * 1e6), 2 * fec.deadline_ns)
    fec.reorder_ns = <uint64_t> (param_named(params, count, b"reorder_ms").number * 1e6)
    fec.drop_unmarked = choice_is(param_named(params, count, b"unmarked"), b"drop")
    if fec.k + fec.m > RS_MOST_SYMBOLS:
        snprintf(error, error_bytes, "source_symbols and repair_symbols: expected at most %d together, got %u",
                 <int> RS_MOST_SYMBOLS, fec.k + fec.m)
        return -1
    if fec.reorder_ns and fec.interleave > 1:
        snprintf(error, error_bytes, "reorder_ms: expected 0 with interleave above 1, which hides the order")
        return -1
    if choice_is(param_named(params, count, b"wire"), b"rfc6865"):
        fec.repair_port_be = htons(<uint16_t> param_named(params, count, b"repair_port").integer)
        fec.source_port_be = htons(<uint16_t> param_named(params, count, b"source_port").integer)
        if fec.repair_port_be == 0:
            snprintf(error, error_bytes, "repair_port: expected a port, which wire = \"rfc6865\" needs")
            return -1
    if configure_adaptive(fec, params, count, error, error_bytes) < 0:
        return -1
    if read_short_blocks(fec, param_named(params, count, b"short_blocks"), error, error_bytes) < 0:
        return -1
    fec.code = rs_code_open(fec.k, max(fec.m, fec.levels.most_repairs))
    return 0 if fec.code != NULL else -1


cdef int configure_adaptive(fec_instance *fec, const l45_param *params, size_t count, char *error,
                            size_t error_bytes) noexcept nogil:
    cdef double overhead = param_named(params, count, b"max_overhead_percent").number / 100
    cdef double target = param_named(params, count, b"target_residual_percent").number / 100
    cdef uint32_t most = min(<uint32_t> (fec.k * overhead + 1e-9), <uint32_t> RS_MOST_REPAIRS)
    fec.adaptive = param_named(params, count, b"adaptive").integer != 0
    fec.report_ns = <uint64_t> (param_named(params, count, b"report_ms").number * 1e6)
    copy_bytes(param_named(params, count, b"key"), fec.key, REPORT_KEY_BYTES)
    if not fec.adaptive:
        return 0
    if not REPORTS_PRESENT:
        snprintf(error, error_bytes, "adaptive: expected false, for this was built without libsodium")
        return -1
    most = min(most, RS_MOST_SYMBOLS - fec.k)
    levels_fill(&fec.levels, fec.k, most, fec.interleave, target)
    fec.m = min(fec.m, most)
    return 0


cdef void release(void *instance) noexcept nogil:
    rs_code_end((<fec_instance *> instance).code)


cdef int read_short_blocks(fec_instance *fec, l45_param text, char *error, size_t error_bytes) noexcept nogil:
    """"2:1 5:2" to short_repairs. 0, or -1 with error: sizes must ascend, and stay below k."""
    cdef uint32_t filled = 0, size = 0, repairs = 0
    cdef size_t at = 0
    memset(fec.short_repairs, NO_RULE, sizeof(fec.short_repairs))
    while at < text.byte_count:
        if not read_pair(text, &at, &size, &repairs) or not filled < size <= RS_MOST_SOURCES or repairs >= NO_RULE:
            snprintf(error, error_bytes, "short_blocks: expected ascending sizes and repairs, such as \"2:1 5:2\"")
            return -1
        while filled < size:
            filled += 1
            fec.short_repairs[filled] = <uint8_t> repairs
    return 0


cdef bint read_pair(l45_param text, size_t *at, uint32_t *size, uint32_t *repairs) noexcept nogil:
    """SIZE:REPAIRS and the space behind."""
    if not read_number(text, at, size) or at[0] == text.byte_count or text.bytes[at[0]] != c':':
        return False
    at[0] += 1
    if not read_number(text, at, repairs):
        return False
    if at[0] < text.byte_count:
        if text.bytes[at[0]] != c' ':
            return False
        at[0] += 1
    return True


cdef bint read_number(l45_param text, size_t *at, uint32_t *number) noexcept nogil:
    cdef size_t begun = at[0]
    number[0] = 0
    while at[0] < text.byte_count and c'0' <= text.bytes[at[0]] <= c'9' and at[0] - begun < 4:
        number[0] = number[0] * 10 + text.bytes[at[0]] - c'0'
        at[0] += 1
    return at[0] > begun


cdef l45_ops OPS
memset(&OPS, 0, sizeof(OPS))
OPS.abi_version = L45_ABI_VERSION
OPS.struct_bytes = sizeof(OPS)
OPS.instance_bytes = sizeof(fec_instance)
OPS.flow_state_bytes = sizeof(fec_state)
OPS.flow_counters = FLOW_COUNTERS
OPS.configure = configure
OPS.release = release
OPS.flow_open = flow_open
OPS.flow_close = flow_close
OPS.egress = egress
OPS.ingress = ingress
OPS.tick = tick
ops = PyCapsule_New(&OPS, L45_OPS_CAPSULE, NULL)
