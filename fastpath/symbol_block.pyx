"""Reed-Solomon for tests, tools and benchmarks: a thin shell around reed_solomon.pxd. Not for the packet path."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from layer45.fastpath.reed_solomon cimport (
    RS_MOST_REPAIRS, RS_MOST_SOURCES, RS_MOST_SYMBOLS, RS_ROUND_BYTES, rs_add, rs_code, rs_code_end, rs_code_open,
    rs_decode, rs_encode, rs_encode_short, rs_missing, rs_open_codes, rs_room_bytes, rs_row, rs_use_isal, rs_valid,
)

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **memory, size_t alignment, size_t count)

MOST_SOURCES = RS_MOST_SOURCES
MOST_REPAIRS = RS_MOST_REPAIRS
MOST_SYMBOLS = RS_MOST_SYMBOLS


def use_isal(bint wanted) -> bool:
    """Chooses ISA-L or our own tables, for the whole process. What runs now: False where it was not built in."""
    return rs_use_isal(wanted)


def open_codes() -> int:
    """How many different codes are open in this process."""
    return rs_open_codes()


def rows(uint32_t k, uint32_t n) -> list[bytes]:
    """Coefficients of each of the n - k repair symbols. ValueError when there is no such code."""
    cdef uint8_t row[RS_MOST_SOURCES]
    cdef uint32_t position
    if n < k or not rs_valid(k, n - k):
        raise ValueError(f"no code with {k} source symbols of {n}")
    found = []
    for position in range(k, n):
        rs_row(k, position, row)
        found.append(row[:k])
    return found


def missing(uint32_t k, bytes positions) -> list[int] | None:
    """Source symbols that k received ones leave open. None when a number is out of range or there twice."""
    cdef uint8_t found[RS_MOST_REPAIRS]
    cdef int count, gap
    if len(positions) != k:
        raise ValueError(f"{len(positions)} symbols, not {k}")
    count = rs_missing(k, positions, found)
    return None if count < 0 else [found[gap] for gap in range(count)]


def encode(list sources, uint32_t m) -> list[bytes]:
    """The m repair symbols of a block, as long as the longest source; shorter ones count as if zeros followed."""
    block = Block(len(sources), m, max(map(len, sources), default=0))
    for position, symbol in enumerate(sources):
        block.put(position, symbol)
    block.encode()
    return [block.get(block.k + repair) for repair in range(m)]


def decode(uint32_t k, list received) -> dict[int, bytes]:
    """The missing source symbols, from exactly k pairs (number, symbol): as long as the longest of these."""
    m = max((position + 1 for position, _ in received if position >= k), default=k) - k
    block = Block(k, m, max((len(symbol) for _, symbol in received), default=0))
    for position, symbol in received:
        block.put(position, symbol)
    return {gap: block.get(gap) for gap in block.decode([position for position, _ in received])}


cdef class Block:
    """k source symbols, of no bytes, and m repair symbols, of symbol_bytes zeros, in one piece of memory: there is room
    for symbol_bytes in each. ValueError when there is no such code."""

    cdef readonly uint32_t k, m, symbol_bytes
    cdef const rs_code *code
    cdef uint8_t *memory
    cdef uint8_t *symbols[RS_MOST_SYMBOLS]
    cdef uint32_t lengths[RS_MOST_SYMBOLS]

    def __cinit__(self, uint32_t k, uint32_t m, uint32_t symbol_bytes):
        cdef size_t room = rs_room_bytes(symbol_bytes)
        cdef uint32_t position
        if not rs_valid(k, m):
            raise ValueError(f"no code of {k} source and {m} repair symbols")
        self.k, self.m, self.symbol_bytes = k, m, symbol_bytes
        self.code = rs_code_open(k, m)
        if self.code == NULL or posix_memalign(<void **> &self.memory, RS_ROUND_BYTES, room * (k + m) + 1) != 0:
            raise MemoryError
        memset(self.memory, 0, room * (k + m))
        for position in range(k + m):
            self.symbols[position] = self.memory + room * position
            self.lengths[position] = 0 if position < k else symbol_bytes

    def __dealloc__(self):
        rs_code_end(self.code)
        free(self.memory)

    cdef uint8_t *_symbol(self, uint32_t position) except NULL:
        if position >= self.k + self.m:
            raise ValueError(f"no symbol {position} of {self.k} + {self.m}")
        return self.symbols[position]

    def put(self, uint32_t position, bytes symbol) -> None:
        """Sets a symbol and its length. Behind what it needs the room holds rubbish, as borrowed memory does."""
        cdef uint8_t *at = self._symbol(position)
        cdef uint32_t room = rs_room_bytes(len(symbol))
        if len(symbol) > self.symbol_bytes:
            raise ValueError(f"{len(symbol)} bytes are more than {self.symbol_bytes}")
        memcpy(at, <const uint8_t *> symbol, len(symbol))
        memset(at + len(symbol), 0, room - len(symbol))
        memset(at + room, 0xFF, rs_room_bytes(self.symbol_bytes) - room)
        self.lengths[position] = len(symbol)

    def get(self, uint32_t position) -> bytes:
        """A symbol, in its own length: what was made has symbol_bytes."""
        return self._symbol(position)[:self.lengths[position]]

    cdef void _lengthen_repairs(self) noexcept:
        cdef uint32_t position
        for position in range(self.k, self.k + self.m):
            self.lengths[position] = self.symbol_bytes

    def encode(self, uint32_t rounds=1) -> None:
        """Makes the repair symbols of the whole block."""
        cdef uint32_t _
        self._lengthen_repairs()
        with nogil:
            for _ in range(rounds):
                rs_encode(
                    self.code, self.symbols, self.lengths, self.symbols + self.k, self.m, self.symbol_bytes
                )

    def encode_short(self, uint32_t rounds=1) -> None:
        """The same with coefficients made on the way."""
        cdef uint32_t _
        self._lengthen_repairs()
        with nogil:
            for _ in range(rounds):
                rs_encode_short(
                    self.k, self.symbols, self.lengths, self.symbols + self.k, self.m, self.symbol_bytes
                )

    def add(self, uint32_t index) -> None:
        """Adds a source symbol to the repair symbols as they are."""
        if index >= self.k:
            raise ValueError(f"no source symbol {index} of {self.k}")
        rs_add(self.code, index, self.symbols[index], self.symbols + self.k, self.m, self.lengths[index])

    def add_all(self, uint32_t rounds=1) -> None:
        """Clears the repair symbols and adds every source symbol."""
        cdef uint32_t index, _
        cdef size_t repair_bytes = <size_t> rs_room_bytes(self.symbol_bytes) * self.m
        self._lengthen_repairs()
        with nogil:
            for _ in range(rounds):
                memset(self.memory + <size_t> rs_room_bytes(self.symbol_bytes) * self.k, 0, repair_bytes)
                for index in range(self.k):
                    rs_add(
                        self.code, index, self.symbols[index], self.symbols + self.k, self.m, self.lengths[index]
                    )

    def decode(self, list received, uint32_t rounds=1) -> list[int]:
        """Makes the source symbols that are not among the k received ones, in their places; their numbers."""
        cdef uint8_t positions[RS_MOST_SYMBOLS]
        cdef uint8_t gaps[RS_MOST_REPAIRS]
        cdef uint8_t *symbols[RS_MOST_SYMBOLS]
        cdef uint8_t *recovered[RS_MOST_REPAIRS]
        cdef uint32_t lengths[RS_MOST_SYMBOLS]
        cdef int count, gap
        cdef uint32_t at, _
        if len(received) != self.k:
            raise ValueError(f"{len(received)} symbols, not {self.k}")
        for at in range(self.k):
            symbols[at] = self._symbol(received[at])
            positions[at] = received[at]
            lengths[at] = self.lengths[positions[at]]
        count = rs_missing(self.k, positions, gaps)
        if count < 0:
            raise ValueError("a symbol is there twice")
        for gap in range(count):
            recovered[gap] = self.symbols[gaps[gap]]
            self.lengths[gaps[gap]] = self.symbol_bytes
        with nogil:
            for _ in range(rounds):
                rs_decode(self.k, positions, symbols, lengths, recovered, self.symbol_bytes)
        return [gaps[gap] for gap in range(count)]
