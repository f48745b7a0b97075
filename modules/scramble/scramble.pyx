"""scramble: a keystream over the payload. Obfuscation, NOT encryption. Arithmetic and limits: README.md."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_EGRESS, L45_ERROR, L45_OPS_CAPSULE, L45_PASS, L45_REWRITTEN, l45_context, l45_ops,
    l45_packet, l45_param, l45_stream, l45_verdict,
)
from layer45.fastpath.packet cimport begin_change, change_in_pieces, editable, end_change, payload, payload_bytes
from layer45.fastpath.params cimport choice_is, param_named
from layer45.fastpath.splitmix cimport mixed
from layer45.modules.scramble.keystream cimport STEP, apply_stream, apply_word, load_word

cdef enum:                      # counters, as in module.toml
    SCRAMBLED, UNSCRAMBLED, TRUNCATED

cdef enum:
    LONGEST_SHORT_PART_BYTES = 8

cdef extern from * nogil:
    """
    static inline uint64_t fold_product(uint64_t left, uint64_t right) {
        unsigned __int128 product = (unsigned __int128) left * right;
        return (uint64_t) product ^ (uint64_t) (product >> 64);
    }
    """
    uint64_t fold_product(uint64_t left, uint64_t right)

cdef struct scramble_instance:
    uint64_t digest_key
    uint64_t datagram_key
    uint64_t stream_key
    bint by_sequence
    int drop_unmarked


cdef inline uint64_t mix_in(uint64_t lane, uint64_t word) noexcept nogil:
    return fold_product(lane ^ word, <uint64_t> 0xD6E8FEB86659FD93) + STEP


cdef uint64_t digest(const uint8_t *at, uint32_t count, uint64_t key) noexcept nogil:
    """64 bits of all the bytes. Four lanes, so that multiplications overlap."""
    cdef uint64_t lane[4]
    cdef uint64_t result = key ^ count
    cdef uint32_t word, part
    for part in range(4):
        lane[part] = key + part * STEP
    for word in range(count >> 5):
        for part in range(4):
            lane[part] = mix_in(lane[part], load_word(at + 32 * word + 8 * part, 8))
    at += count & ~<uint32_t> 31
    count &= 31
    for part in range((count + 7) >> 3):
        lane[part] = mix_in(lane[part], load_word(at + 8 * part, min(8, count - 8 * part)))
    for part in range(4):
        result = mixed(result ^ lane[part])
    return result


cdef void apply_to_datagram(const scramble_instance *keys, uint8_t *at, uint32_t count,
                            bint back) noexcept nogil:
    """A short part and the rest: each is changed by what the other one says, and back in reverse order."""
    cdef uint32_t short_bytes = min(LONGEST_SHORT_PART_BYTES, count >> 1)
    cdef uint8_t *rest = at + short_bytes
    cdef uint64_t base
    if not back:
        apply_word(at, digest(rest, count - short_bytes, keys.digest_key), short_bytes)
    base = mixed((keys.datagram_key + count * STEP) ^ load_word(at, short_bytes))
    apply_stream(&base, 0, rest, count - short_bytes)
    if back:
        apply_word(at, digest(rest, count - short_bytes, keys.digest_key), short_bytes)


cdef void change_stream(l45_context *context, uint8_t direction, uint64_t offset, uint8_t *bytes,
                        uint32_t count) noexcept nogil:
    """TCP, egress and ingress alike."""
    cdef scramble_instance *keys = <scramble_instance *> context.instance
    cdef uint64_t base = mixed(keys.stream_key ^ context.stream)
    apply_stream(&base, offset, bytes, count)
    context.counters[SCRAMBLED if direction == L45_EGRESS else UNSCRAMBLED] += 1


cdef int strict(const void *instance) noexcept nogil:
    return (<const scramble_instance *> instance).drop_unmarked


cdef l45_verdict change(l45_context *context, l45_packet *packet) noexcept nogil:
    """UDP, egress and ingress; only content mode needs to know which."""
    cdef scramble_instance *keys = <scramble_instance *> context.instance
    cdef uint32_t count = payload_bytes(packet)
    cdef bint back = packet.direction != L45_EGRESS
    cdef uint64_t base
    if not editable(packet):
        context.counters[TRUNCATED] += 1
        return L45_ERROR
    if count == 0:
        return L45_PASS
    if keys.by_sequence:
        base = mixed(keys.datagram_key + packet.sequence * STEP)
        change_in_pieces(packet, 0, count, apply_stream, &base, 0)
    else:
        begin_change(packet, 0, count)
        apply_to_datagram(keys, payload(packet), count, back)
        end_change(packet, 0, count)
    context.counters[UNSCRAMBLED if back else SCRAMBLED] += 1
    return L45_REWRITTEN


cdef uint64_t expand(const l45_param key, uint64_t purpose) noexcept nogil:
    """64 bits of the whole key, different for each purpose."""
    cdef uint64_t state = mixed(purpose * STEP + key.byte_count)
    cdef size_t at
    for at in range(0, key.byte_count, 8):
        state = mixed(state ^ load_word(key.bytes + at, <uint32_t> min(<size_t> 8, key.byte_count - at))) + STEP
    return mixed(state)


cdef int configure(void *instance, const l45_param *params, size_t count, char *error,
                   size_t error_bytes) noexcept nogil:
    cdef scramble_instance *keys = <scramble_instance *> instance
    cdef l45_param key = param_named(params, count, b"key")
    keys.digest_key = expand(key, 1)
    keys.datagram_key = expand(key, 2)
    keys.stream_key = expand(key, 3)
    keys.drop_unmarked = choice_is(param_named(params, count, b"unmarked"), b"drop")
    keys.by_sequence = choice_is(param_named(params, count, b"nonce"), b"sequence")
    return 0


cdef l45_stream STREAM
memset(&STREAM, 0, sizeof(STREAM))
STREAM.struct_bytes = sizeof(STREAM)
STREAM.change = change_stream
STREAM.strict = strict

cdef l45_ops OPS
memset(&OPS, 0, sizeof(OPS))
OPS.abi_version = L45_ABI_VERSION
OPS.struct_bytes = sizeof(OPS)
OPS.instance_bytes = sizeof(scramble_instance)
OPS.configure = configure
OPS.egress = change
OPS.ingress = change
OPS.stream = &STREAM
ops = PyCapsule_New(&OPS, L45_OPS_CAPSULE, NULL)
