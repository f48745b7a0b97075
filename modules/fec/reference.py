"""fec in plain Python: the wire format of README.md, for tests and for reading.

What is missing: reports and `adaptive`; delivery in order; giving up a block before newer ones need its
place; telling a peer that began anew, or an id that is there by chance; checksums. Python has no timers: a
deadline is noticed by the datagram that comes next, which then leaves as a copy, behind the repairs; the last
block of a flow stays open.
"""

import random
import struct
from functools import lru_cache
from math import isqrt

POLYNOMIAL = 0x11D
MOST_SOURCES, MOST_REPAIRS, MOST_SYMBOLS = 200, 100, 255
ID = struct.Struct("!IH")  # SBN (3 bytes) and ESI (1), k
ADU = struct.Struct("!BH")  # flow id, length of the payload
NUMBERS = 1 << 24
EPOCH_BLOCKS = 1 << 12  # a sender begins at a random multiple of this
WINDOW_BLOCKS = 64  # the newest, and those behind it


# --- Reed-Solomon: symbol j is a polynomial's value at alpha^j ---


def powers_of_alpha():
    value = 1
    for _ in range(MOST_SYMBOLS):
        yield value
        value = value << 1 ^ (POLYNOMIAL if value & 0x80 else 0)


POWERS = tuple(powers_of_alpha())
LOGS = {power: log for log, power in enumerate(POWERS)}


@lru_cache(256)
def times(factor):
    """The products of all bytes, for bytes.translate."""
    return bytes([0, *(POWERS[(LOGS[factor] + LOGS[byte]) % 255] for byte in range(1, 256))])


@lru_cache(64)
def denominators(positions):
    """Logarithms, of Lagrange's polynomials."""
    points = [POWERS[position] for position in positions]
    return [sum(LOGS[own ^ other] for other in points if other != own) for own in points]


@lru_cache(512)
def row(positions, wanted):
    """What symbols bring to the one wanted; if they are the first k: the coefficients of RFC 5510."""
    distances = [LOGS[POWERS[position] ^ POWERS[wanted]] for position in positions]
    above = sum(distances)
    pairs = zip(distances, denominators(positions), strict=True)
    return [POWERS[(above - distance - below) % 255] for distance, below in pairs]


def symbol_at(wanted, symbols):
    """symbols: k of them, by position; all of one length."""
    total = 0
    for factor, symbol in zip(row(tuple(symbols), wanted), symbols.values(), strict=True):
        total ^= int.from_bytes(symbol.translate(times(factor)))
    return total.to_bytes(len(symbol))


# --- the wire ---


def id_of(sbn, esi, k):
    return ID.pack(sbn << 8 | esi, k)


def split(datagram):
    """(payload or symbol, SBN, ESI, k); None without an id."""
    if len(datagram) < ID.size:
        return None
    number, k = ID.unpack(datagram[-ID.size :])
    sbn, esi = divmod(number, 256)
    is_id = 1 <= k <= MOST_SOURCES and esi < min(k + MOST_REPAIRS, MOST_SYMBOLS)
    return (datagram[: -ID.size], sbn, esi, k) if is_id else None


def source_symbol(payload, symbol_bytes):
    return (ADU.pack(0, len(payload)) + payload).ljust(symbol_bytes, b"\0")


def payload_of(symbol):
    """None: no sender of ours makes such a source symbol."""
    flow_id, payload_bytes = ADU.unpack_from(symbol)
    payload, zeros = symbol[ADU.size :][:payload_bytes], symbol[ADU.size :][payload_bytes:]
    return payload if flow_id == 0 and len(payload) == payload_bytes and not any(zeros) else None


class Group:
    """Blocks that are filled in turn on egress: the payloads of each."""

    def __init__(self, sbn, interleave, time_ns):
        self.sbn, self.time_ns, self.datagrams = sbn, time_ns, 0
        self.blocks = [[] for _ in range(interleave)]


class Block:
    """What arrived of a block: payloads and repair symbols, by ESI."""

    def __init__(self):
        self.sources, self.repairs = {}, {}
        self.planned = None  # the k of its sources
        self.k = self.symbol_bytes = None  # of its repairs

    def admits(self, k, esi, payload):
        if self.k is None:
            return self.planned in (None, k)
        fits = len(payload) + ADU.size <= self.symbol_bytes
        return self.planned in (None, k) and esi < self.k <= k and fits

    def admits_repair(self, k, symbol):
        longest = max(map(len, self.sources.values()), default=0)
        return (
            self.k in (None, k)
            and self.symbol_bytes in (None, len(symbol))
            and max(self.sources, default=0) < k <= (self.planned or k)
            and longest + ADU.size <= len(symbol)
        )

    def missing_symbols(self):
        """Source symbols, by number, once as many symbols as the block has arrived; before, none."""
        if len(self.sources) + len(self.repairs) != self.k:
            return {}
        known = {esi: source_symbol(each, self.symbol_bytes) for esi, each in self.sources.items()}
        known.update(self.repairs)
        return {esi: symbol_at(esi, known) for esi in range(self.k) if esi not in known}

    def lost(self):
        """Sources that did not arrive, as far as it is known."""
        return (self.k or max(self.sources, default=-1) + 1) - len(self.sources)


class Module:
    def __init__(self, parameters, count):
        self.k, self.m = parameters["source_symbols"], parameters["repair_symbols"]
        self.interleave = parameters["interleave"]
        self.deadline_ns = int(parameters["deadline_ms"] * 1e6)
        self.drop_unmarked = parameters["unmarked"] == "drop"
        pairs = [pair.split(":") for pair in parameters["short_blocks"].split()]
        self.short_blocks = [(int(size), int(repairs)) for size, repairs in pairs]
        self.count = count
        for k, m in [(self.k, self.m), *self.short_blocks]:
            if k + m > MOST_SYMBOLS:
                raise ValueError(f"{k} datagrams and {m} repairs are more than {MOST_SYMBOLS} symbols")

    # --- egress ---

    def egress(self, packet):
        state, payload = packet.flow.state, packet.payload
        closed = self.close_late(packet, state.get("group"))
        group = state.get("group") or self.next_group(state, packet.time_ns)
        esi, place = divmod(group.datagrams, self.interleave)
        self.send(packet, payload + id_of(group.sbn + place, esi, self.k), as_copy=closed)
        self.count("sources")
        self.count("source_bytes", len(payload))
        self.count("added_bytes", ID.size)
        group.datagrams += 1
        state["group"], state["next"] = group, group.sbn + min(group.datagrams, self.interleave)
        group.blocks[place].append(payload)
        if esi == self.k - 1:
            self.close(packet, group, place)
        if group.datagrams == self.k * self.interleave:
            state["group"] = None

    def next_group(self, state, time_ns):
        sbn = state.get("next", random.randrange(NUMBERS // EPOCH_BLOCKS) * EPOCH_BLOCKS)
        return Group(sbn if sbn + self.interleave <= NUMBERS else 0, self.interleave, time_ns)

    def send(self, packet, content, as_copy):
        try:
            if as_copy and packet.emit(content):
                packet.drop()
            else:
                packet.payload = content
        except ValueError:
            self.count("no_room")
            raise

    def close_late(self, packet, group):
        """Closes the open blocks of a group whose time is over; whether it was."""
        if group is None or packet.time_ns < group.time_ns + self.deadline_ns:
            return False
        for place, payloads in enumerate(group.blocks):
            if 0 < len(payloads) < self.k:
                self.close(packet, group, place)
        packet.flow.state["group"] = None
        return True

    def close(self, packet, group, place):
        payloads = group.blocks[place]
        k, symbol_bytes = len(payloads), max(map(len, payloads)) + ADU.size
        self.count("blocks_full" if k == self.k else "blocks_short")
        symbols = {esi: source_symbol(each, symbol_bytes) for esi, each in enumerate(payloads)}
        for esi in range(k, k + self.repairs_of(k)):
            content = symbol_at(esi, symbols) + id_of(group.sbn + place, esi, k)
            try:
                sent = packet.emit(content)
            except ValueError:  # no packet is as long
                self.count("unprotected", k)
                return
            self.count("repairs" if sent else "not_sent")
            self.count("added_bytes", len(content) if sent else 0)

    def repairs_of(self, k):
        if k == self.k:
            return self.m
        for size, repairs in self.short_blocks:
            if k <= size:
                return min(repairs, k)
        return min(k, isqrt((self.m**2 * k - 1) // self.k) + 1) if self.m else 0

    # --- ingress ---

    def ingress(self, packet):
        found = split(packet.payload)
        if found is None:
            self.count("unmarked")
            if self.drop_unmarked:
                packet.drop()
            return
        content, sbn, esi, k = found
        block = self.block_of(packet.flow.state, sbn)
        if esi < k:
            self.source(packet, block, content, esi, k)
        else:
            self.repair(packet, block, content, esi, k)

    def block_of(self, state, sbn):
        """None: it is behind the window."""
        blocks, newest = state.setdefault("blocks", {}), state.setdefault("newest", sbn)
        ahead = (sbn - newest + NUMBERS // 2) % NUMBERS - NUMBERS // 2
        if ahead <= -WINDOW_BLOCKS:
            return None
        if ahead > 0:
            state["newest"] = sbn
            for old in [each for each in blocks if (sbn - each) % NUMBERS >= WINDOW_BLOCKS]:
                self.end(blocks.pop(old))
        return blocks.setdefault(sbn, Block())

    def end(self, block):
        lost = block.lost()
        self.count("blocks_dropped", lost > 0)
        self.count("unrecovered", lost)

    def source(self, packet, block, payload, esi, k):
        if block and esi in block.sources:
            self.count("duplicate")
            packet.drop()
            return
        packet.payload = payload
        self.count("arrived")
        if block is None:
            self.count("late")
        elif not block.admits(k, esi, payload):
            self.count("invalid")
        else:
            if block.planned is None and k != self.k:
                self.count("other_parameters")
            block.planned = k
            block.sources[esi] = payload
            self.emit_in_order(packet, self.recover(block), payload)

    def emit_in_order(self, packet, made, payload):
        """What was lost, and behind it the datagram that completes its block; alone, that one goes on."""
        for each in [*made, payload] if made else []:
            packet.emit(each)
        if made:
            packet.drop()

    def repair(self, packet, block, symbol, esi, k):
        self.count("repairs_arrived")
        made = []
        if block and esi in block.repairs:
            self.count("duplicate")
        elif block and block.admits_repair(k, symbol):
            block.k, block.symbol_bytes = k, len(symbol)
            block.repairs[esi] = symbol
            made = self.recover(block)
        elif block:
            self.count("invalid")
        if not made:
            packet.drop()
            return
        packet.payload = made[0]
        for other in made[1:]:
            packet.emit(other)

    def recover(self, block):
        """The payloads that were lost, in order, when enough symbols have arrived."""
        made = {esi: payload_of(symbol) for esi, symbol in block.missing_symbols().items()}
        valid = {esi: payload for esi, payload in made.items() if payload is not None}
        block.sources.update(valid)
        self.count("recovered", len(valid))
        self.count("invalid", len(made) - len(valid))
        return list(valid.values())
