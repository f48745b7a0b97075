"""See reed_solomon.pxd. Logarithms throughout: a product of differences is a sum, a quotient a difference, mod 255.

log(α^a + α^b) = b + log(1 + α^(a-b)), one look into a table; and over a run of positions 0..k-1 such logarithms add up
to a difference of two running totals. So a coefficient of a repair symbol costs O(1), and one of a decoding row
O(missing): the run, less the positions that are missing, plus the repair symbols that stand in for them.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from layer45.fastpath.isal cimport ISAL_PRESENT, ec_encode_data_update, ec_init_tables

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *, const void *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)

cdef enum:
    POLYNOMIAL = 0x11D
    ORDER = 255             # of α
    FARTHEST = 254          # greatest difference of two positions
    TABLE_BYTES = 32        # the most that ISA-L keeps for a coefficient
    ROWS_AT_ONCE = 4        # their sums stay in the nearest cache, and their tables on the stack

cdef uint8_t EXP[ORDER]
cdef uint8_t LOG[256]
cdef uint8_t LOG_OF_ONE_PLUS[2 * FARTHEST + 1]   # log(1 + α^d) at d + FARTHEST; 0 where d = 0
cdef uint32_t TOTAL[2 * FARTHEST + 2]            # of those before
cdef uint8_t PRODUCT[256][256]
cdef rs_code *CODES = NULL
cdef pthread_mutex_t CODES_LOCK                  # CODES, and users of each
cdef bint USE_ISAL = ISAL_PRESENT

cdef struct known_set:      # positions 0..k-1, less the missing, plus as many repair symbols
    uint32_t k
    uint32_t gaps
    uint8_t missing[RS_MOST_REPAIRS]
    uint8_t repairs[RS_MOST_REPAIRS]


cdef inline uint32_t log_of_sum(uint32_t a, uint32_t b) noexcept nogil:
    """log(α^a + α^b), a ≠ b; at most 508."""
    return b + LOG_OF_ONE_PLUS[a + FARTHEST - b]


cdef inline uint32_t log_of_run(uint32_t p, uint32_t k) noexcept nogil:
    """log ∏ (α^p + α^t) over t = 0..k-1, t ≠ p; not reduced."""
    return k * (k - 1) // 2 - (p if p < k else 0) + TOTAL[p + FARTHEST + 1] - TOTAL[p + FARTHEST + 1 - k]


cdef uint32_t log_of_differences(const known_set *known, uint32_t p) noexcept nogil:
    """log ∏ (α^p + α^t) over the known positions t ≠ p."""
    cdef uint32_t log = log_of_run(p, known.k)
    cdef uint32_t gap
    for gap in range(known.gaps):
        if known.repairs[gap] != p:
            log += log_of_sum(p, known.repairs[gap])
        if known.missing[gap] != p:
            log += 2 * ORDER - log_of_sum(p, known.missing[gap])
    return log % ORDER


cdef void find_weights(const known_set *known, const uint8_t *positions, uint8_t *weights) noexcept nogil:
    """What position i brings to every row: log 1 / ∏ (α^i + α^t)."""
    cdef uint32_t i
    for i in range(known.k):
        weights[i] = <uint8_t> (ORDER - log_of_differences(known, positions[i]))


cdef void find_row(const known_set *known, const uint8_t *positions, const uint8_t *weights, uint32_t wanted,
                   uint8_t *row) noexcept nogil:
    cdef uint32_t log = log_of_differences(known, wanted) + 2 * ORDER
    cdef uint32_t i
    for i in range(known.k):
        row[i] = EXP[(log + weights[i] - log_of_sum(wanted, positions[i])) % ORDER]


cdef void start_run(known_set *known, uint32_t k, uint8_t *positions) noexcept nogil:
    """All source symbols are known, and no other."""
    cdef uint32_t i
    known.k = k
    known.gaps = 0
    for i in range(k):
        positions[i] = <uint8_t> i


cdef int find_known(known_set *known, uint32_t k, const uint8_t *positions) noexcept nogil:
    """0; -1 when a position is out of range or there twice. Of k different ones, as many miss as are repairs."""
    cdef uint8_t seen[RS_MOST_SYMBOLS]
    cdef uint32_t i, found = 0
    if not rs_valid(k, 0):
        return -1
    memset(seen, 0, RS_MOST_SYMBOLS)
    known.k = k
    known.gaps = 0
    for i in range(k):
        if positions[i] >= min(k + RS_MOST_REPAIRS, <uint32_t> RS_MOST_SYMBOLS) or seen[positions[i]]:
            return -1
        seen[positions[i]] = 1
        if positions[i] >= k:
            known.repairs[known.gaps] = positions[i]
            known.gaps += 1
    for i in range(k):
        if not seen[i]:
            known.missing[found] = <uint8_t> i
            found += 1
    return 0


cdef void add_product(uint8_t coefficient, const uint8_t *source, uint8_t *to, uint32_t bytes) noexcept nogil:
    cdef const uint8_t *products = PRODUCT[coefficient]
    cdef size_t at
    for at in range(<size_t> bytes):
        to[at] ^= products[source[at]]


cdef void clear(uint8_t **sums, uint32_t count, uint32_t bytes) noexcept nogil:
    """With all their room, which is longer than any source's."""
    cdef uint32_t row
    for row in range(count):
        memset(sums[row], 0, rs_room_bytes(bytes))


cdef void sum_by_table(const uint8_t *rows, uint32_t k, uint8_t **sources, const uint32_t *source_bytes,
                       uint8_t **sums, uint32_t count) noexcept nogil:
    """sums[r] += Σ rows[r][i] · sources[i]: what ISA-L does, without it."""
    cdef uint32_t row, i
    for row in range(count):
        for i in range(k):
            add_product(rows[row * k + i], sources[i], sums[row], source_bytes[i])


cdef void sum_by_isal(uint8_t *tables, uint32_t k, uint8_t **sources, const uint32_t *source_bytes,
                      uint8_t **sums, uint32_t count) noexcept nogil:
    """Source by source. ec_encode_data goes through all sources side by side, more streams than a processor foresees:
    dearer by up to a fifth where they are in the nearest cache, up to 2.6 times as dear where not; perf/README.md.
    And it would want them all of one length."""
    cdef uint32_t i
    for i in range(k):
        if source_bytes[i]:
            ec_encode_data_update(rs_room_bytes(source_bytes[i]), k, count, i, tables, sources[i], sums)


cdef void sum_rows(const uint8_t *rows, uint32_t k, uint8_t **sources, const uint32_t *source_bytes, uint8_t **sums,
                   uint32_t count) noexcept nogil:
    """Rows of the moment, at most ROWS_AT_ONCE: ISA-L's tables for them live as long as the call."""
    cdef uint8_t tables[ROWS_AT_ONCE * RS_MOST_SOURCES * TABLE_BYTES]
    if not USE_ISAL:
        sum_by_table(rows, k, sources, source_bytes, sums, count)
        return
    ec_init_tables(k, count, <uint8_t *> rows, tables)
    sum_by_isal(tables, k, sources, source_bytes, sums, count)


cdef void interpolate(const known_set *known, const uint8_t *positions, uint8_t **symbols,
                      const uint32_t *symbol_bytes, const uint8_t *wanted, uint8_t **sums, uint32_t count,
                      uint32_t bytes) noexcept nogil:
    """The symbols at `count` wanted positions from the known ones."""
    cdef uint8_t weights[RS_MOST_SOURCES]
    cdef uint8_t rows[ROWS_AT_ONCE * RS_MOST_SOURCES]
    cdef uint32_t first = 0, row, some
    if count == 0 or bytes == 0:
        return
    find_weights(known, positions, weights)
    while first < count:
        some = min(<uint32_t> ROWS_AT_ONCE, count - first)
        for row in range(some):
            find_row(known, positions, weights, wanted[first + row], rows + row * known.k)
        clear(sums + first, some, bytes)
        sum_rows(rows, known.k, symbols, symbol_bytes, sums + first, some)
        first += some


cdef void rs_encode(const rs_code *code, uint8_t **sources, const uint32_t *source_bytes, uint8_t **repairs,
                    uint32_t count, uint32_t bytes) noexcept nogil:
    if count == 0 or bytes == 0:
        return
    clear(repairs, count, bytes)
    if USE_ISAL:
        sum_by_isal(code.tables, code.k, sources, source_bytes, repairs, count)
    else:
        sum_by_table(code.rows, code.k, sources, source_bytes, repairs, count)


cdef void rs_add(const rs_code *code, uint32_t index, const uint8_t *source, uint8_t **repairs, uint32_t count,
                 uint32_t bytes) noexcept nogil:
    cdef uint32_t row
    bytes = rs_room_bytes(bytes)
    if count == 0 or bytes == 0:
        return
    if USE_ISAL:
        ec_encode_data_update(bytes, code.k, count, index, code.tables, <uint8_t *> source, repairs)
        return
    for row in range(count):
        add_product(code.rows[row * code.k + index], source, repairs[row], bytes)


cdef int rs_encode_short(uint32_t k, uint8_t **sources, const uint32_t *source_bytes, uint8_t **repairs,
                         uint32_t count, uint32_t bytes) noexcept nogil:
    cdef known_set known
    cdef uint8_t positions[RS_MOST_SYMBOLS + 1]
    if not rs_valid(k, count):
        return -1
    start_run(&known, k + count, positions)  # numbers the repair symbols too
    known.k = k
    interpolate(&known, positions, sources, source_bytes, positions + k, repairs, count, bytes)
    return 0


cdef int rs_missing(uint32_t k, const uint8_t *positions, uint8_t *missing) noexcept nogil:
    cdef known_set known
    cdef uint32_t gap
    if find_known(&known, k, positions) != 0:
        return -1
    for gap in range(known.gaps):
        missing[gap] = known.missing[gap]
    return <int> known.gaps


cdef int rs_decode(uint32_t k, const uint8_t *positions, uint8_t **symbols, const uint32_t *symbol_bytes,
                   uint8_t **recovered, uint32_t bytes) noexcept nogil:
    cdef known_set known
    if find_known(&known, k, positions) != 0:
        return -1
    interpolate(&known, positions, symbols, symbol_bytes, known.missing, recovered, known.gaps, bytes)
    return <int> known.gaps


cdef void rs_row(uint32_t k, uint32_t position, uint8_t *row) noexcept nogil:
    cdef known_set known
    cdef uint8_t positions[RS_MOST_SYMBOLS]
    cdef uint8_t weights[RS_MOST_SOURCES]
    start_run(&known, k, positions)
    find_weights(&known, positions, weights)
    find_row(&known, positions, weights, position, row)


cdef rs_code *new_code_open(uint32_t k, uint32_t m) noexcept nogil:
    """One piece of memory: the code, its rows, its tables."""
    cdef size_t coefficients = <size_t> k * m
    cdef rs_code *code = <rs_code *> calloc(1, sizeof(rs_code) + coefficients * (1 + TABLE_BYTES))
    cdef uint32_t row
    if code == NULL:
        return NULL
    code.k = k
    code.m = m
    code.rows = <uint8_t *> (code + 1)
    code.tables = code.rows + coefficients
    for row in range(m):
        rs_row(k, k + row, code.rows + row * k)
    if m:
        ec_init_tables(k, m, code.rows, code.tables)
    return code


cdef rs_code *shared_code_open(uint32_t k, uint32_t m) noexcept nogil:
    """Under the lock: one that is open, or a new one."""
    global CODES
    cdef rs_code *code = CODES
    while code != NULL and (code.k != k or code.m != m):
        code = code.next
    if code == NULL:
        code = new_code_open(k, m)
        if code == NULL:
            return NULL
        code.next = CODES
        CODES = code
    code.users += 1
    return code


cdef const rs_code *rs_code_open(uint32_t k, uint32_t m) noexcept nogil:
    cdef rs_code *code
    if not rs_valid(k, m):
        return NULL
    pthread_mutex_lock(&CODES_LOCK)
    code = shared_code_open(k, m)
    pthread_mutex_unlock(&CODES_LOCK)
    return code


cdef void rs_code_end(const rs_code *code) noexcept nogil:
    """The last user frees it. NULL is none."""
    cdef rs_code **link = &CODES
    cdef rs_code *found
    if code == NULL:
        return
    pthread_mutex_lock(&CODES_LOCK)
    while link[0] != code:
        link = &link[0].next
    found = link[0]
    found.users -= 1
    if found.users == 0:
        link[0] = found.next
        free(found)
    pthread_mutex_unlock(&CODES_LOCK)


cdef uint32_t rs_open_codes() noexcept nogil:
    """How many different codes are open."""
    cdef uint32_t count = 0
    cdef rs_code *code
    pthread_mutex_lock(&CODES_LOCK)
    code = CODES
    while code != NULL:
        count += 1
        code = code.next
    pthread_mutex_unlock(&CODES_LOCK)
    return count


cdef bint rs_use_isal(bint wanted) noexcept nogil:
    global USE_ISAL
    USE_ISAL = wanted and ISAL_PRESENT
    return USE_ISAL


cdef void make_field() noexcept nogil:
    """Powers of α and their logarithms; every product."""
    cdef uint32_t value = 1, a, b
    for a in range(<uint32_t> ORDER):
        EXP[a] = <uint8_t> value
        LOG[value] = <uint8_t> a
        value = value << 1 ^ (POLYNOMIAL if value & 0x80 else 0)
    for a in range(1, 256):
        for b in range(1, 256):
            PRODUCT[a][b] = EXP[(LOG[a] + LOG[b]) % ORDER]


cdef void make_totals() noexcept nogil:
    cdef uint32_t at
    for at in range(2 * FARTHEST + 1):
        if at != FARTHEST:
            LOG_OF_ONE_PLUS[at] = LOG[1 ^ EXP[(at + ORDER - FARTHEST) % ORDER]]
        TOTAL[at + 1] = TOTAL[at] + LOG_OF_ONE_PLUS[at]


pthread_mutex_init(&CODES_LOCK, NULL)
make_field()
make_totals()
