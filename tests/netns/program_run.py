"""Runs a BPF program on a packet, as a rule of a hook would, by BPF_PROG_TEST_RUN."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from layer45.rules import bpf
from layer45.rules.kernel_chain import OWN_COUNTERS, KernelChain
from layer45.rules.kernel_chains import verdicts
from layer45.rules.kernel_program import GSO_SIZE, INGRESS_DEVICE, IPV6_HEADER, Verdict, program

TEST_RUN = 10
CONTEXT_BYTES = 192  # of struct __sk_buff
GSO_SEGMENTS = 164
LOOPBACK = 1
ETHERNET = {4: bytes(12) + b"\x08\x00", 6: bytes(12) + b"\x86\xdd"}


@dataclass
class Chain:
    """A chain's programs and its counters."""

    chain: KernelChain
    counters: int
    programs: dict[Verdict, int]

    def ask(self, packet: bytes, direction: str = "egress", gso_size: int = 0) -> Verdict | str:
        """What the rules would do: "passes", "drops", a DSCP to write, or "queue"."""
        for verdict, descriptor in self.programs.items():
            if _run(descriptor, packet, direction, gso_size):
                return verdict
        return "queue"

    def counted(self) -> list[int]:
        return bpf.counted(self.counters, OWN_COUNTERS + self.chain.counters)


@contextmanager
def loaded(chain: KernelChain, begun: bool = True) -> Iterator[Chain]:
    """In the kernel while the context lasts."""
    counters = bpf.create_counters(OWN_COUNTERS + chain.counters, "test")
    opened = [counters]
    programs: dict[Verdict, int] = {}
    try:
        for verdict in verdicts(chain):
            code = program(counters, chain, verdict, begun)
            programs[verdict] = bpf.load_program(bpf.PROG_TYPE_SOCKET_FILTER, code, "test")
            opened.append(programs[verdict])
        yield Chain(chain, counters, programs)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _run(descriptor: int, packet: bytes, direction: str, gso_size: int) -> int:
    version = 6 if packet[0] >> 4 == 6 and len(packet) >= IPV6_HEADER else 4  # a frame must hold its header
    frame = ctypes.create_string_buffer(ETHERNET[version] + packet, 14 + len(packet))
    context = bytearray(CONTEXT_BYTES)
    struct.pack_into("=I", context, INGRESS_DEVICE, LOOPBACK if direction == "ingress" else 0)
    struct.pack_into("=I", context, GSO_SIZE, gso_size)
    struct.pack_into("=I", context, GSO_SEGMENTS, 2 if gso_size else 0)
    around = ctypes.create_string_buffer(bytes(context), CONTEXT_BYTES)
    fields = (descriptor, 0, len(frame), 0, ctypes.addressof(frame), 0, 1, 0, CONTEXT_BYTES, 0)
    attributes = struct.pack("=IIIIQQIIIIQQ", *fields, ctypes.addressof(around), 0)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    libc = ctypes.CDLL(None, use_errno=True)
    number = bpf.SYSCALL[os.uname().machine]
    if libc.syscall(number, TEST_RUN, buffer, len(attributes)):
        raise OSError(ctypes.get_errno(), "BPF_PROG_TEST_RUN")
    return int(struct.unpack_from("=I", buffer, 4)[0])
