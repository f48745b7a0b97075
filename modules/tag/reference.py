"""tag in plain Python: the wire format of README.md, for tests and for reading."""

import struct

VERSION = 1
FIXED = struct.Struct("!2sBBII")  # magic, version, identity's length, check, sequence
MAGIC = b"LT"
LARGEST_IDENTITY_BYTES = 32
RESTART_DISTANCE = 65536
NUMBERS = 1 << 32


def fnv1a(content):
    check = 0x811C9DC5
    for byte in content:
        check = (check ^ byte) * 0x01000193 % NUMBERS
    return check


def check_of(identity, datagram_bytes, version, sequence):
    lengths = struct.pack("!HBB", datagram_bytes % 65536, version, len(identity))
    return fnv1a(identity + lengths + struct.pack("!I", sequence))


class Module:
    def __init__(self, parameters, count):
        self.identity = parameters["id"]
        self.expect = parameters["expect"]
        self.in_front = parameters["position"] == "front"
        self.drop_unmarked = parameters["unmarked"] == "drop"
        self.count = count

    def egress(self, packet):
        payload = packet.payload
        check = check_of(self.identity, len(payload), VERSION, packet.sequence)
        fixed = FIXED.pack(MAGIC, VERSION, len(self.identity), check, packet.sequence)
        parts = (fixed, self.identity, payload) if self.in_front else (payload, self.identity, fixed)
        try:
            packet.payload = b"".join(parts)
        except ValueError:
            self.count("no_room")
            raise
        self.count("tagged")

    def ingress(self, packet):
        found = self.split(packet.payload)
        if found is None or found[1] != VERSION:
            self.count("unmarked" if found is None else "bad_version")
            if self.drop_unmarked:
                packet.drop()
            return
        payload, _, identity, sequence = found
        if self.expect and identity != self.expect:
            self.count("wrong_identity")
            packet.drop()
            return
        packet.payload = payload
        packet.sequence = sequence
        self.follow(packet.flow.state, sequence)
        self.count("stripped")

    def split(self, payload):
        """(payload, version, identity, sequence), or None without a tag."""
        if len(payload) < FIXED.size:
            return None
        at = 0 if self.in_front else len(payload) - FIXED.size
        magic, version, count, check, sequence = FIXED.unpack_from(payload, at)
        rest = payload[FIXED.size :] if self.in_front else payload[:at]
        if magic != MAGIC or not 1 <= count <= min(LARGEST_IDENTITY_BYTES, len(rest)):
            return None
        identity = rest[:count] if self.in_front else rest[-count:]
        rest = rest[count:] if self.in_front else rest[:-count]
        if check != check_of(identity, len(rest), version, sequence):
            return None
        return rest, version, identity, sequence

    def follow(self, state, sequence):
        expected = state.get("next")
        ahead = 0 if expected is None else (sequence - expected + NUMBERS // 2) % NUMBERS - NUMBERS // 2
        if ahead >= RESTART_DISTANCE or ahead < -RESTART_DISTANCE:
            self.count("restarts")
        elif ahead < 0:
            self.count("reordered")
            return
        else:
            self.count("gaps", ahead)
        state["next"] = (sequence + 1) % NUMBERS
