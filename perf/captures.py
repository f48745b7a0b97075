"""Captures of 64-byte UDP packets of as many flows as one likes, by NumPy.

captures.write(path, captures.in_turn(64, 1_000_000))
captures.write(path, captures.at_random(1_000_000, 4_000_000))
"""

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import numpy
from numpy.typing import NDArray

from perf.replay import packet

FIRST_ADDRESS = int(IPv4Address("10.128.0.0"))  # of the flows' remote ends; room for 2^23
CHECKSUM, REMOTE = slice(24, 26), slice(30, 34)  # of an Ethernet frame
SPACING_US = 10
CHUNK_PACKETS = 1 << 18
SEED = 1

Order = NDArray[numpy.int64]  # each packet's flow, a number from 0 on


def in_turn(flows: int, packets: int) -> Order:
    """One flow after another, and again."""
    return numpy.arange(packets) % flows


def at_random(flows: int, packets: int) -> Order:
    """Any flow next; the same order each time."""
    return numpy.random.default_rng(SEED).integers(0, flows, packets)


def after(first: Order, then: Order) -> Order:
    """One order behind another."""
    return numpy.concatenate((first, then))


def write(path: Path, order: Order) -> None:
    """A pcap file with Ethernet frames of packets in that order, SPACING_US apart."""
    frames = _frames(int(order.max()) + 1)
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for records in _records(order, frames):
            records.tofile(file)


def _records(order: Order, frames: NDArray[numpy.uint8]) -> Iterator[NDArray[numpy.uint8]]:
    """Chunk by chunk, each packet behind its record header."""
    for start in range(0, len(order), CHUNK_PACKETS):
        flows = order[start : start + CHUNK_PACKETS]
        micros = (start + numpy.arange(len(flows))) * SPACING_US
        heads = numpy.empty((len(flows), 4), "<u4")
        heads[:, 0], heads[:, 1] = numpy.divmod(micros, 1_000_000)
        heads[:, 2:] = frames.shape[1]
        yield numpy.hstack((heads.view(numpy.uint8), frames[flows]))


def _frames(flows: int) -> NDArray[numpy.uint8]:
    """A frame of each flow: they differ in the remote address."""
    frame = numpy.frombuffer(packet(0), numpy.uint8)
    remote = FIRST_ADDRESS + numpy.arange(flows)
    head = frame[14:34].copy()
    head[10:12] = head[16:20] = 0
    sums = int(head.view(">u2").sum()) + (remote >> 16) + (remote & 0xFFFF)
    for _ in range(2):
        sums = (sums & 0xFFFF) + (sums >> 16)
    frames = numpy.tile(frame, (flows, 1))
    frames[:, CHECKSUM] = (0xFFFF - sums).astype(">u2").reshape(-1, 1).view(numpy.uint8)
    frames[:, REMOTE] = remote.astype(">u4").reshape(-1, 1).view(numpy.uint8)
    return frames
