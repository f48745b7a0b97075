"""A module in plain Python: compresses datagrams. README.md is the tutorial that goes with it.

The class must be named Module. Everything it can do with a packet is used or named below.
"""

import zlib

STORED, DEFLATED = 0, 1  # the header byte: what follows it
LONGEST_PAYLOAD_BYTES = 65507  # of UDP over IPv4; nothing longer can have been sent


class Module:
    """One instance: a place in one chain. All flows of the policy come here, one packet at a time."""

    def __init__(self, parameters, count):
        """parameters: validated, all of module.toml's are there. count(name): adds one to a counter of it."""
        self.level = parameters["level"]
        self.count = count

    def egress(self, packet):
        """The application sent it; what we leave in packet.payload goes on through the chain."""
        packed = zlib.compress(packet.payload, self.level)
        if len(packed) < len(packet.payload):
            packet.payload = bytes([DEFLATED]) + packed
            self.count("compressed")
        else:
            self.store(packet)

    def store(self, packet):
        """One byte longer than before, for which there may be no room."""
        try:
            packet.payload = bytes([STORED]) + packet.payload
        except ValueError:
            self.count("no_room")
            raise  # any exception: the policy's on_failure decides what becomes of the packet
        self.count("stored")

    def ingress(self, packet):
        """It came from the network, perhaps from an enemy: at worst it is dropped and counted."""
        original = restored(packet.payload)
        if original is None:
            self.count("undecodable")
            packet.drop()
            return
        packet.payload = original
        self.count("restored")


def restored(payload):
    """What egress made the payload of, or None if it did not."""
    if not payload or payload[0] not in (STORED, DEFLATED):
        return None
    if payload[0] == STORED:
        return payload[1:]
    stream = zlib.decompressobj()  # zlib.decompress has no limit, and a kilobyte can hold a megabyte
    try:
        original = stream.decompress(payload[1:], LONGEST_PAYLOAD_BYTES)
    except zlib.error:
        return None
    return original if stream.eof and not stream.unused_data else None
