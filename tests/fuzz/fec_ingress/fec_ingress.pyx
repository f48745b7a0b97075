"""fec's two ends, driven by the bytes of an input: a configuration, then operations.

A sender sends datagrams of known content. What it emits lies in a row; operations bring it from there to the receiver,
in order or not, again, altered, or with forged datagrams in between, while time passes and memory runs out. After each
one the books must balance, at the end nothing may be left, and ledger.pxd says what may have been delivered.
libFuzzer calls one_input (fuzzer.c), tests call run.
"""

import json
import tempfile
from pathlib import Path

from layer45.chains import build_chain
from layer45.loader import load

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from layer45.fastpath.abi cimport L45_EGRESS, L45_HOLD, L45_INGRESS
from layer45.fastpath.chain cimport Chain, ClassTable, l45_chain
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.counters cimport *
from layer45.fastpath.pool cimport l45_carrier
from layer45.fastpath.timer cimport wheel_start
from layer45.fastpath.worker cimport (
    worker_advance, worker_close_flows, worker_end, worker_process, worker_rest, worker_start,
)
from layer45.modules.fec.state cimport NO_ROOM, RESTARTS, UNMARKED
from layer45.modules.fec.wire cimport SBN_MASK

from datagrams cimport HEADERS_BYTES, carrier_end, carrier_start, is_sound, set_udp_sum, turn_round
from forgery cimport *
from ledger cimport *
from world cimport *

cdef enum operation:
    SEND, DELIVER, SKIP, BACK, PICK, WAIT, ALTER, FLIP, CUT, RAW, FORGE, FLOOD, STARVE, RESTART, FLOW, ODD, CLOSE, REPLY
    ANSWER
    OPERATIONS

cdef enum:
    MOST_ENDS = 16
    MOST_STEPS = 300
    IDLE_NS = 2000000000

# Parameters of both ends, and how many packets and flows the receiver may have.
CONFIGURATIONS = (
    ({"source_symbols": 4, "repair_symbols": 2}, 64, 2),
    ({"source_symbols": 1, "repair_symbols": 1, "give_up_ms": 10}, 8, 2),
    ({"source_symbols": 10, "repair_symbols": 3, "interleave": 4}, 64, 2),
    ({"source_symbols": 200, "repair_symbols": 55, "deadline_ms": 1000}, 128, 2),
    ({"source_symbols": 100, "repair_symbols": 100, "short_blocks": "3:1 7:9"}, 128, 2),
    ({"source_symbols": 5, "repair_symbols": 2, "reorder_ms": 10}, 200, 2),
    ({"source_symbols": 3, "repair_symbols": 3, "unmarked": "drop", "give_up_ms": 10000}, 4, 2),
    ({"source_symbols": 8, "repair_symbols": 4, "adaptive": True, "key": "key", "report_ms": 20}, 64, 2),
    ({"source_symbols": 4, "repair_symbols": 2, "wire": "rfc6865", "repair_port": 5001, "source_port": 5000}, 64, 4),
)

cdef end_pair ENDS[MOST_ENDS]
cdef uint32_t END_COUNT = 0
cdef world WORLD
cdef ledger BOOK
cdef uint8_t SCRATCH[65536]
KEPT = []                   # the chains that ENDS points to: a sender's, a receiver's, ...
TABLES = []


# --- both -------------------------------------------------------------------------------------------------------------

cdef void wait(world *w, uint32_t code) noexcept nogil:
    w.now_ns += <uint64_t> (1 + (code >> 4)) << (15 + (code & 15))
    worker_advance(&w.ends.sender, w.now_ns)
    worker_advance(&w.ends.receiver, w.now_ns)


cdef void restart(world *w, uint32_t code) noexcept nogil:
    """The sender begins anew, its numbers somewhere."""
    worker_close_flows(&w.ends.sender)
    w.start = (0 - (code >> 2)) & SBN_MASK if code & 1 else (code >> 2) * 5000 if code & 2 else <uint32_t> NONE


cdef void reply(world *w, uint32_t code) noexcept nogil:
    """A datagram from the receiver's program."""
    cdef l45_carrier carrier
    cdef uint32_t count = length_of(w, code)
    compose(w.scratch, count, code)
    if carrier_start(&carrier, w.scratch, count, w.flow, False, L45_EGRESS):
        turn_round(carrier.packet.data)
        worker_process(&w.ends.receiver, &carrier)
        demand(w.book, is_sound(&carrier.packet), b"a reply left with a wrong checksum")
        carrier_end(&carrier)


cdef void answer(world *w, uint32_t at, uint32_t mask) noexcept nogil:
    """Brings the sender the last datagram that the receiver made, as it is or altered."""
    cdef l45_carrier carrier
    cdef bint held
    if w.answer.bytes == NULL or not carrier_start(&carrier, w.answer.bytes, w.answer.count, 0, False, L45_INGRESS):
        return
    carrier.packet.data[HEADERS_BYTES + at % (w.answer.count + 1)] ^= mask if at < w.answer.count else 0
    set_udp_sum(carrier.packet.data, HEADERS_BYTES + w.answer.count)
    turn_round(carrier.packet.data)
    held = worker_process(&w.ends.sender, &carrier) == L45_HOLD
    w.sender_waiting += held
    carrier_end(&carrier)


cdef void step(world *w, uint32_t what) noexcept nogil:
    cdef uint32_t some, _
    if what == SEND:
        some = 1 + byte(w) % 32
        what = length_of(w, byte(w))
        for _ in range(some):
            send_one(w, what)
    elif what == DELIVER:
        deliver_pieces(w, 1 + byte(w) % 64)
    elif what == SKIP:
        w.next = min(w.next + 1 + byte(w) % 32, w.book.piece_count)
    elif what == BACK:
        w.next -= min(w.next, byte(w))
    elif what == PICK:
        some = w.next
        w.next = min(w.next + 1 + byte(w) % 32, w.book.piece_count)
        deliver_pieces(w, 1)
        w.next = some
    elif what == WAIT:
        wait(w, byte(w))
    elif what == ALTER:
        alter(w)
    elif what == FLIP:
        flip(w)
    elif what == CUT:
        cut(w)
    else:
        rare_step(w, what)


cdef void rare_step(world *w, uint32_t what) noexcept nogil:
    if what == RAW:
        raw(w)
    elif what == FORGE:
        forge(w)
    elif what == FLOOD:
        flood(w)
    elif what == STARVE:
        w.takes = byte(w)
    elif what == RESTART:
        restart(w, byte(w))
    elif what == FLOW:
        w.flow = byte(w) % FLOWS
    elif what == ODD:
        odd(w)
    elif what == CLOSE:
        worker_close_flows(&w.ends.receiver)
    elif what == REPLY:
        reply(w, byte(w))
    elif what == ANSWER:
        what = byte(w)
        answer(w, what, byte(w))


# --- what must hold ---------------------------------------------------------------------------------------------------

cdef inline uint64_t *counter_of(const l45_chain *chain, uint32_t counter) noexcept nogil:
    """One of fec's."""
    return &chain.counters[0][chain.instances[0].counter_offset + counter]


cdef void check_end(ledger *book, const l45_worker *worker, const l45_chain *chain, uint64_t waiting) noexcept nogil:
    cdef const uint64_t *counters = worker.counters
    demand(book, counters[COUNT_RECEIVED] == counters[COUNT_PASSED] + counters[COUNT_REWRITTEN]
           + counters[COUNT_DROPPED] + counters[COUNT_HELD], b"received is not passed + rewritten + dropped + held")
    demand(book, counters[COUNT_HELD] == waiting, b"held is not what waits")
    demand(book, counters[COUNT_HELD] + counters[COUNT_CLONES] - counters[COUNT_CLONES_ENDED] == worker.pool.live,
           b"packets out of the pool are neither held nor copies")
    demand(book, counters[COUNT_NOT_OWNED] == 0, b"a packet was used that was not owned")
    demand(book, counters[COUNT_UNSET_VERDICTS] == 0, b"a verdict was not set")
    demand(book, counters[COUNT_MODULE_ERRORS] == counter_of(chain, NO_ROOM)[0], b"an error is not counted")


cdef void check(world *w) noexcept nogil:
    check_end(w.book, &w.ends.sender, w.ends.sender_chain, w.sender_waiting)
    check_end(w.book, &w.ends.receiver, w.ends.receiver_chain, w.book.waiting)
    demand(w.book, w.book.kept_ids <= counter_of(w.ends.receiver_chain, UNMARKED)[0], b"an id was kept, uncounted")


cdef void check_nothing_is_left(ledger *book, const l45_worker *worker) noexcept nogil:
    demand(book, worker.flows.live == 0, b"a flow is left")
    demand(book, worker.pool.live == 0, b"a packet is left")
    demand(book, worker.wheel.armed == 0, b"a timer is left")


# --- one input --------------------------------------------------------------------------------------------------------

cdef void end_start(l45_worker *worker, l45_chain *chain) noexcept nogil:
    """As it was before any input, but for what lies in free buffers."""
    memset(worker.counters, 0, sizeof(worker.counters))
    memset(chain.counters[0], 0, chain.counter_count * sizeof(uint64_t))
    wheel_start(&worker.wheel, 0)
    worker.now_ns = 0
    worker.random_state = 1
    worker.identification = 1


cdef void begin(world *w, const uint8_t *bytes, size_t count) noexcept nogil:
    memset(w, 0, sizeof(world))
    w.book = &BOOK
    w.scratch = SCRATCH
    w.at = bytes
    w.end = bytes + count
    w.takes = UNLIMITED
    w.start = NONE
    w.ends = &ENDS[byte(w) % END_COUNT]
    w.book.broken = NULL
    w.book.news[0] = &w.ends.receiver.counters[COUNT_FLOWS_IDLE]
    w.book.news[1] = &w.ends.receiver.counters[COUNT_FLOWS_EVICTED]
    w.book.news[2] = &w.ends.receiver.counters[COUNT_FLOWS_CLOSED]
    w.book.news[3] = counter_of(w.ends.receiver_chain, RESTARTS)
    end_start(&w.ends.sender, w.ends.sender_chain)
    end_start(&w.ends.receiver, w.ends.receiver_chain)


cdef void end(world *w) noexcept nogil:
    worker_close_flows(&w.ends.sender)
    worker_close_flows(&w.ends.receiver)
    check(w)
    demand(w.book, w.book.waiting == 0, b"a datagram has no verdict")
    demand(w.book, w.live == 0, b"memory is left")
    check_nothing_is_left(w.book, &w.ends.sender)
    check_nothing_is_left(w.book, &w.ends.receiver)
    free(w.answer.bytes)
    ledger_end(w.book)


cdef const char *one_input(const uint8_t *bytes, size_t count) noexcept nogil:
    """NULL, or what was not as it should be; then only a new process is sure to begin from nothing."""
    cdef uint32_t steps = 0
    begin(&WORLD, bytes, count)
    while WORLD.at < WORLD.end and steps < MOST_STEPS and BOOK.broken == NULL:
        steps += 1
        step(&WORLD, byte(&WORLD) % OPERATIONS)
        check(&WORLD)
    end(&WORLD)
    return BOOK.broken


# --- cold -------------------------------------------------------------------------------------------------------------

def run(bytes content) -> dict[str, int]:
    """One input; the receiver's counters that are not 0. AssertionError: what was not as it should be."""
    cdef const char *broken
    if END_COUNT == 0:
        raise ValueError("closed")
    broken = one_input(content, len(content))
    if broken != NULL:
        raise AssertionError(broken.decode())
    names = KEPT[2 * (WORLD.ends - ENDS) + 1].counter_names[0]
    counts = ((name, counter_of(WORLD.ends.receiver_chain, at)[0]) for at, name in enumerate(names))
    return {name: value for name, value in counts if value}


def _chain(parameters: dict) -> Chain:
    """By the loader's own way, so that defaults and limits are the manifest's."""
    entry = ", ".join(f"{key} = {json.dumps(value)}" for key, value in parameters.items())
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        (directory / "layer45.toml").write_text("")
        (directory / "policies").mkdir()
        (directory / "policies" / "fuzz.toml").write_text(
            '[policy.fuzz]\nmatch = { protocol = "udp" }\nchain = [ { module = "fec", ' + entry + " } ]\n")
        return build_chain(load(directory).chains[0], workers=1)


cdef void _start(l45_worker *worker, Chain chain, uint32_t max_held, uint32_t max_flows) except *:
    table = ClassTable([chain])
    KEPT.append(chain)
    TABLES.append(table)
    if worker_start(worker, 0, max_flows, max_held, 1, 1, IDLE_NS, IDLE_NS) != 0:
        raise MemoryError
    worker.host.take = take
    worker.host.give = give
    worker.published = &(<ClassTable> table).table
    worker_rest(worker)
    worker.sink.self = &WORLD
    worker.sink.too_big = too_big


def _prepare(at: int, parameters: dict, max_held: int, max_flows: int) -> None:
    cdef end_pair *ends = &ENDS[<int> at]
    cdef Chain sends = _chain(parameters), receives = _chain(parameters)
    _start(&ends.sender, sends, 256, 2)
    _start(&ends.receiver, receives, max_held, max_flows)
    ends.sender.sink.finish = sender_finish
    ends.receiver.sink.finish = receiver_finish
    ends.apart = "repair_port" in parameters
    ends.sender_chain = &sends.chain
    ends.receiver_chain = &receives.chain


def close() -> None:
    """Gives back what is common to all inputs; none can be run any more."""
    global END_COUNT
    for at in range(END_COUNT):
        worker_end(&ENDS[at].sender)
        worker_end(&ENDS[at].receiver)
    END_COUNT = 0
    TABLES.clear()
    KEPT.clear()


for _at, _configuration in enumerate(CONFIGURATIONS):
    _prepare(_at, *_configuration)
END_COUNT = len(CONFIGURATIONS)
one_input_capsule = PyCapsule_New(<void *> one_input, "fec_ingress.one_input", NULL)
