"""See adapt.pxd. A report's way: it is taken or refused, ends a window, is added to the sums, and levels are chosen.

A bound of a proportion is Wilson's (J. Amer. Stat. Assoc. 22, 1927): sound for few datagrams, and for none lost.
Losses with memory come in bursts, and say as much as (1 - memory) / (1 + memory) as many independent ones.
"""

from libc.math cimport exp, log, pow, sqrt
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from layer45.modules.fec.levels cimport fec_levels, levels_choose, levels_repairs
from layer45.modules.fec.report cimport REPORT_NUMBERS, fec_report

cdef enum:
    WINDOW_DATAGRAMS = 50       # fewer, unless so many are lost,
    WINDOW_LOSSES = 5           # wait for the next report
    BEGINNING_DATAGRAMS = 1 << 16  # a first report with more is of a flow that is older than ours
    KEPT_DATAGRAMS = 500        # sums of slow flows fade no faster than so many come

cdef double FADE_NS = 5e9       # time constant of the sums
cdef double QUICK_FADE_NS = 1e9  # while more seems to be lost than they say
cdef double FORGET_NS = 10e9    # of a memory that nothing speaks for
cdef double MOST_MEMORY = 0.999
cdef double MARGIN = 1          # standard deviations: above what is likely, to be on the safe side
cdef double LIKELY = 1          # where a difference may be none by chance,
cdef double SIGNIFICANT = 3     # and where it is none
cdef uint64_t SETTLE_NS = 1000000000   # after a change of interleave, until blocks from before it have ended
cdef uint64_t DWELL_NS = 5000000000    # before an interleave is made smaller again
cdef uint64_t SILENCE_NS = 5000000000  # after which a report that is not newer is a new beginning


cdef double bound(double part, double whole, double deviations) noexcept nogil:
    """Wilson's bound of part / whole, so many standard deviations above it; below, if negative. Of nothing: 1 and 0."""
    cdef double square = deviations * deviations
    cdef double spread
    if whole <= 0:
        return deviations > 0
    spread = sqrt(part * (whole - part) / whole + square / 4)
    return (part + square / 2 + deviations * spread) / (whole + square)


cdef double worth_of(double memory) noexcept nogil:
    """How much a datagram tells of the loss."""
    return (1 - memory) / (1 + memory)


cdef double adapt_loss(const fec_adapt *state) noexcept nogil:
    cdef double worth = worth_of(state.memory)
    return bound(state.losses * worth, state.datagrams * worth, MARGIN)


cdef bint is_sound(const fec_report *counts) noexcept nogil:
    """Whether counts can be of one stretch of time, and no later one's were smaller."""
    return counts.expected < <uint32_t> 1 << 31 and counts.lost <= counts.expected and counts.runs <= counts.lost


cdef bint take_number(fec_adapt *state, uint32_t number, uint64_t now_ns) noexcept nogil:
    """Whether it is newer, in serial arithmetic (RFC 1982); or else, after a silence, a beginning."""
    cdef uint32_t step = (number - state.number) & (REPORT_NUMBERS - 1)
    if state.begun and (step == 0 or step >= REPORT_NUMBERS // 2):
        if step == 0 or now_ns < state.taken_ns + SILENCE_NS:
            return False
        state.begun = 0
    state.number = number
    state.taken_ns = now_ns
    return True


cdef void note_interleave(fec_adapt *state, uint32_t interleave_now, uint64_t now_ns) noexcept nogil:
    """Pairs at one distance say nothing of those at another, but by way of the memory."""
    if state.interleave == interleave_now:
        return
    if state.interleave:
        state.changed_ns = now_ns
    state.interleave = <uint8_t> interleave_now
    state.followers = state.pairs = 0


cdef void set_counts(fec_adapt *state, const fec_report *report) noexcept nogil:
    state.expected = report.expected
    state.lost = report.lost
    state.runs = report.runs


cdef void begin_counts(fec_adapt *state, const fec_report *report) noexcept nogil:
    """The peer's counts began at 0. Too many of them, or absurd ones, are where those of its next report begin."""
    cdef fec_report nothing
    memset(&nothing, 0, sizeof(nothing))
    if is_sound(report) and report.expected <= BEGINNING_DATAGRAMS:
        set_counts(state, &nothing)
    else:
        set_counts(state, report)


cdef fec_report since_window(const fec_adapt *state, const fec_report *report) noexcept nogil:
    cdef fec_report window
    window.number = report.number
    window.expected = report.expected - state.expected
    window.lost = report.lost - state.lost
    window.runs = report.runs - state.runs
    return window


cdef fec_report window_of(fec_adapt *state, const fec_report *report) noexcept nogil:
    """What is new. Counts that went backwards, or apart, are those of a peer that began again."""
    cdef fec_report window = since_window(state, report)
    if not state.begun or not is_sound(&window):
        begin_counts(state, report)
        window = since_window(state, report)
    state.begun = 1
    return window


cdef double surprise(double events, double expected) noexcept nogil:
    """By how many standard deviations there are more events than expected: the root of Poisson's deviance."""
    if events <= expected:
        return 0
    return sqrt(2 * (events * log(events / expected) - events + expected))


cdef double kept_part(const fec_adapt *state, const fec_report *window, double elapsed_ns) noexcept nogil:
    """Of the sums: nothing once a window says for sure that they are outdated."""
    cdef double worth = worth_of(state.memory)
    cdef double more = surprise(window.lost * worth, window.expected * worth * adapt_loss(state))
    cdef double fade_ns = QUICK_FADE_NS if more > LIKELY else FADE_NS
    if more > SIGNIFICANT:
        return 0
    return max(exp(-elapsed_ns / fade_ns), 1 - <double> window.expected / KEPT_DATAGRAMS)


cdef void fade(fec_adapt *state, double kept) noexcept nogil:
    state.datagrams *= <float> kept
    state.losses *= <float> kept
    state.followers *= <float> kept
    state.pairs *= <float> kept


cdef void add_pairs(fec_adapt *state, const fec_report *window, uint32_t k) noexcept nogil:
    """All but the first symbol of a block have a predecessor. Not of blocks from before the last change."""
    cdef double followers = window.lost * (k - 1.0) / k
    if state.changed_ns and state.window_ns < state.changed_ns + SETTLE_NS:
        return
    state.followers += <float> followers
    state.pairs += <float> min(<double> (window.lost - window.runs), followers)


cdef double memory_of(const fec_adapt *state, double repeated) noexcept nogil:
    """From how often a loss is followed by another one, at the interleave in use."""
    cdef double loss = min(state.losses / state.datagrams, 0.99)
    cdef double shared = max(0, min((repeated - loss) / (1 - loss), MOST_MEMORY))
    return pow(shared, 1.0 / state.interleave)


cdef void learn_memory(fec_adapt *state, double elapsed_ns) noexcept nogil:
    """Raised at once if it is too low, lowered slowly if too high; between, nothing is known for sure. It is forgotten
    if the sums have no trace of it where they would have, without interleaving, and if they are of no losses."""
    cdef double least = memory_of(state, bound(state.pairs, state.followers, -SIGNIFICANT))
    cdef double most = memory_of(state, bound(state.pairs, state.followers, MARGIN))
    if state.memory < least:
        state.memory = <float> memory_of(state, state.pairs / state.followers)
    elif state.memory > most:
        state.memory += <float> ((most - state.memory) * (1 - exp(-elapsed_ns / FADE_NS)))
    elif least == 0 and (state.interleave == 1 or state.losses < 1):
        state.memory *= <float> exp(-elapsed_ns / FORGET_NS)


cdef void add_window(fec_adapt *state, const fec_report *window, uint32_t k, uint64_t now_ns) noexcept nogil:
    cdef double elapsed_ns = <double> (now_ns - state.window_ns) if now_ns > state.window_ns else 0
    fade(state, kept_part(state, window, elapsed_ns))
    state.datagrams += window.expected
    state.losses += window.lost
    add_pairs(state, window, k)
    learn_memory(state, elapsed_ns)
    state.window_ns = now_ns


cdef void choose(const fec_adapt *state, const fec_levels *levels, uint64_t now_ns, uint32_t *repairs,
                 uint32_t *interleave) noexcept nogil:
    """A larger interleave at once, where it saves repairs; a smaller one after a while, so that it does not swing."""
    cdef double loss = adapt_loss(state)
    levels_choose(levels, loss, state.memory, repairs, interleave)
    if interleave[0] < state.interleave and state.changed_ns and now_ns < state.changed_ns + DWELL_NS:
        interleave[0] = state.interleave
        repairs[0] = levels_repairs(levels, loss, state.memory, state.interleave)
    repairs[0] = max(repairs[0], min(1, levels.most_repairs))


cdef bint adapt_report(fec_adapt *state, const fec_levels *levels, const fec_report *report, uint32_t k,
                       uint32_t interleave_now, uint64_t now_ns, uint32_t *repairs,
                       uint32_t *interleave) noexcept nogil:
    cdef fec_report window
    if not take_number(state, report.number, now_ns):
        return False
    note_interleave(state, interleave_now, now_ns)
    window = window_of(state, report)
    if window.expected >= WINDOW_DATAGRAMS or window.lost >= WINDOW_LOSSES:
        add_window(state, &window, k, now_ns)
        set_counts(state, report)
        choose(state, levels, now_ns, repairs, interleave)
    return True
