"""See residual.pxd. Nothing is subtracted from a sum, so that a residual of 1e-6 is as exact as one of 0.1."""

from libc.stdint cimport uint32_t
from libc.string cimport memset

cdef double IMPOSSIBLE = 1e-20  # as rare as that is left out: all of it together is far below any target


cdef void start_row(loss_row *row, double loss, double memory, double passed, double lost) noexcept nogil:
    row.after_passed = loss * (1 - memory)
    row.after_lost = loss + (1 - loss) * memory
    row.lost = row.room + RS_MOST_SOURCES
    row.width = 1
    row.passed[0] = passed
    row.lost[0] = lost


cdef void change_cells(double *passed, double *lost, uint32_t count, double after_passed,
                       double after_lost) noexcept nogil:
    cdef double was_passed, was_lost
    cdef uint32_t n
    for n in range(count):
        was_passed = passed[n]
        was_lost = lost[n]
        passed[n] = was_passed * (1 - after_passed) + was_lost * (1 - after_lost)
        lost[n] = was_passed * after_passed + was_lost * after_lost


cdef void add_packet(loss_row *row) noexcept nogil:
    change_cells(row.passed, row.lost, row.width, row.after_passed, row.after_lost)
    row.lost -= 1
    row.lost[0] = 0
    row.passed[row.width] = 0
    if row.lost[row.width] > IMPOSSIBLE:
        row.width += 1


cdef void weigh(const loss_row *row, source_row *sources) noexcept nogil:
    cdef uint32_t n = row.width
    sources.width = n
    sources.from_here[n] = 0
    while n:
        n -= 1
        sources.passed[n] = n * row.passed[n]
        sources.lost[n] = n * row.lost[n]
        sources.from_here[n] = sources.from_here[n + 1] + sources.passed[n] + sources.lost[n]


cdef void fill_sources(source_row *sources, uint32_t k, double loss, double memory) noexcept nogil:
    """The first one's predecessor is any packet."""
    cdef loss_row row
    cdef uint32_t _
    start_row(&row, loss, memory, 1 - loss, loss)
    for _ in range(k):
        add_packet(&row)
    weigh(&row, sources)


cdef void find_exceeds(const loss_row *row, uint32_t m, double *exceeds) noexcept nogil:
    cdef uint32_t n = row.width - 1
    memset(exceeds + n, 0, (m + 1 - n) * sizeof(double))
    while n:
        exceeds[n - 1] = exceeds[n] + row.passed[n] + row.lost[n]
        n -= 1


cdef void start_repairs(repair_rows *repairs, double loss, double memory) noexcept nogil:
    cdef uint32_t fate
    for fate in range(2):
        start_row(&repairs.rows[fate], loss, memory, 1 - fate, fate)
        find_exceeds(&repairs.rows[fate], 0, repairs.exceeds[fate])


cdef void add_repair(repair_rows *repairs, uint32_t m) noexcept nogil:
    cdef uint32_t fate
    for fate in range(2):
        add_packet(&repairs.rows[fate])
        find_exceeds(&repairs.rows[fate], m, repairs.exceeds[fate])


cdef double unmended(const source_row *sources, const repair_rows *repairs, uint32_t m) noexcept nogil:
    """With n lost, m - n repair symbols may be lost too."""
    cdef double total = lost_beyond(sources, m)
    cdef uint32_t n
    for n in range(1, min(m + 1, sources.width)):
        total += sources.passed[n] * repairs.exceeds[0][m - n] + sources.lost[n] * repairs.exceeds[1][m - n]
    return total
