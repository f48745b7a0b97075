"""impair in plain Python. With a seed, every packet meets the same fate as in the hot code.

Two differences, since Python can neither hold a packet nor leave a checksum wrong: a delayed packet is a
copy whose original is dropped, and a corrupt one has a right checksum, as with corrupt_checksum = "mend".
"""

import random

WORD = 1 << 64
GOLDEN = 0x9E3779B97F4A7C15
QUESTIONS = (
    "random loss",
    "state change",
    "state loss",
    "copy",
    "copy's dice",
    "corrupt",
    "corrupt where",
    "reorder",
    "jitter",
)


def mixed(value):
    """splitmix64's output function."""
    value %= WORD
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % WORD
    value = (value ^ value >> 27) * 0x94D049BB133111EB % WORD
    return value ^ value >> 31


def numbered(stream, number):
    """The number-th number, from 1, of the generator that began at stream."""
    return mixed(stream + number * GOLDEN)


def drawn(dice, question):
    return numbered(dice, QUESTIONS.index(question) + 1)


def happens(dice, question, percent):
    return drawn(dice, question) >> 11 < int(percent / 100 * (1 << 53))


def flipped(payload, bit):
    changed = bytearray(payload)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


class Way:
    """A flow's state in one direction."""

    def __init__(self, stream):
        self.stream = stream
        self.packets = 0
        self.bad = False
        self.free_ns = self.last_ns = self.since_reordered = 0


class Module:
    def __init__(self, parameters, count):
        self.__dict__.update(parameters)
        self.count = count

    def egress(self, packet):
        self.pass_through(packet)

    def ingress(self, packet):
        self.pass_through(packet)

    def pass_through(self, packet):
        way = self.way_of(packet)
        dice = self.dice_of(way)
        if self.is_lost(way, dice):
            packet.drop()
            return
        if happens(dice, "copy", self.duplicate_percent):
            self.send(packet, way, drawn(dice, "copy's dice"), copy=True)
        self.send(packet, way, dice, copy=False)

    def way_of(self, packet):
        if packet.direction not in packet.flow.state:
            stream = mixed(2 * self.seed + (packet.direction == "ingress"))
            packet.flow.state[packet.direction] = Way(stream)
        return packet.flow.state[packet.direction]

    def dice_of(self, way):
        way.packets += 1
        return numbered(way.stream, way.packets) if self.seed else random.getrandbits(64)

    def is_lost(self, way, dice):
        found = way.bad
        change = self.burst_leave_percent if found else self.burst_enter_percent
        if happens(dice, "state change", change):
            way.bad = not found
        by_chance = happens(dice, "random loss", self.loss_percent)
        by_state = happens(dice, "state loss", self.burst_loss_percent if found else self.good_loss_percent)
        if by_chance or by_state:
            self.count("lost")
        if by_state and not by_chance:
            self.count("lost_burst")
        return by_chance or by_state

    def send(self, packet, way, dice, copy):
        if copy:
            self.count("duplicated")
        payload = self.corrupt(packet.payload, dice)
        at_ns = self.after_the_link(way, packet)
        if at_ns is None:
            self.count("queue_full")
            if not copy:
                packet.drop()
            return
        if self.skips_delay(way, dice):
            self.count("reordered")
        else:
            at_ns = self.delayed(way, at_ns, dice)
        if at_ns > packet.time_ns or copy:
            self.emit(packet, payload, at_ns - packet.time_ns, copy)
        elif payload != packet.payload:
            packet.payload = payload

    def emit(self, packet, payload, after_ns, copy):
        if after_ns:
            self.count("delayed")
        sent = packet.emit(payload, after_ms=(after_ns + 0.5) / 1e6 if after_ns else 0)
        if not sent:
            self.count("not_copied" if copy else "not_held")
        if not copy:
            packet.drop()

    def corrupt(self, payload, dice):
        if not payload or not happens(dice, "corrupt", self.corrupt_percent):
            return payload
        self.count("corrupted")
        return flipped(payload, drawn(dice, "corrupt where") % (8 * len(payload)))

    def after_the_link(self, way, packet):
        """When its last bit is on the link; None: it would wait too long."""
        start_ns = max(packet.time_ns, way.free_ns)
        if start_ns - packet.time_ns > int(self.queue_ms * 1e6):
            return None
        ns_per_byte = 8e6 / self.rate_kbit_per_s if self.rate_kbit_per_s else 0
        way.free_ns = start_ns + int(self.packet_bytes(packet) * ns_per_byte)
        return way.free_ns

    def packet_bytes(self, packet):
        """Of the IP packet, without IP or TCP options, which Python is not shown."""
        address = packet.flow.local[0]
        return (40 if ":" in address else 20) + (8 if packet.protocol == "udp" else 20) + len(packet.payload)

    def skips_delay(self, way, dice):
        able = way.since_reordered >= self.reorder_gap - 1
        skips = able and happens(dice, "reorder", self.reorder_percent)
        way.since_reordered = 0 if skips else way.since_reordered + 1
        return skips

    def delayed(self, way, at_ns, dice):
        jitter_ns, delay_ns = int(self.jitter_ms * 1e6), int(self.delay_ms * 1e6)
        if jitter_ns:
            delay_ns += drawn(dice, "jitter") % (2 * jitter_ns + 1) - jitter_ns
        at_ns += max(delay_ns, 0)
        if self.keep_order:
            at_ns = way.last_ns = max(at_ns, way.last_ns)
        return at_ns
