"""Kernel chains, packet by packet: what their programs decide and count is what module and engine would.

The programs run in the kernel, on packets that are made here; no host, no rules.
"""

import random
import struct
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from layer45.fastpath.packet import Editor
from layer45.loader import ChainPlan, load
from layer45.modules.drop.reference import Module as Drop
from layer45.modules.mark.reference import Module as Mark
from layer45.rules.kernel_chain import (
    BEGUN_SENT,
    DROPPED,
    EGRESS_BYTES,
    EGRESS_PACKETS,
    INGRESS_BYTES,
    INGRESS_PACKETS,
    OWN_COUNTERS,
    KernelChain,
)
from layer45.rules.kernel_program import Verdict

from ..modules.wire import datagram, segment, with_field
from .program_run import Chain, loaded

pytestmark = pytest.mark.root

WAYS = ("egress", "ingress")
PREFIXES = (b"", b"a", b"ab", b"abc", b"\xff\xfe\x80\x00\x01", bytes(range(32)))
WHOLE = datagram(b"whole", 6)
EXTENDED = WHOLE[:4] + b"\x00\x15\x3c" + WHOLE[7:40] + b"\x11" + bytes(7) + WHOLE[40:]
LONGEST = 3000  # what a test run takes is about a page
PACKETS = 1500
DROP = 'module = "drop"'
REFERENCES: dict[str, Any] = {"drop": Drop, "mark": Mark}


class Seen:
    """A packet as the reference sees it."""

    def __init__(self, packet: bytes, direction: str) -> None:
        engine = Editor(packet)
        self.payload, self.dscp, self.direction, self.dropped = engine.payload, engine.dscp, direction, False
        self.flow, self.time_ns = SimpleNamespace(state={}), 0

    def drop(self) -> None:
        self.dropped = True


def chain_of(directory: Path, *entries: str, match: str = 'protocol = "udp"', rest: str = "") -> ChainPlan:
    """The plan of a policy with these instances, of drop unless they say so."""
    (directory / "policies").mkdir(exist_ok=True)
    (directory / "layer45.toml").write_text("")
    chain = ", ".join(f"{{ {entry if 'module' in entry else DROP + entry} }}" for entry in entries)
    text = f"[policy.p]\nmatch = {{ {match} }}\nchain = [ {chain} ]\n{rest}"
    (directory / "policies" / "p.toml").write_text(text)
    return load(directory).chains[0]


def in_kernel(plan: ChainPlan) -> KernelChain:
    assert plan.path == "kernel" and plan.kernel
    return plan.kernel


def any_entry(dice: random.Random, both_protocols: bool) -> str:
    """Of drop or mark, with parameters that the kernel can do."""
    first = dice.choice((0, 0, 1, 3, 100, 1400))
    last = dice.choice((65535, first, first + 7, 1472))
    mark = f'module = "mark", dscp = {dice.choice(("0", "46", "63", quoted("LE")))}'
    parts = [dice.choice((DROP, mark, mark)), f", invert = {dice.choice(('true', 'false'))}"]
    if both_protocols:
        parts.append(f', length = "{dice.choice(("0", "1-65535", "0-65535"))}"')
    else:
        parts.append(f', prefix = "hex:{dice.choice(PREFIXES).hex()}"')
        parts.append(f', length = "{first}-{max(first, last)}"')
    if dice.random() < 0.3:
        parts.append(f', direction = "{dice.choice(WAYS)}"')
    return "".join(parts)


def quoted(name: str) -> str:
    return f'"{name}"'


def any_packet(dice: random.Random, protocols: tuple[str, ...]) -> bytes:
    """An ordinary one, with options of TCP or IPv4 now and then."""
    body = dice.randbytes(dice.choice((0, 1, 2, 3, 5, 31, 32, 33, 100, 107, 1400, 1472, LONGEST)))
    payload = (dice.choice(PREFIXES) + body)[: dice.choice((1, 4, 40, LONGEST))]
    version = dice.choice((4, 6))
    if dice.choice(protocols) == "udp":
        packet = datagram(payload, version)
    else:
        options = b"\x01" * dice.choice((0, 4, 12, 40))
        packet = segment(payload, dice.getrandbits(32), version, options=options)
    packet = with_field(packet, dice.choice((0, 1, 2, 3, 4, 0xBA, 0xFF, dice.randrange(256))))
    return with_options(packet, dice.choice((0, 1, 10))) if version == 4 and dice.random() < 0.3 else packet


def with_options(packet: bytes, words: int) -> bytes:
    """IPv4, with so many words of no operation."""
    total = struct.pack("!H", len(packet) + 4 * words)
    return bytes([0x45 + words, packet[1]]) + total + packet[4:20] + b"\x01" * 4 * words + packet[20:]


def by_reference(plan: ChainPlan, packet: bytes, direction: str, counters: list[int]) -> Verdict:
    """What the chain decides; its modules' counters are counted up."""
    order = 1 if direction == "egress" else -1
    firsts = accumulate((len(each.module.manifest.counters) for each in plan.instances), initial=0)
    seen = Seen(packet, direction)
    came_with = seen.dscp
    for first, instance in [*zip(firsts, plan.instances, strict=False)][::order]:
        names = list(instance.module.manifest.counters)

        def count(name: str, first: int = first, names: list[str] = names) -> None:
            counters[first + names.index(name)] += 1

        if direction in instance.directions:
            REFERENCES[instance.module.name](instance.values, count).judge(seen)
            if seen.dropped:
                return "drops"
    return "passes" if seen.dscp == came_with else seen.dscp


@pytest.mark.parametrize("seed", range(12))
def test_it_is_what_the_reference_is(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    protocols = ("udp", "tcp") if seed % 2 else ("udp",)
    entries = dict.fromkeys(any_entry(dice, bool(seed % 2)) for _ in range(1 + seed // 2 % 5))
    match = "" if seed % 2 else 'protocol = "udp"'
    plan = chain_of(tmp_path, *entries, match=match)
    own, steps = [0] * OWN_COUNTERS, [0] * in_kernel(plan).counters
    with loaded(in_kernel(plan), begun=seed < 3) as chain:
        for _ in range(PACKETS):
            packet, direction = any_packet(dice, protocols), dice.choice(WAYS)
            verdict = chain.ask(packet, direction)
            if is_left(plan, packet, direction):
                assert verdict == "queue"
                continue
            assert verdict == by_reference(plan, packet, direction, steps), packet
            out = direction == "egress"
            own[EGRESS_PACKETS if out else INGRESS_PACKETS] += 1
            own[EGRESS_BYTES if out else INGRESS_BYTES] += len(packet)
            own[BEGUN_SENT] += out and seed < 3
            own[DROPPED] += verdict == "drops"
        assert chain.counted() == own + steps


def is_left(plan: ChainPlan, packet: bytes, direction: str) -> bool:
    """Whether it came in over IPv6, and may be marked."""
    marks = any(each.module.name == "mark" and direction in each.directions for each in plan.instances)
    return marks and direction == "ingress" and packet[0] >> 4 == 6


def is_like_the_engine(chain: Chain, plan: ChainPlan, packet: bytes) -> bool:
    """Whether it decided; AssertionError where the engine would decide something else."""
    verdict = chain.ask(packet)
    if verdict == "queue":
        return False
    engine = Editor(packet)
    assert engine.result == "parsed" and engine.fields["wire_bytes"] == len(packet), packet
    assert engine.fields["protocol"] == 17, packet
    assert verdict == by_reference(plan, packet, "egress", [0] * 99), packet
    return True


def test_what_is_out_of_the_ordinary_is_left_to_the_engine(tmp_path: Path) -> None:
    """Headers with wrong bytes, packets with wrong ends: what it decides all the same, it decides right."""
    marks = 'module = "mark", dscp = 46, length = "91-"'
    plan = chain_of(tmp_path, ', prefix = "ab"', ', length = "5-90"', marks)
    dice = random.Random(7)
    decided = left = 0
    with loaded(in_kernel(plan)) as chain:
        for _ in range(4 * PACKETS):
            packet = bytearray(any_packet(dice, ("udp", "udp", "tcp")))
            for _ in range(dice.choice((1, 1, 2))):
                packet[dice.randrange(min(len(packet), 50))] = dice.getrandbits(8)
            cut = dice.choice((0, 0, 0, 1, 9))
            changed = bytes(packet[: max(40, len(packet) - cut)]) + bytes(dice.choice((0, 0, 0, 3)))
            ours = is_like_the_engine(chain, plan, changed)
            decided, left = decided + ours, left + (not ours)
        assert chain.counted()[EGRESS_PACKETS] == decided
    assert decided > PACKETS / 4 and left > PACKETS


@pytest.mark.parametrize(
    ("packet", "name"),
    [
        (datagram(b"whole", 4)[:6] + b"\x20\x00" + datagram(b"whole", 4)[8:], "the first fragment"),
        (datagram(b"whole", 4)[:6] + b"\x00\x01" + datagram(b"whole", 4)[8:], "a later fragment"),
        (EXTENDED, "IPv6 with an extension header"),
        (datagram(b"whole", 4) + b"\0", "a packet with something behind it"),
        (datagram(b"whole", 4)[:-1], "one that is too short"),
        (datagram(b"whole", 4)[:24] + b"\x00\x0c" + datagram(b"whole", 4)[26:], "UDP that is shorter"),
        (datagram(b"whole", 4)[:9] + b"\x2f" + datagram(b"whole", 4)[10:], "another protocol"),
        (segment(b"whole", 1), "TCP, which the policy is not about"),
        (b"\x75" + datagram(b"whole", 4)[1:], "no version of IP"),
        (b"\x44" + datagram(b"whole", 4)[1:], "a header that is too short"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_who_gets_what(packet: bytes, name: str) -> None:
    """Nothing of it is counted, either."""
    with loaded(KernelChain("", ("udp",))) as chain:
        assert (chain.ask(packet), chain.counted()) == ("queue", [0] * OWN_COUNTERS), name
        assert chain.ask(datagram(b"whole")) == "passes"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("payload_bytes", "size", "packets"), [(2000, 500, 4), (2001, 500, 5), (1, 500, 1)])
def test_super_packets_count_as_what_they_are_cut_into(
    version: int, payload_bytes: int, size: int, packets: int
) -> None:
    packet = segment(bytes(payload_bytes), 1, version, options=b"\x01" * 12)
    headers = len(packet) - payload_bytes
    with loaded(KernelChain("", ("udp", "tcp"))) as chain:
        assert chain.ask(packet, "egress", size) == "passes"
        counted = chain.counted()
        assert counted[EGRESS_PACKETS] == counted[BEGUN_SENT] == packets
        assert counted[EGRESS_BYTES] == payload_bytes + packets * headers
    with loaded(KernelChain("", ("tcp",), super_packets=True)) as chain:
        assert chain.ask(packet, "ingress", size) == "passes"
        assert chain.counted()[:4] == [0, 1, 0, len(packet)]


def test_super_packets_whose_packets_may_differ_are_left_to_the_engine(tmp_path: Path) -> None:
    packet = datagram(b"ab" * 500)
    by_prefix = in_kernel(chain_of(tmp_path, ', prefix = "ab"'))
    by_presence = in_kernel(chain_of(tmp_path, ', length = "1-"', match=""))
    with loaded(by_prefix) as chain:
        assert (chain.ask(packet, "egress", 400), chain.ask(packet)) == ("queue", "drops")
    with loaded(by_presence) as chain:
        assert (chain.ask(packet, "egress", 400), chain.ask(datagram(b""))) == ("drops", "passes")
        assert chain.counted()[DROPPED] == chain.counted()[OWN_COUNTERS] == 3


def test_what_came_in_over_ipv6_is_marked_by_the_engine(tmp_path: Path) -> None:
    """The kernel's target would leave a checksum wrong: kernel_program.py. On the way out there is none."""
    both, out = 'module = "mark", dscp = 46', 'module = "mark", dscp = 46, direction = "egress"'
    for entry, verdict in ((both, "queue"), (out, "passes")):
        with loaded(in_kernel(chain_of(tmp_path, entry))) as chain:
            assert chain.ask(datagram(b"x", 6), "ingress") == verdict
            assert chain.ask(datagram(b"x", 6), "egress") == 46
            assert chain.ask(datagram(b"x", 4), "ingress") == (46 if entry == both else "passes")


def test_of_a_super_packet_all_packets_are_marked(tmp_path: Path) -> None:
    """Cut, or whole as TCP's queue has it, and then chosen by its own length."""
    packet = with_field(segment(bytes(2001), 1), 2)
    any_length = 'module = "mark", dscp = 46, length = "1-"'
    with loaded(in_kernel(chain_of(tmp_path, any_length, match=""))) as chain:
        assert chain.ask(packet, "egress", 500) == 46
        assert chain.counted()[OWN_COUNTERS:] == [5, 5]
        assert chain.ask(with_field(packet, 46 << 2), "egress", 500) == "passes"
        assert chain.counted()[OWN_COUNTERS:] == [10, 5]
    long = 'module = "mark", dscp = 46, length = "1500-"'
    assert chain_of(tmp_path, long, match="").path == "queue"
    with loaded(in_kernel(chain_of(tmp_path, long, match='protocol = "tcp"'))) as chain:
        assert (chain.ask(packet, "ingress", 500), chain.ask(segment(bytes(500), 1))) == (46, "passes")
        assert chain.counted()[OWN_COUNTERS:] == [1, 1]


@pytest.mark.parametrize(
    ("entries", "match", "rest", "path"),
    [
        ((), "", "", "kernel"),
        ((), "", 'path = "queue"\n', "queue"),
        ((', prefix = "x"',), 'protocol = "udp"', "", "kernel"),
        ((', prefix = "x"',), "", "", "queue"),  # a TCP super-packet has one prefix, and many segments
        ((', length = "9-"',), 'protocol = "tcp"', "", "queue"),
        ((', length = "1-"',), 'protocol = "tcp"', "", "kernel"),
        ((', length = "0"',), 'protocol = "tcp"', "", "kernel"),
        ((", every = 2",), 'protocol = "udp"', "", "queue"),
        (("", ", rate_packets_per_s = 0.5"), 'protocol = "udp"', "", "queue"),
        (("", ', scope = "policy", burst_bytes = 7'), 'protocol = "udp"', "", "kernel"),
        (('module = "mark", dscp = 9, prefix = "x"', ""), 'protocol = "udp"', "", "kernel"),
        (('module = "mark", dscp = 9, prefix = "x"',), "", "", "queue"),
        (('module = "mark", dscp = 9, prefix = "x"',), 'protocol = "tcp"', "", "kernel"),
        (('module = "mark", dscp = 9', 'module = "tag", id = "x"'), 'protocol = "udp"', "", "queue"),
        (tuple(f'module = "mark", dscp = {each}' for each in range(31)), "", "", "kernel"),
        (tuple([""] * 31), "", "", "kernel"),
        (tuple([""] * 32), "", "", "queue"),
    ],
)
def test_which_chains_the_kernel_runs(
    entries: tuple[str, ...], match: str, rest: str, path: str, tmp_path: Path
) -> None:
    plan = chain_of(tmp_path, *entries, match=match, rest=rest)
    assert plan.path == path
    if plan.kernel:
        with loaded(plan.kernel):
            pass
