"""Marks: others' bits survive, ours never go stray, connections keep their class, flows their worker."""

import socket
from ipaddress import ip_address

import pytest

from layer45.rules import iptables_live
from layer45.rules.diversion import RulePlan, Selector
from layer45.rules.spread import worker_of

from .owned_sockets import Owner, owned_socket
from .queue_recorder import recording
from .rule_plans import FIRST_QUEUE, MARKS, diverting, every_backend, plan
from .test_rules_matching import ALICE, BOB, TCP, UDP, V4, V6, every_family, ping_pong, tagging
from .topology import Host, Hosts

pytestmark = pytest.mark.root

OTHERS = 0x40000
OURS = MARKS.class_mask | MARKS.exempt_bit
SO_MARK = socket.SO_MARK


def count(host: Host, hook: str, *match: str) -> None:
    """Count what passes a hook, behind all of ours."""
    for tool in ("iptables", "ip6tables"):
        table = "mangle" if hook == "POSTROUTING" else "filter"
        host.run([tool, "-t", table, "-A", hook, *match, "-m", "comment", "--comment", "count"])


def counted(host: Host, hook: str) -> int:
    """Packets of that rule, both families."""
    saved = "".join(host.run([tool, "-c"]).stdout for tool in ("iptables-save", "ip6tables-save"))
    rules = [line for line in saved.splitlines() if f"-A {hook}" in line and "--comment count" in line]
    return sum(int(line[1 : line.index(":")]) for line in rules)


@every_backend
@every_family
def test_bits_of_others_survive_in_packet_and_connection(hosts: Hosts, backend: str, family: int) -> None:
    for tool in ("iptables", "ip6tables"):
        hosts.a.run([tool, *["-t", "raw", "-A", "PREROUTING", "-j", "MARK", "--set-mark", "0x80000"]])
        hosts.a.run(
            [tool, *["-t", "mangle", "-A", "OUTPUT", "-j", "CONNMARK", "--set-xmark", "0x70000/0x70000"]]
        )
    count(hosts.a, "INPUT", *["-m", "mark", "--mark", "0x80001", "-m", "connmark", "--mark", "0x70001"])
    count(hosts.a, "POSTROUTING", *f"-m mark --mark {OTHERS | 1:#x} -m connmark --mark 0x70001".split())
    with (
        diverting(hosts.a, backend, plan(Selector(user=(61001,)))),
        owned_socket(hosts.a, family, UDP, ALICE) as a,
        owned_socket(hosts.b, family, UDP, port=5004) as b,
    ):
        a.setsockopt(socket.SOL_SOCKET, SO_MARK, OTHERS)
        a.sendto(b"ping", (hosts.b.address(family), 5004))
        b.sendto(b"pong", b.recvfrom(100)[1])
        a.recv(100)
    assert (counted(hosts.a, "POSTROUTING"), counted(hosts.a, "INPUT")) == (1, 1)


@every_backend
@every_family
def test_unmatched_packets_carry_none_of_our_bits(hosts: Hosts, backend: str, family: int) -> None:
    """Tagged sockets that no policy wants after all, and one that marks itself with our bits."""
    stray = [
        "-p",
        "udp",
        "-m",
        "mark",
        "!",
        "--mark",
        f"0/{OURS:#x}",
    ]  # (the kernel marks MLD reports)
    count(hosts.a, "INPUT", *stray)
    count(hosts.a, "POSTROUTING", *stray)
    wanted = plan(Selector(user=(61001,), local_port=((9, 9),)), Selector(remote_port=((9, 9),)))
    with diverting(hosts.a, backend, wanted) as diverted, tagging(hosts, wanted):
        ping_pong(hosts, family, ALICE)
        with owned_socket(hosts.a, family, UDP, ALICE, 5004) as a, owned_socket(hosts.b, family, UDP) as b:
            assert a.getsockopt(socket.SOL_SOCKET, SO_MARK)
            b.sendto(b"ask", (hosts.a.address(family), 5004))
            peer = a.recvfrom(100)[1]
            for mark in (a.getsockopt(socket.SOL_SOCKET, SO_MARK), MARKS.spread(1)):
                a.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
                a.sendto(b"answer", peer)
                assert b.recv(100) == b"answer"
        assert diverted.counts() == {}
    assert (counted(hosts.a, "POSTROUTING"), counted(hosts.a, "INPUT")) == (0, 0)


@every_family
def test_class_of_a_removed_policy_passes_and_is_cleared(hosts: Hosts, family: int) -> None:
    count(hosts.a, "POSTROUTING", "-m", "connmark", "!", "--mark", "0x0")
    two = plan(Selector(("udp",)), Selector(("tcp",)))
    one = RulePlan(two.owner, two.marks, two.diversions[:1])
    with (
        diverting(hosts.a, "iptables", two) as diverted,
        owned_socket(hosts.b, family, TCP, port=5004) as server,
        owned_socket(hosts.a, family, TCP, ALICE) as client,
    ):
        server.listen()
        client.connect((hosts.b.address(family), 5004))
        accepted, _ = server.accept()
        before = diverted.counts()
        seen = counted(hosts.a, "POSTROUTING")
        assert before["out 0x2"] == seen >= 2
        with hosts.a.entered():
            iptables_live.install(one)
        with accepted:
            client.sendall(b"ask")
            assert accepted.recv(10) == b"ask"
        assert diverted.counts() == before
        assert counted(hosts.a, "POSTROUTING") == seen


@every_family
def test_tcp_keeps_its_class_when_the_owner_would_no_longer_match(hosts: Hosts, family: int) -> None:
    """The same class number, another match: only new connections ask it."""
    with (
        diverting(hosts.a, "iptables", plan(Selector(user=(61001,)))) as diverted,
        owned_socket(hosts.b, family, TCP, port=5004) as server,
        owned_socket(hosts.a, family, TCP, ALICE) as client,
        owned_socket(hosts.a, family, TCP, ALICE) as late,
    ):
        server.listen()
        client.connect((hosts.b.address(family), 5004))
        with hosts.a.entered():
            iptables_live.install(plan(Selector(user=(61002,))))
        before = diverted.counts()
        late.connect((hosts.b.address(family), 5004))
        assert diverted.counts() == before
        client.sendall(b"ask")
        assert diverted.counts() == {"out 0x1": before["out 0x1"] + 1, "in 0x1": before["in 0x1"] + 1}


@every_family
@pytest.mark.parametrize("bypass", [True, False])
def test_without_a_listener_open_passes_and_closed_drops(hosts: Hosts, family: int, bypass: bool) -> None:
    with hosts.a.entered():
        iptables_live.install(plan(Selector(user=(61001,)), bypass=bypass))
    ping_pong(hosts, family, BOB)
    if bypass:
        ping_pong(hosts, family, ALICE)
    else:
        with pytest.raises(TimeoutError):
            ping_pong(hosts, family, ALICE)


@every_family
@pytest.mark.parametrize("workers", [2, 3])
def test_kernel_spreads_flows_as_the_reference_does(hosts: Hosts, family: int, workers: int) -> None:
    a, b = (ip_address(host.address(family)) for host in hosts)
    used = set()
    with diverting(hosts.a, "iptables", plan(Selector(), workers=workers)) as diverted:
        for port in range(6000, 6012):
            ping_pong(hosts, family, ALICE, port)
        diverted.counts()
        assert len(diverted.seen) == 24
        for seen in diverted.seen:
            ways = ((a, b), (b, a))[seen.hook == 1]
            assert seen.queue - FIRST_QUEUE == worker_of(*ways, *seen.ports, workers)
            used.add(seen.queue)
    assert len(used) == workers


@pytest.mark.parametrize("headers", [1, 2, 3])
def test_kernel_finds_ports_behind_ipv6_extension_headers(hosts: Hosts, headers: int) -> None:
    options = [socket.IPV6_HOPOPTS, socket.IPV6_RTHDRDSTOPTS, socket.IPV6_DSTOPTS][:headers]
    padding = bytes([0, 1, 1, 12, *[0] * 12])  # two units of 8: PadN
    a, b = ip_address(hosts.a.ipv6), ip_address(hosts.b.ipv6)
    with diverting(hosts.a, "iptables", plan(Selector(), workers=4)) as diverted:
        for port in range(6000, 6008):
            with owned_socket(hosts.a, V6, UDP, ALICE, port) as sender:
                for option in options:
                    sender.setsockopt(socket.IPPROTO_IPV6, option, padding)
                sender.sendto(b"x", (hosts.b.ipv6, 5004))
        diverted.counts()
        found = [seen.queue - FIRST_QUEUE for seen in diverted.seen if seen.hook == 3]
    assert {seen.packet[6] for seen in diverted.seen if seen.hook == 3} <= {0, 60}
    assert found == [worker_of(a, b, port, 5004, 4) for port in range(6000, 6008)]


def test_kernel_finds_ports_behind_ipv4_options(hosts: Hosts) -> None:
    a, b = ip_address(hosts.a.ipv4), ip_address(hosts.b.ipv4)
    with diverting(hosts.a, "iptables", plan(Selector(), workers=4)) as diverted:
        for port in range(6000, 6008):
            with owned_socket(hosts.a, V4, UDP, ALICE, port) as sender:
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([1] * 8))
                sender.sendto(b"x", (hosts.b.ipv4, 5004))
        diverted.counts()
        sent = [seen for seen in diverted.seen if seen.hook == 3]
    assert {seen.packet[0] for seen in sent} == {0x47}
    assert [s.queue - FIRST_QUEUE for s in sent] == [worker_of(a, b, p, 5004, 4) for p in range(6000, 6008)]


def test_two_owners_with_masks_apart_do_not_meet(hosts: Hosts) -> None:
    from layer45.rules.diversion import Diversion, MarkLayout, QueueGroup

    mine = plan(Selector(user=(61001,)), owner="one")
    other = RulePlan(
        "another one", MarkLayout(0x700000, 0x800000),
        (Diversion("q", 1, Selector(user=(61002,)), None, QueueGroup(4700, 1, True)),),
    )  # fmt: skip
    with diverting(hosts.a, "iptables", mine) as first, recording(hosts.a, range(4700, 4701)) as second:
        with hosts.a.entered():
            iptables_live.install(other)
        for owner in (ALICE, BOB, Owner()):
            ping_pong(hosts, V4, owner)
        assert first.counts() == {"out 0x1": 1, "in 0x1": 1}
        assert second.counts(0xFFFFFFFF) == {"out 0x100000": 1, "in 0x100000": 1}
