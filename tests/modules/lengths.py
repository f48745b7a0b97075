"""The payload lengths every module is tried with."""

import random

from .wire import HEADER_BYTES, UDP, datagram

LARGEST_PACKET_BYTES = 65531  # that the engine edits
EVERY_LENGTH = [*range(1473), 1500, 4095, 4096, 4097, 8999, 32768]


def payloads(lengths: list[int], seed: int = 45) -> list[bytes]:
    """Random bytes of each length; the same ones each time."""
    source = random.Random(seed)
    return [source.randbytes(length) for length in lengths]


def datagrams(version: int, growth_bytes: int = 0) -> list[bytes]:
    """One of every length, and some up to what still has room for growth."""
    largest = LARGEST_PACKET_BYTES - HEADER_BYTES[version, UDP] - growth_bytes
    return [datagram(each, version) for each in payloads([*EVERY_LENGTH, largest - 1, largest])]
