"""A capture through a worker: the very chain code of the queue, with the capture's clock.

A record's way: replay_run -> _one -> (_refusal: written as it was read) or _customize -> worker_process ->
_conclude. Held packets and clones come back through _finish, at the worker's time. What leaves for the other end is
learned there (ends.pxd). One thread drives it all.
"""

from libc.errno cimport ENOMEM
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from layer45.fastpath.abi cimport (
    L45_DROP, L45_HOLD, L45_PASS, L45_REWRITTEN, L45_TRUNCATED, l45_packet, l45_verdict,
)
from layer45.fastpath.aside cimport aside_end, aside_give, aside_keep, aside_start, aside_take, l45_aside, l45_original
from layer45.fastpath.behind cimport behind_end, behind_keep, behind_write, l45_behind
from layer45.fastpath.capture cimport (
    READ_END, READ_ERROR, READ_RECORD, Reader, Writer, l45_reader, l45_record, l45_writer, read_record,
    write_packet, write_record,
)
from layer45.fastpath.core cimport l45_sink
from layer45.fastpath.ends cimport (
    COPY_ID, end_tell, ends_advance, ends_choose, ends_close_flows, ends_open, ends_next_ns, ends_forget, ends_start,
    ends_stride, l45_end,
)
from layer45.fastpath.link cimport LINK_LIES, LINK_SHORT, LINK_TOO_MANY_TAGS, link_supported, locate_ip
from layer45.fastpath.match cimport Match, l45_match
from layer45.fastpath.packet cimport (
    PARSE_FRAGMENT, PARSE_MALFORMED, PARSE_SHORT, PARSE_TOO_MANY_HEADERS, PARSED, parse, parse_result,
)
from layer45.fastpath.pcap cimport pcap_pkthdr
from layer45.fastpath.pool cimport (
    HEAD_ROOM_BYTES, ORIGIN_CLONE, ORIGIN_QUEUED, POOL_BUFFER_BYTES, l45_carrier,
)
from layer45.fastpath.worker cimport Worker, worker_process, worker_rest

cdef uint64_t SETTLE_NS = 60 * <uint64_t> 1000000000  # timers run on for so long behind the last record

cdef enum:
    COUNT_READ
    COUNT_CUSTOMIZED
    COUNT_INJECTED
    COUNT_DROPPED
    COUNT_SENT_BACK
    FIRST_UNTOUCHED
    COUNT_NOT_MATCHED = FIRST_UNTOUCHED
    COUNT_TRUNCATED
    COUNT_NOT_IP
    COUNT_LINK_SHORT
    COUNT_LINK_LIES
    COUNT_TOO_MANY_TAGS
    COUNT_SHORT
    COUNT_MALFORMED
    COUNT_FRAGMENT
    COUNT_OTHER_PROTOCOL
    COUNT_TOO_MANY_HEADERS
    REPLAY_COUNTERS

# In the enum's order. Reasons are the names behind the first five: why a record was written as it was read.
COUNTERS = {
    "read": "records of the input",
    "customized": "packets that went through the chain",
    "injected": "packets that modules added",
    "dropped": "packets of the input that the chain dropped",
    "sent_back": "packets that modules made for the other direction; not written",
    "not_matched": "packets that the policy's match does not select",
    "truncated": "packets that were not captured whole",
    "not_ip": "frames of other protocols",
    "link_short": "frames shorter than their link header",
    "link_lies": "frames whose link header names another IP version than the packet",
    "too_many_tags": "frames with more VLAN tags than are followed",
    "short": "packets shorter than their headers",
    "malformed": "packets with a length or version that is not true",
    "fragment": "IP fragments",
    "other_protocol": "IP packets of neither UDP nor TCP",
    "too_many_headers": "IPv6 packets with more extension headers than are followed",
}
NAMES = tuple(COUNTERS)
REASONS = NAMES[FIRST_UNTOUCHED:]

cdef struct l45_replay:
    l45_end ends[2]           # the near one, and the far one if there is one
    l45_end *end              # that the record goes through
    l45_reader *reader
    l45_writer *writer
    const l45_match *match
    const l45_record *record  # the one being processed; NULL between records
    l45_aside aside
    uint8_t *slot
    l45_behind behind
    uint64_t counters[REPLAY_COUNTERS]
    uint32_t class_id
    uint8_t direction
    bint discards             # what comes out of the worker now is lost
    bint back                 # the packet being processed was held, and is back already


cdef int replay_run(l45_replay *replay, uint32_t limit) noexcept nogil:
    """Up to limit records. READ_RECORD: there may be more."""
    cdef l45_record record
    cdef uint32_t _
    cdef int result
    for _ in range(limit):
        result = read_record(replay.reader, &record)
        if result != READ_RECORD:
            return result
        _one(replay, &record)
        if replay.writer.error:
            return READ_ERROR
    return READ_RECORD


cdef inline void _one(l45_replay *replay, const l45_record *record) noexcept nogil:
    cdef l45_carrier carrier
    cdef int reason
    if replay.counters[COUNT_READ] == 0:
        ends_start(replay.ends, record.time_ns)
    replay.counters[COUNT_READ] += 1
    ends_stride(replay.ends, record.time_ns)
    reason = _refusal(replay, record, &carrier)
    if reason:
        replay.counters[reason] += 1
        write_record(replay.writer, record)
        return
    replay.counters[COUNT_CUSTOMIZED] += 1
    _customize(replay, record, &carrier)


cdef inline int _refusal(
        l45_replay *replay, const l45_record *record, l45_carrier *carrier) noexcept nogil:
    """Why a record is not for the chain, as its counter; or 0, and the carrier is filled from it."""
    cdef l45_packet *packet = &carrier.packet
    cdef int32_t link_bytes = locate_ip(replay.reader.link_type, record.bytes, record.header.caplen)
    cdef parse_result result
    if link_bytes < 0:
        return _link_reason(link_bytes)
    memset(packet, 0, sizeof(l45_packet))
    packet.head = packet.data = <uint8_t *> record.bytes + link_bytes
    packet.tail = packet.end = <uint8_t *> record.bytes + record.header.caplen
    packet.direction = replay.direction
    packet.class_id = <uint16_t> replay.class_id
    packet.time_ns = record.time_ns
    packet.flags = L45_TRUNCATED if record.header.caplen < record.header.len else 0
    result = parse(packet)
    if packet.flags & L45_TRUNCATED and (result == PARSED or result == PARSE_SHORT):
        return COUNT_TRUNCATED
    if result != PARSED:
        return _parse_reason(result)
    replay.end = ends_choose(replay.ends, replay.match, packet)
    if replay.end == NULL:
        return COUNT_NOT_MATCHED
    memcpy(carrier.note, record.bytes, link_bytes)
    carrier.note_bytes = <uint32_t> link_bytes
    return 0


cdef int _link_reason(int32_t result) noexcept nogil:
    if result == LINK_SHORT:
        return COUNT_LINK_SHORT
    if result == LINK_LIES:
        return COUNT_LINK_LIES
    return COUNT_TOO_MANY_TAGS if result == LINK_TOO_MANY_TAGS else COUNT_NOT_IP


cdef int _parse_reason(parse_result result) noexcept nogil:
    if result == PARSE_SHORT:
        return COUNT_SHORT
    if result == PARSE_MALFORMED:
        return COUNT_MALFORMED
    if result == PARSE_FRAGMENT:
        return COUNT_FRAGMENT
    return COUNT_TOO_MANY_HEADERS if result == PARSE_TOO_MANY_HEADERS else COUNT_OTHER_PROTOCOL


cdef inline void _customize(
        l45_replay *replay, const l45_record *record, l45_carrier *carrier) noexcept nogil:
    cdef uint32_t place = aside_take(&replay.aside)
    _move_to_slot(replay, &carrier.packet)
    carrier.packet.origin = ORIGIN_QUEUED
    carrier.queue_id = place
    carrier.mtu = 0
    replay.record = record
    replay.back = False
    _conclude(replay, record, carrier, worker_process(replay.end.worker, carrier))
    replay.record = NULL
    if replay.behind.used:
        behind_write(&replay.behind, replay.writer)
    if replay.aside.originals[place].bytes == NULL:
        aside_give(&replay.aside, place)


cdef inline void _conclude(l45_replay *replay, const l45_record *record, const l45_carrier *carrier,
                           l45_verdict verdict) noexcept nogil:
    if verdict == L45_PASS:
        _leave(replay, replay.end, carrier, record)
    elif verdict == L45_REWRITTEN:
        _write(replay, replay.end, carrier, record.time_ns)
    elif verdict == L45_HOLD:
        if not replay.back and aside_keep(&replay.aside, carrier.queue_id, record) != 0:
            _fail(replay)
    else:
        replay.counters[COUNT_DROPPED] += 1


cdef inline void _move_to_slot(l45_replay *replay, l45_packet *packet) noexcept nogil:
    """Gives the packet room around it. Bytes behind the IP packet stay with the record."""
    cdef size_t count = packet.tail - packet.data
    packet.head = replay.slot
    packet.end = replay.slot + POOL_BUFFER_BYTES
    memcpy(replay.slot + HEAD_ROOM_BYTES, packet.data, count)
    packet.data = replay.slot + HEAD_ROOM_BYTES
    packet.tail = packet.data + count


cdef inline void _write(l45_replay *replay, const l45_end *end, const l45_carrier *carrier,
                        uint64_t time_ns) noexcept nogil:
    """The link header that the packet came with, or the one it was cloned from; and the packet as it is."""
    write_packet(replay.writer, time_ns, carrier.note, carrier.note_bytes, carrier.packet.data,
                 <uint32_t> (carrier.packet.tail - carrier.packet.data))
    end_tell(end, &carrier.packet)


cdef inline void _leave(l45_replay *replay, const l45_end *end, const l45_carrier *carrier,
                        const l45_record *record) noexcept nogil:
    """The record as it was read."""
    cdef l45_packet packet = carrier.packet
    write_record(replay.writer, record)
    packet.data = <uint8_t *> record.bytes + carrier.note_bytes
    packet.tail = packet.data + min(packet.wire_bytes, record.header.caplen - carrier.note_bytes)
    end_tell(end, &packet)


cdef void _fail(l45_replay *replay) noexcept nogil:
    """There is no memory: nothing more is written."""
    replay.writer.error = ENOMEM
    replay.discards = True


cdef void _finish(void *self, l45_carrier *carrier, l45_verdict verdict) noexcept nogil:
    """A worker's sink: a clone to send, or a held packet's verdict. It leaves at the worker's time."""
    cdef l45_end *end = <l45_end *> self
    cdef l45_replay *replay = <l45_replay *> end.replay
    if carrier.queue_id == COPY_ID:
        return
    if carrier.packet.origin == ORIGIN_CLONE:
        _send(replay, end, carrier)
        return
    if verdict == L45_DROP:
        replay.counters[COUNT_DROPPED] += 1
    elif verdict == L45_REWRITTEN and not replay.discards:
        _write(replay, end, carrier, end.worker.now_ns)
    _end_original(replay, end, carrier, verdict == L45_PASS and not replay.discards)


cdef void _send(l45_replay *replay, const l45_end *end, const l45_carrier *carrier) noexcept nogil:
    if replay.discards:
        return
    if carrier.packet.direction != replay.direction:
        replay.counters[COUNT_SENT_BACK] += 1
        return
    replay.counters[COUNT_INJECTED] += 1
    if replay.record == NULL:
        _write(replay, end, carrier, end.worker.now_ns)
        return
    end_tell(end, &carrier.packet)
    if behind_keep(&replay.behind, carrier, end.worker.now_ns) != 0:
        _fail(replay)


cdef void _end_original(l45_replay *replay, const l45_end *end, const l45_carrier *carrier,
                        bint leaves) noexcept nogil:
    """Writes a held packet's record as it came, if it leaves so, and forgets it."""
    cdef l45_original *original = &replay.aside.originals[carrier.queue_id]
    cdef pcap_pkthdr header
    cdef l45_record record
    cdef bint current = original.bytes == NULL  # held and finished within one call: not put aside yet
    if current:
        replay.back = True
    if leaves:
        record.header = replay.record.header if current else &original.header
        record.bytes = replay.record.bytes if current else original.bytes
        header = record.header[0]
        header.ts.tv_sec = end.worker.now_ns // 1000000000
        header.ts.tv_usec = end.worker.now_ns % 1000000000 // replay.writer.fraction_ns
        record.header = &header
        _leave(replay, end, carrier, &record)
    if not current:
        free(original.bytes)
        original.bytes = NULL
        aside_give(&replay.aside, carrier.queue_id)


cdef void _too_big(void *self, l45_carrier *carrier, uint32_t fitting_bytes) noexcept nogil:
    """Never called: a replay has no device, and so no MTU."""


cdef void replay_settle(l45_replay *replay) noexcept nogil:
    """Behind the last record: each timer that is due soon fires at its deadline, then all flows end."""
    cdef l45_end *near = replay.ends
    cdef uint64_t last_ns = near.worker.now_ns + SETTLE_NS
    cdef uint64_t next_ns = ends_next_ns(near)
    while next_ns <= last_ns and not replay.writer.error:
        ends_advance(near, max(next_ns, near.worker.now_ns))
        next_ns = ends_next_ns(near)
    ends_close_flows(near)


cdef class Replay:
    """Drives a worker, whose class table is published, with the records of a reader.

    far: a worker for the other end of TCP connections, for chains that need the peer's agreement: see ends.pxd; its
    table has the peer's chain, under the same number.
    ValueError: the link type is not supported. The workers are the replay's alone until it is closed; close() ends all
    their flows, and loses what is still held unless settle() came first.
    """
    cdef l45_replay replay
    cdef readonly Reader reader
    cdef readonly Writer writer
    cdef tuple workers
    cdef Match match

    def __cinit__(self, Reader reader not None, Writer writer not None, Worker worker not None,
                  Match match not None, uint32_t class_id, bint ingress, Worker far=None):
        if not link_supported(reader.reader.link_type):
            raise ValueError(f"link type {reader.link_name} is not supported")
        self.reader, self.writer, self.match = reader, writer, match
        self.workers = (worker,) if far is None else (worker, far)
        self.replay.reader = &reader.reader
        self.replay.writer = &writer.writer
        self.replay.match = &match.match
        self.replay.class_id = class_id
        self.replay.direction = ingress
        self.replay.slot = <uint8_t *> malloc(POOL_BUFFER_BYTES)
        held = sum([(<Worker> each).worker.pool.limit for each in self.workers])
        if self.replay.slot == NULL or aside_start(&self.replay.aside, held + 1) != 0:
            raise MemoryError
        for at, each in enumerate(self.workers):
            self._attach(each, at)
        if far is not None and ends_open(&self.replay.ends[0], &self.replay.ends[1]) != 0:
            raise MemoryError

    def _attach(self, Worker worker, int at):
        cdef l45_end *end = &self.replay.ends[at]
        end.worker = &worker.worker
        end.replay = &self.replay
        worker.worker.sink.self = end
        worker.worker.sink.finish = _finish
        worker.worker.sink.too_big = _too_big
        worker_rest(&worker.worker)

    def run(self, uint32_t limit) -> bool:
        """Processes up to limit records; whether there may be more.

        ValueError: the input is damaged from here on, in libpcap's words. OSError: the output failed.
        """
        cdef int result
        with nogil:
            result = replay_run(&self.replay, limit)
        self.writer._check(False)
        if result == READ_ERROR:
            raise ValueError(self.reader.error)
        return result != READ_END

    def settle(self) -> None:
        """Lets out what modules still have: see replay_settle. OSError: the output failed."""
        with nogil:
            replay_settle(&self.replay)
        self.writer._check(False)

    def counters(self) -> dict[str, int]:
        """What became of the records: see COUNTERS. read + injected = written + dropped, once settled."""
        return {name: self.replay.counters[<int> at] for at, name in enumerate(NAMES)}

    def close(self) -> None:
        """Ends all flows of the workers, silently, and lets go of them."""
        self.replay.discards = True
        if self.workers:
            ends_close_flows(self.replay.ends)
        for worker in self.workers:
            memset(&(<Worker> worker).worker.sink, 0, sizeof(l45_sink))
        self.workers = ()

    def __dealloc__(self):
        free(self.replay.slot)
        behind_end(&self.replay.behind)
        aside_end(&self.replay.aside)
        ends_forget(self.replay.ends)
