"""scramble in plain Python: the arithmetic of README.md, for tests and for reading."""

MASK = (1 << 64) - 1
HALF = (1 << 32) - 1
STEP = 0x9E3779B97F4A7C15
ODD = 0xD6E8FEB86659FD93


def mix(value):
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def fold_product(left, right):
    product = left * right
    return product & MASK ^ product >> 64


def multiply_halves(value, factor):
    low, high = value & HALF, value >> 32
    return (high * factor & HALF) << 32 | low * factor & HALF


def stream_word(value):
    value = multiply_halves(value ^ value >> 32, 0x85EBCA6B)
    value ^= value >> 15
    value = multiply_halves((value ^ value << 32) & MASK, 0xC2B2AE35)
    return value ^ value >> 29


def word(content):
    return int.from_bytes(content, "little")


def keystream(base, position, count):
    """Bytes [position, position + count)."""
    first, last = position // 8, (position + count + 7) // 8
    values = ((base + block * STEP) & MASK for block in range(first, last))
    stream = b"".join(stream_word(value).to_bytes(8, "little") for value in values)
    return stream[position % 8 : position % 8 + count]


def xor(content, stream):
    return (word(content) ^ word(stream[: len(content)])).to_bytes(len(content), "little")


def digest(content, key):
    lanes = [(key + lane * STEP) & MASK for lane in range(4)]
    for at in range(0, len(content), 8):
        lane = at // 8 % 4
        lanes[lane] = fold_product(lanes[lane] ^ word(content[at : at + 8]), ODD) + STEP & MASK
    result = key ^ len(content)
    for lane in lanes:
        result = mix(result ^ lane)
    return result.to_bytes(8, "little")


def expand(key, purpose):
    state = mix(purpose * STEP + len(key) & MASK)
    for at in range(0, len(key), 8):
        state = mix(state ^ word(key[at : at + 8])) + STEP & MASK
    return mix(state)


class Module:
    def __init__(self, parameters, count):
        self.digest_key, self.datagram_key, self.stream_key = (
            expand(parameters["key"], purpose) for purpose in (1, 2, 3)
        )
        self.by_sequence = parameters["nonce"] == "sequence"
        self.count = count
        self.stream = 0  # number of the TCP stream

    def egress(self, packet):
        self.change_datagram(packet, self.scrambled, "scrambled")

    def ingress(self, packet):
        self.change_datagram(packet, self.unscrambled, "unscrambled")

    def change_datagram(self, packet, by_content, counter):
        payload = packet.payload
        if not payload:
            return
        if self.by_sequence:
            base = mix((self.datagram_key + packet.sequence * STEP) & MASK)
            packet.payload = xor(payload, keystream(base, 0, len(payload)))
        else:
            packet.payload = by_content(payload)
        self.count(counter)

    def inserted(self, offset):
        return 0

    def change(self, direction, offset, content):
        """TCP, both directions: bytes of the stream from an offset on."""
        return xor(content, keystream(mix(self.stream_key ^ self.stream), offset, len(content)))

    def split(self, payload):
        at = min(8, len(payload) // 2)
        return payload[:at], payload[at:]

    def stream_for(self, short, rest):
        base = mix((self.datagram_key + (len(short) + len(rest)) * STEP & MASK) ^ word(short))
        return keystream(base, 0, len(rest))

    def scrambled(self, payload):
        short, rest = self.split(payload)
        short = xor(short, digest(rest, self.digest_key))
        return short + xor(rest, self.stream_for(short, rest))

    def unscrambled(self, payload):
        short, rest = self.split(payload)
        rest = xor(rest, self.stream_for(short, rest))
        return xor(short, digest(rest, self.digest_key)) + rest
