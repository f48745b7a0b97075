"""What the parts of the module share: its counters, an instance, and a flow's state.

Blocks, symbols and both ends of a flow live in memory taken from the host, for as long as they are needed; fec_state is
what every flow has.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from layer45.fastpath.abi cimport L45_NEVER, l45_context, l45_packet
from layer45.fastpath.packet cimport store_be16
from layer45.fastpath.reed_solomon cimport RS_MOST_SOURCES, rs_code, rs_room_bytes
from layer45.modules.fec.adapt cimport fec_adapt
from layer45.modules.fec.levels cimport fec_levels
from layer45.modules.fec.report cimport REPORT_KEY_BYTES
from layer45.modules.fec.wire cimport HEAD_BYTES, fec_id

cdef enum:                  # counters, as in module.toml
    SOURCES, REPAIRS, ARRIVED, RECOVERED, UNRECOVERED, LATE, DUPLICATE, BLOCKS_FULL, BLOCKS_SHORT
    SOURCE_BYTES, ADDED_BYTES
    REPAIRS_ARRIVED, DECODE_NS, UNPROTECTED, NOT_SENT, NOT_HELD, NO_MEMORY, BLOCKS_DROPPED, UNMARKED
    OTHER_PARAMETERS, INVALID, CORRUPT, RESTARTS, STALE, REPORTS_SENT, REPORTS_RECEIVED, REPORTS_REFUSED
    WAITED, NO_ROOM

cdef enum:
    FLOW_COUNTERS = 11      # the first ones are also kept for each flow
    MOST_INTERLEAVE = 16
    WINDOW = 64             # blocks that a receiver remembers
    SEEN_WORDS = 4          # of 64 symbols each
    MOST_WAITING = 128      # datagrams for their turn

cdef struct fec_instance:
    const rs_code *code     # for full blocks
    uint64_t deadline_ns
    uint64_t give_up_ns
    uint64_t reorder_ns
    uint64_t report_ns
    uint32_t k
    uint32_t m              # the first ones, with adaptive
    uint32_t interleave
    uint16_t repair_port_be  # 0: repairs travel in their flow
    uint16_t source_port_be
    uint8_t short_repairs[RS_MOST_SOURCES + 1]  # by size; NO_RULE: the square root's
    bint drop_unmarked
    bint adaptive
    uint8_t key[REPORT_KEY_BYTES]
    fec_levels levels       # with adaptive

cdef enum:
    NO_RULE = 255

# --- the sender's ---------------------------------------------------------------------------------------------------

cdef struct out_block:
    uint32_t count                  # symbols kept: as many as datagrams, unless it is spoilt
    uint32_t bytes                  # of the longest symbol
    bint spoilt                     # a symbol could not be kept: no repair can be made
    uint8_t *symbols[1]             # k of them; lengths_of has their lengths

cdef struct fec_out:
    uint8_t *blocks                 # of the group that has begun; NULL: none has, or there was no memory for it
    uint64_t deadline_ns            # of that group
    uint32_t base                   # SBN of its first block
    uint32_t dealt                  # its datagrams so far; 0: no group has begun
    uint32_t interleave             # its blocks
    uint32_t next_interleave        # the next one's
    uint32_t repairs                # of a full block
    uint32_t sequence               # packet.sequence of the next datagram, source or repair

# --- the receiver's -------------------------------------------------------------------------------------------------

cdef struct in_block:
    uint64_t opened_ns
    uint32_t sbn
    uint32_t size                   # k: the planned one, or, once a repair was there, the actual one
    uint32_t room                   # for how many source symbols it was made
    uint32_t bytes                  # of a repair symbol
    uint32_t longest                # of the source symbols that are there, in bytes
    uint32_t end                    # behind the last ESI of those
    uint32_t sources                # how many are there
    uint32_t repairs                # how many are held
    bint sure                       # a repair was there
    uint8_t *symbols[1]             # by ESI, `room` of them; behind them what block.pyx says

cdef struct fec_window:
    uint32_t newest                 # SBN with which it ends
    uint32_t first                  # SBN with which its sender began
    uint32_t open                   # blocks
    uint32_t usual_size             # of the last block whose actual size is known; 0: of none yet
    uint64_t seen[WINDOW][SEEN_WORDS]  # symbols that arrived or were recovered, by SBN and ESI
    uint8_t over[WINDOW]            # nothing more is to be made of the block
    uint8_t sizes[WINDOW]           # actual ones; 0: not known
    in_block *blocks[WINDOW]        # the open ones, by SBN

cdef struct fec_losses:             # of the peer's datagrams, for its sender: report.pxd says what they count
    uint64_t due_ns                 # when the next report is to be sent; 0: there is nothing new to tell
    uint32_t number                 # of the next report
    uint32_t expected
    uint32_t lost
    uint32_t runs

cdef struct waiting:                # a source datagram, without its id
    l45_packet *packet
    uint64_t until_ns
    fec_id id

cdef struct fec_line:               # those that came before their turn
    uint32_t next_sbn               # whose turn it is
    uint32_t next_esi
    uint32_t count
    waiting first[MOST_WAITING]     # in the order of their numbers

cdef enum heard:
    NOTHING                         # from the peer that we understood
    A_NUMBERING

cdef struct fec_state:
    uint64_t counters[FLOW_COUNTERS]
    uint64_t timer_ns               # what the flow's timer is set to
    fec_out out
    fec_window *window
    fec_window *previous            # of the numbering before, whose last datagrams may still be under way
    fec_line *line
    l45_packet *doubtful            # held until another datagram says whether it is one of ours
    uint64_t doubtful_until_ns
    fec_id doubtful_id
    uint16_t doubts                 # in a row that came to nothing
    uint16_t beside                 # whether an unmarked datagram has come since the one in doubt
    uint32_t strangers              # unmarked datagrams in a row
    heard heard
    fec_losses losses
    fec_adapt adapt


cdef inline void count(l45_context *context, uint32_t counter, uint64_t more) noexcept nogil:
    context.counters[counter] += more
    if counter < FLOW_COUNTERS:
        (<fec_state *> context.state).counters[counter] += more


cdef inline void wake_at(l45_context *context, uint64_t when_ns) noexcept nogil:
    """The flow's one timer goes off then, or before: it serves all that waits."""
    cdef fec_state *state = <fec_state *> context.state
    if when_ns < state.timer_ns:
        state.timer_ns = when_ns
        context.host.arm(context, when_ns)


cdef inline uint8_t *new_symbol(l45_context *context, const uint8_t *content, uint32_t bytes) noexcept nogil:
    """The source symbol of a payload of bytes - HEAD_BYTES, in memory to be given back; NULL: there is none."""
    cdef uint32_t room = rs_room_bytes(bytes)
    cdef uint8_t *symbol = <uint8_t *> context.host.take(context, room)
    if symbol == NULL:
        return NULL
    symbol[0] = 0
    store_be16(symbol + 1, bytes - HEAD_BYTES)
    memcpy(symbol + HEAD_BYTES, content, bytes - HEAD_BYTES)
    memset(symbol + bytes, 0, room - bytes)
    return symbol
