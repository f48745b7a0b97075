"""Spreads flows over workers: both directions of a 5-tuple meet in the same one.

The kernel's own queue-balance looks at addresses only, and HMARK overwrites the packet mark. So the
iptables backend asks classic BPF (xt_bpf): worker i's rule matches when the hash modulo the number of
workers is i, and the last worker takes the rest. The hash is symmetric: addresses are combined by
exclusive or, ports by addition.

    hash = ((source port + destination port) mod 2^16) xor every 32-bit word of both addresses
    worker = (hash * 0x9e3779b1 mod 2^32 >> 16) mod workers

An ICMP error goes to the worker of the packet that it quotes.

IPv4 options are skipped. In IPv6 up to three extension headers are (hop-by-hop, routing, destination
options, or whatever has their form). A packet too short to hold its ports goes to the last worker.
"""

from ipaddress import IPv4Address, IPv6Address

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant

MULTIPLIER = 0x9E3779B1
MAX_INSTRUCTIONS = 64  # of xt_bpf

LD_W_ABS, LD_B_ABS, LD_W_IND, LD_B_IND = 0x20, 0x30, 0x40, 0x50
LD_MEM, LDX_IMM, LDX_MEM, LDX_MSH, ST, TAX = 0x60, 0x01, 0x61, 0xB1, 0x02, 0x07
ADD_K, ADD_X, MUL_K, AND_K, LSH_K, RSH_K, MOD_K, XOR_X = 0x04, 0x0C, 0x24, 0x54, 0x64, 0x74, 0x94, 0xAC
JEQ_K, JGT_K, RET_K = 0x15, 0x25, 0x06

LAST_PROTOCOL = 17  # UDP; TCP is below, and so is hop-by-hop (0), all other extension headers above
STEPS = 3
ICMP_BYTES = 8


def worker_of(source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address,
              source_port: int, destination_port: int, workers: int) -> int:  # fmt: skip
    """The worker of a packet: what the bytecode computes, in plain Python."""
    value = (source_port + destination_port) & 0xFFFF
    both = source.packed + destination.packed
    for place in range(0, len(both), 4):
        value ^= int.from_bytes(both[place : place + 4], "big")
    return ((value * MULTIPLIER & 0xFFFFFFFF) >> 16) % workers


def bytecode(family: int, worker: int, workers: int) -> list[Instruction]:
    """The program that matches worker's packets of one family (4 or 6), starting at the IP header."""
    if family == 4:
        return _program([(LDX_MSH, 0, 0, 0), (LD_W_IND, 0, 0, 0)], _words(range(12, 20, 4)), worker, workers)
    return _program(_walk_extension_headers(0), _words(range(8, 40, 4)), worker, workers)


def bytecode_of_errors(family: int, worker: int, workers: int) -> list[Instruction]:
    """The same, for ICMP errors; those of IPv6 without extension headers of their own."""
    if family == 6:
        quoted = 40 + ICMP_BYTES
        addresses = _words(range(quoted + 8, quoted + 40, 4))
        return _program(_walk_extension_headers(quoted), addresses, worker, workers)
    ports: list[Instruction] = [
        (LDX_MSH, 0, 0, 0), (LD_B_IND, 0, 0, ICMP_BYTES), (AND_K, 0, 0, 15), (LSH_K, 0, 0, 2),
        (ADD_X, 0, 0, 0), (TAX, 0, 0, 0), (LD_W_IND, 0, 0, ICMP_BYTES),
    ]  # fmt: skip
    addresses = []
    for word in (12, 16):
        addresses += [
            (ST, 0, 0, 0), (LDX_MSH, 0, 0, 0), (LD_W_IND, 0, 0, ICMP_BYTES + word), (LDX_MEM, 0, 0, 0),
            (XOR_X, 0, 0, 0),
        ]  # fmt: skip
    return _program(ports, addresses, worker, workers)


def _program(
    ports: list[Instruction], addresses: list[Instruction], worker: int, workers: int
) -> list[Instruction]:
    """ports: loads both; addresses: combines all their words with A."""
    program = [*ports, (MUL_K, 0, 0, 0x10001), (RSH_K, 0, 0, 16), *addresses]  # the ports' sum, and so on
    program += [(MUL_K, 0, 0, MULTIPLIER), (RSH_K, 0, 0, 16), (MOD_K, 0, 0, workers)]
    return [*program, (JEQ_K, 0, 1, worker), (RET_K, 0, 0, 1), (RET_K, 0, 0, 0)]


def _words(places: range) -> list[Instruction]:
    return [each for at in places for each in ((TAX, 0, 0, 0), (LD_W_ABS, 0, 0, at), (XOR_X, 0, 0, 0))]


def _walk_extension_headers(start: int) -> list[Instruction]:
    """Loads the ports of the packet that starts there."""
    step: list[Instruction] = [
        (LD_B_IND, 0, 0, 0), (ST, 0, 0, 0),  # its next header
        (LD_B_IND, 0, 0, 1), (ADD_K, 0, 0, 1), (LSH_K, 0, 0, 3), (ADD_X, 0, 0, 0), (TAX, 0, 0, 0),
        (LD_MEM, 0, 0, 0),
    ]  # fmt: skip
    walk: list[Instruction] = []
    for remaining in range(1, STEPS + 1):  # built from the last step back, so the jumps are known
        walk = [(JGT_K, 0, len(step) + len(walk), LAST_PROTOCOL), *step, *walk]
        if remaining == STEPS:
            walk.insert(0, (JEQ_K, 1, 0, 0))  # hop-by-hop stands first or nowhere
    return [(LD_B_ABS, 0, 0, start + 6), (LDX_IMM, 0, 0, start + 40), *walk, (LD_W_IND, 0, 0, 0)]


def as_text(program: list[Instruction]) -> str:
    """The form iptables' bpf match takes."""
    return ",".join([str(len(program)), *(" ".join(map(str, instruction)) for instruction in program)])
