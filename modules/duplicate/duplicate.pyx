"""duplicate: every datagram goes out several times, the first to arrive is delivered. Wire: README.md."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_DROP, L45_ERROR, L45_OPS_CAPSULE, L45_PASS, L45_REWRITTEN, l45_context, l45_ops,
    l45_packet, l45_param, l45_verdict,
)
from layer45.fastpath.check_field cimport CHECK_BEGIN, check_bytes
from layer45.fastpath.packet cimport (
    begin_change, editable, end_change, insert_back, load_be32, payload_bytes, remove_back, store_be16,
    store_be32,
)
from layer45.fastpath.params cimport choice_is, param_named

cdef enum:
    VERSION = 1
    MARK_BYTES = 16             # magic 2, version 1, copy 1, epoch 4, number 4, check 4
    WINDOW_NUMBERS = 1024       # 64 * WINDOW_WORDS
    WINDOW_WORDS = 16           # of 64 numbers
    MOST_STALE = 64             # so many first copies behind the window in a row: the window is wrong

cdef enum:                      # counters, as in module.toml
    MARKED, COPIES_SENT, NOT_COPIED, DELIVERED, DUPLICATES, TOO_OLD, UNMARKED, RESTARTS, NO_ROOM

cdef enum answer:
    FRESH, SEEN, BEHIND

cdef struct duplicate_instance:
    uint64_t spacing_ns
    uint32_t copies
    bint drop_unmarked

cdef struct window:             # what arrived of one numbering; number n has bit n % WINDOW_NUMBERS
    uint32_t epoch
    uint32_t highest
    uint64_t seen[WINDOW_WORDS]

cdef struct duplicate_state:
    uint32_t epoch              # of what we send: random, so that a restart is told from a late copy
    uint32_t next
    window current
    window previous             # the numbering before, whose last copies may still be under way
    uint32_t windows            # in use: 0, 1 or 2
    uint32_t stale


cdef uint32_t check_of(const uint8_t *mark, uint32_t datagram_bytes) noexcept nogil:
    """Over all of the mark but magic and check, and the length of the datagram without it."""
    cdef uint8_t length_be[2]
    store_be16(length_be, datagram_bytes)
    return check_bytes(check_bytes(CHECK_BEGIN, length_be, 2), mark + 2, 10)


cdef void number_copy(l45_packet *packet, uint32_t copy) noexcept nogil:
    """Makes a clone, mark included, the copy of that number."""
    cdef uint32_t bytes_before = payload_bytes(packet) - MARK_BYTES
    cdef uint8_t *mark = packet.tail - MARK_BYTES
    begin_change(packet, bytes_before, MARK_BYTES)
    mark[3] = <uint8_t> copy
    store_be32(mark + 12, check_of(mark, bytes_before))
    end_change(packet, bytes_before, MARK_BYTES)


cdef void send_copies(l45_context *context, const l45_packet *packet) noexcept nogil:
    cdef duplicate_instance *duplicate = <duplicate_instance *> context.instance
    cdef l45_packet *copy
    cdef uint32_t number
    for number in range(1, duplicate.copies):
        copy = context.host.clone(context, packet)
        if copy == NULL:
            context.counters[NOT_COPIED] += duplicate.copies - number
            return
        number_copy(copy, number)
        context.counters[COPIES_SENT] += 1
        context.host.resume(
            context, copy, context.now_ns + number * duplicate.spacing_ns if duplicate.spacing_ns else 0)


cdef l45_verdict egress(l45_context *context, l45_packet *packet) noexcept nogil:
    cdef duplicate_state *state = <duplicate_state *> context.state
    cdef uint8_t mark[MARK_BYTES]
    mark[0], mark[1], mark[2], mark[3] = b'L', b'D', VERSION, 0
    store_be32(mark + 4, state.epoch)
    store_be32(mark + 8, state.next)
    store_be32(mark + 12, check_of(mark, payload_bytes(packet)))
    if insert_back(packet, mark, MARK_BYTES) < 0:
        context.counters[NO_ROOM] += 1
        return L45_ERROR
    state.next += 1
    context.counters[MARKED] += 1
    send_copies(context, packet)
    return L45_REWRITTEN


cdef void begin_window(window *of, uint32_t epoch, uint32_t number) noexcept nogil:
    memset(of, 0, sizeof(window))
    of.epoch = epoch
    of.highest = number


cdef window *window_of(duplicate_state *state, uint64_t *counters, uint32_t epoch,
                       uint32_t number) noexcept nogil:
    """The window of an epoch; a new epoch takes the place of the last but one, and is always accepted."""
    if state.windows > 0 and state.current.epoch == epoch:
        return &state.current
    if state.windows > 1 and state.previous.epoch == epoch:
        return &state.previous
    if state.windows > 0:
        counters[RESTARTS] += 1
        state.previous = state.current
    state.windows = min(state.windows + 1, 2)
    begin_window(&state.current, epoch, number)
    return &state.current


cdef answer note(window *of, uint32_t number) noexcept nogil:
    """Whether a number is new to its window, which moves on with it. Serial arithmetic: numbers wrap."""
    cdef int32_t ahead = <int32_t> (number - of.highest)
    cdef uint64_t bit = <uint64_t> 1 << (number & 63)
    cdef uint64_t *word = &of.seen[number % WINDOW_NUMBERS >> 6]
    if ahead <= -WINDOW_NUMBERS:
        return BEHIND
    if ahead >= WINDOW_NUMBERS:
        begin_window(of, of.epoch, number)
    while of.highest != number and ahead > 0:
        of.highest += 1
        of.seen[of.highest % WINDOW_NUMBERS >> 6] &= ~(<uint64_t> 1 << (of.highest & 63))
    if word[0] & bit:
        return SEEN
    word[0] |= bit
    return FRESH


cdef answer admit(duplicate_state *state, uint64_t *counters, const uint8_t *mark) noexcept nogil:
    """note, and the way out of a window that a forged or broken number has moved too far."""
    cdef uint32_t number = load_be32(mark + 8)
    cdef window *of = window_of(state, counters, load_be32(mark + 4), number)
    cdef answer result = note(of, number)
    if result == FRESH:
        state.stale = 0
    elif result == BEHIND and mark[3] == 0:
        state.stale += 1
        if state.stale == MOST_STALE:
            state.stale = 0
            counters[RESTARTS] += 1
            begin_window(of, of.epoch, number)
            result = note(of, number)
    return result


cdef bint is_mark(const uint8_t *mark, uint32_t datagram_bytes) noexcept nogil:
    return mark[0] == b'L' and mark[1] == b'D' and mark[2] == VERSION \
        and load_be32(mark + 12) == check_of(mark, datagram_bytes)


cdef l45_verdict ingress(l45_context *context, l45_packet *packet) noexcept nogil:
    cdef duplicate_instance *duplicate = <duplicate_instance *> context.instance
    cdef duplicate_state *state = <duplicate_state *> context.state
    cdef uint32_t count = payload_bytes(packet)
    cdef answer result
    if not editable(packet):
        context.counters[NO_ROOM] += 1
        return L45_ERROR
    if count < MARK_BYTES or not is_mark(packet.tail - MARK_BYTES, count - MARK_BYTES):
        context.counters[UNMARKED] += 1
        return L45_DROP if duplicate.drop_unmarked else L45_PASS
    result = admit(state, context.counters, packet.tail - MARK_BYTES)
    if result != FRESH:
        context.counters[DUPLICATES if result == SEEN else TOO_OLD] += 1
        return L45_DROP
    remove_back(packet, MARK_BYTES)
    context.counters[DELIVERED] += 1
    return L45_REWRITTEN


cdef int flow_open(l45_context *context) noexcept nogil:
    (<duplicate_state *> context.state).epoch = <uint32_t> context.host.random(context)
    return 0


cdef int configure(void *instance, const l45_param *params, size_t count, char *error,
                   size_t error_bytes) noexcept nogil:
    cdef duplicate_instance *duplicate = <duplicate_instance *> instance
    duplicate.copies = <uint32_t> param_named(params, count, b"copies").integer
    duplicate.spacing_ns = <uint64_t> (param_named(params, count, b"spacing_ms").number * 1e6)
    duplicate.drop_unmarked = choice_is(param_named(params, count, b"unmarked"), b"drop")
    return 0


cdef l45_ops OPS
memset(&OPS, 0, sizeof(OPS))
OPS.abi_version = L45_ABI_VERSION
OPS.struct_bytes = sizeof(OPS)
OPS.instance_bytes = sizeof(duplicate_instance)
OPS.flow_state_bytes = sizeof(duplicate_state)
OPS.configure = configure
OPS.flow_open = flow_open
OPS.egress = egress
OPS.ingress = ingress
ops = PyCapsule_New(&OPS, L45_OPS_CAPSULE, NULL)
