"""Real sockets of every kind of owner, address and port: exactly the chosen ones' packets are diverted.

Host a carries the rules; host b is somebody else. On kernels without nft's queue the nft backend's text is
loaded with counters in the place of its queue statements; everything else of it is what users get.
"""

import socket
import time
from contextlib import AbstractContextManager, closing

import pytest

from layer45.rules.diversion import RulePlan, Selector
from layer45.rules.tagger import Tagger

from .owned_sockets import Owner, new_cgroups, owned_socket
from .rule_plans import diverting, every_backend, networks, plan
from .topology import Hosts

pytestmark = pytest.mark.root

V4, V6 = socket.AF_INET, socket.AF_INET6
UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
every_family = pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])
ALICE, BOB = Owner(user=61001, group=62001), Owner(user=61002, group=62002)
B_NETWORKS = networks("10.77.0.2/32", "fd77::2/128")
ELSEWHERE = networks("10.1.0.0/16", "10.2.0.0/16", "fd01::/16", "fd02::/16")


def tagging(hosts: Hosts, wanted: RulePlan) -> AbstractContextManager[Tagger]:
    """The tagger of host a, while the context lasts."""
    tagger = Tagger()
    with hosts.a.entered():
        tagger.apply(wanted)
    return closing(tagger)


def ping_pong(hosts: Hosts, family: int, owner: Owner, port: int = 0, to: int = 5004) -> None:
    """One datagram from a's owner to b, one back."""
    with (
        owned_socket(hosts.b, family, UDP, port=to) as b,
        owned_socket(hosts.a, family, UDP, owner, port) as a,
    ):
        a.sendto(b"ping", (hosts.b.address(family), to))
        data, sender = b.recvfrom(100)
        b.sendto(data, sender)
        assert a.recv(100) == b"ping"


TO_B, HERE = (*ELSEWHERE, *B_NETWORKS), (*ELSEWHERE, *networks("10.77.0.0/24", "fd77::/64"))
ODD_PAIRS = tuple((port, port + 1) for port in range(5000, 5100, 4))  # more than one multiport match holds
ALL_KEYS = Selector(
    ("udp",), HERE, TO_B, ((6000, 6001),), ((1, 1), (5004, 5004)), user=(9, 61001), group=(9, 62001)
)
ALICE_OR_BOB = Selector(user=(61001, 61002))

# What selects, what it excepts, the socket's owner, local and remote port, and whether it is a match.
CASES = {
    "anything": (Selector(), None, BOB, 0, 5004, True),
    "udp": (Selector(("udp",)), None, BOB, 0, 5004, True),
    "tcp": (Selector(("tcp",)), None, BOB, 0, 5004, False),
    "user": (Selector(user=(61001,)), None, ALICE, 0, 5004, True),
    "other user": (Selector(user=(61001,)), None, BOB, 0, 5004, False),
    "one of users": (Selector(user=(1, 2, 61002)), None, BOB, 0, 5004, True),
    "group": (Selector(group=(62001,)), None, ALICE, 0, 5004, True),
    "other group": (Selector(group=(62001, 62003)), None, BOB, 0, 5004, False),
    "user and group": (Selector(user=(61001, 5), group=(7, 62001)), None, ALICE, 0, 5004, True),
    "user, wrong group": (Selector(user=(61001, 5), group=(7, 8)), None, ALICE, 0, 5004, False),
    "remote port": (Selector(remote_port=((5004, 5004),)), None, BOB, 0, 5004, True),
    "remote range": (Selector(remote_port=((80, 80), (5000, 5010))), None, BOB, 0, 5010, True),
    "out of range": (Selector(remote_port=((80, 80), (5000, 5010))), None, BOB, 0, 5011, False),
    "many ports": (Selector(remote_port=ODD_PAIRS), None, BOB, 0, 5097, True),
    "between them": (Selector(remote_port=ODD_PAIRS), None, BOB, 0, 5098, False),
    "local port": (Selector(local_port=((6000, 6000),)), None, BOB, 6000, 5004, True),
    "not remote": (Selector(local_port=((5004, 5004),)), None, BOB, 6000, 5004, False),
    "both ports": (Selector((), (), (), ((6000, 6000),), ((5004, 5004),)), None, BOB, 6000, 5004, True),
    "remote": (Selector(remote=TO_B), None, BOB, 0, 5004, True),
    "not there": (Selector(remote=ELSEWHERE), None, BOB, 0, 5004, False),
    "local": (Selector(local=networks("10.77.0.1/32", "fd77::1/128")), None, BOB, 0, 5004, True),
    "local is not remote": (Selector(local=B_NETWORKS), None, BOB, 0, 5004, False),
    "all keys": (ALL_KEYS, None, ALICE, 6000, 5004, True),
    "all keys but one": (ALL_KEYS, None, BOB, 6000, 5004, False),
    "unless user": (Selector(), Selector(user=(61001,)), ALICE, 0, 5004, False),
    "unless another user": (Selector(), Selector(user=(61001,)), BOB, 0, 5004, True),
    "unless all of": (ALICE_OR_BOB, Selector(user=(1, 61001), remote=TO_B), ALICE, 0, 5004, False),
    "unless not all of": (ALICE_OR_BOB, Selector(user=(1, 61001), remote=ELSEWHERE), ALICE, 0, 5004, True),
    "unless tcp": (Selector(), Selector(("tcp",)), BOB, 0, 5004, True),
    "unless ports": (Selector(remote=TO_B), Selector(remote_port=((5004, 5005),)), BOB, 0, 5004, False),
}


@every_backend
@every_family
@pytest.mark.parametrize("case", CASES)
def test_datagrams_of_chosen_sockets_only(hosts: Hosts, backend: str, family: int, case: str) -> None:
    select, unless, owner, port, to, expected = CASES[case]
    with diverting(hosts.a, backend, plan((select, unless) if unless else select)) as diverted:
        ping_pong(hosts, family, owner, port, to)
        assert diverted.counts() == ({"out 0x1": 1, "in 0x1": 1} if expected else {})


@every_backend
@every_family
def test_first_match_has_the_socket(hosts: Hosts, backend: str, family: int) -> None:
    wanted = plan(
        Selector(user=(61001,), remote=ELSEWHERE), Selector(remote_port=((5004, 5004),)), Selector()
    )
    with diverting(hosts.a, backend, wanted) as diverted:
        ping_pong(hosts, family, ALICE)
        assert diverted.counts() == {"out 0x2": 1, "in 0x2": 1}
        ping_pong(hosts, family, ALICE, to=5005)
        assert diverted.counts() == {"out 0x2": 1, "in 0x2": 1, "out 0x3": 1, "in 0x3": 1}


@every_backend
def test_policy_of_one_family_is_silent_in_the_other(hosts: Hosts, backend: str) -> None:
    with diverting(hosts.a, backend, plan(Selector(remote=networks("10.77.0.0/24")))) as diverted:
        ping_pong(hosts, V6, ALICE)
        assert diverted.counts() == {}
        ping_pong(hosts, V4, ALICE)
        assert diverted.counts() == {"out 0x1": 1, "in 0x1": 1}


@every_backend
@every_family
def test_cgroup_and_what_lies_below_it(hosts: Hosts, backend: str, family: int) -> None:
    with new_cgroups("calls", "calls/video", "mail") as (calls, video, mail), \
         diverting(hosts.a, backend, plan(Selector(cgroup=(calls,)))) as diverted:  # fmt: skip
        ping_pong(hosts, family, Owner(cgroup=mail))
        ping_pong(hosts, family, Owner())
        assert diverted.counts() == {}
        ping_pong(hosts, family, Owner(cgroup=calls))
        assert diverted.counts() == {"out 0x1": 1, "in 0x1": 1}
        ping_pong(hosts, family, Owner(cgroup=video))
        assert diverted.counts() == {"out 0x1": 2, "in 0x1": 2}


PHONE = Owner(61001, 62001, program="phone")
PHONES = Selector(program=("phone", "/no/such/file"), user=(61001, 61002))
# What selects, what it excepts, the socket's owner, and whether it is a match.
PROGRAMS = {
    "program": (Selector(program=("phone",)), None, PHONE, True),
    "other program": (Selector(program=("phon", "phone2")), None, PHONE, False),
    "one of programs, and user": (PHONES, None, PHONE, True),
    "program, wrong user": (PHONES, None, Owner(61003, program="phone"), False),
    "program and port": (Selector(program=("phone",), remote_port=((5004, 5004),)), None, PHONE, True),
    "program, wrong port": (Selector(program=("phone",), remote_port=((1, 1),)), None, PHONE, False),
    "unless program": (Selector(), Selector(program=("phone",)), PHONE, False),
    "unless another program": (Selector(), Selector(program=("phone",)), ALICE, True),
}


@every_backend
@every_family
@pytest.mark.parametrize("case", PROGRAMS)
def test_programs(hosts: Hosts, backend: str, family: int, case: str) -> None:
    """A packet does not tell its program: its socket's tag does. Other bits of its mark stay."""
    select, unless, owner, expected = PROGRAMS[case]
    wanted = plan((select, unless) if unless else select)
    with diverting(hosts.a, backend, wanted) as diverted, tagging(hosts, wanted):
        ping_pong(hosts, family, owner)
        assert diverted.counts() == ({"out 0x1": 1, "in 0x1": 1} if expected else {})
        with owned_socket(hosts.a, family, TCP, owner) as client:
            server = owned_socket(hosts.b, family, TCP, port=5004)
            talk(hosts, client, server, (hosts.b.address(family), 5004))
        assert ("in 0x1" in diverted.counts()) == expected
        assert diverted.counts().get("out 0x1", 0) >= 4 * expected


@every_backend
@every_family
def test_a_socket_from_before_the_tagger_has_no_program(hosts: Hosts, backend: str, family: int) -> None:
    wanted = plan(Selector(program=("phone",)))
    with (
        owned_socket(hosts.a, family, UDP, PHONE) as old,
        diverting(hosts.a, backend, wanted) as diverted,
        tagging(hosts, wanted),
        owned_socket(hosts.b, family, UDP, port=5004) as b,
    ):
        old.sendto(b"ping", (hosts.b.address(family), 5004))
        assert b.recv(100) == b"ping"
        assert diverted.counts() == {}


SERVERS = {
    "program": (Selector(program=("phone",)), PHONE),
    "user": (Selector(user=(61001, 61003)), ALICE),
    "group": (Selector(group=(62001,)), ALICE),
    "user and port": (Selector(user=(61001,), local_port=((5004, 5005),)), ALICE),
    "port": (Selector(local_port=((5004, 5005),)), BOB),
}


@every_backend
@every_family
@pytest.mark.parametrize("case", SERVERS)
def test_server_is_matched_before_its_first_packet(
    hosts: Hosts, backend: str, family: int, case: str
) -> None:
    select, owner = SERVERS[case]
    with diverting(hosts.a, backend, wanted := plan(select)) as diverted, tagging(hosts, wanted):
        with owned_socket(hosts.a, family, UDP, owner, 5004) as a, owned_socket(hosts.b, family, UDP) as b:
            b.sendto(b"first", (hosts.a.address(family), 5004))
            assert a.recv(100) == b"first"
            assert diverted.counts() == {"in 0x1": 1}
        with owned_socket(hosts.a, family, UDP, Owner(), 7000) as a, owned_socket(hosts.b, family, UDP) as b:
            b.sendto(b"not for us", (hosts.a.address(family), 7000))
            assert a.recv(100) == b"not for us"
            assert diverted.counts() == {"in 0x1": 1}


@every_backend
def test_ipv6_server_is_matched_when_ipv4_calls(hosts: Hosts, backend: str) -> None:
    with (
        diverting(hosts.a, backend, wanted := plan(Selector(user=(61001,)))) as diverted,
        tagging(hosts, wanted),
    ):
        with owned_socket(hosts.a, V6, UDP, ALICE, 5004) as a, owned_socket(hosts.b, V4, UDP) as b:
            b.sendto(b"first", (hosts.a.ipv4, 5004))
            data, sender = a.recvfrom(100)
            a.sendto(data, sender)
            assert b.recv(100) == b"first"
        assert diverted.counts() == {"in 0x1": 1, "out 0x1": 1}


@every_backend
@every_family
def test_two_policies_that_differ_in_the_port_share_an_owner(hosts: Hosts, backend: str, family: int) -> None:
    wanted = plan(
        Selector(user=(61001,), local_port=((6000, 6000),)),
        (Selector(user=(61001, 61002)), Selector(group=(62002,), local_port=((7000, 7000),))),
    )
    with diverting(hosts.a, backend, wanted) as diverted, tagging(hosts, wanted):
        for owner, port in ((ALICE, 6000), (ALICE, 7000), (BOB, 6000), (BOB, 7000)):
            with (
                owned_socket(hosts.a, family, UDP, owner, port) as a,
                owned_socket(hosts.b, family, UDP) as b,
            ):
                b.sendto(b"first", (hosts.a.address(family), port))
                a.recv(100)
        assert diverted.counts() == {"in 0x1": 1, "in 0x2": 2}


@every_backend
@every_family
def test_server_in_a_cgroup(hosts: Hosts, backend: str, family: int) -> None:
    with new_cgroups("calls", "calls/video", "mail") as (calls, video, mail):
        wanted = plan(Selector(cgroup=(calls,)))
        with diverting(hosts.a, backend, wanted) as diverted, tagging(hosts, wanted):
            for cgroup in (calls, video, mail):
                with owned_socket(hosts.a, family, UDP, Owner(cgroup=cgroup), 5004) as a, \
                     owned_socket(hosts.b, family, UDP) as b:  # fmt: skip
                    b.sendto(b"first", (hosts.a.address(family), 5004))
                    a.recv(100)
            assert diverted.counts() == {"in 0x1": 2}


@every_backend
@every_family
def test_without_tagger_a_server_is_matched_from_its_first_reply(
    hosts: Hosts, backend: str, family: int
) -> None:
    with (
        diverting(hosts.a, backend, plan(Selector(user=(61001,)))) as diverted,
        owned_socket(hosts.a, family, UDP, ALICE, 5004) as a,
        owned_socket(hosts.b, family, UDP) as b,
    ):
        for _ in range(2):
            b.sendto(b"ask", (hosts.a.address(family), 5004))
            data, sender = a.recvfrom(100)
            a.sendto(data, sender)
            b.recv(100)
        assert diverted.counts() == {"out 0x1": 2, "in 0x1": 1}


def talk(hosts: Hosts, client: socket.socket, server: socket.socket, address: tuple[str, int]) -> None:
    """A whole TCP connection, data both ways, client closes first."""
    server.listen()
    with client:
        client.connect(address)
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"ask")
            assert accepted.recv(10) == b"ask"
            accepted.sendall(b"answer")
            assert client.recv(10) == b"answer"
            client.shutdown(socket.SHUT_WR)
            assert accepted.recv(10) == b""
    time.sleep(0.1)


@every_backend
@every_family
@pytest.mark.parametrize("owner", [ALICE, BOB], ids=["chosen", "another"])
def test_tcp_client(hosts: Hosts, backend: str, family: int, owner: Owner) -> None:
    with diverting(hosts.a, backend, plan(Selector(user=(61001,)))) as diverted:
        with owned_socket(hosts.b, family, TCP, port=5004) as server, hosts.b.capture("tcp") as capture:
            talk(hosts, owned_socket(hosts.a, family, TCP, owner), server, (hosts.b.address(family), 5004))
        sent = sum(p["TCP"].dport == 5004 for p in capture.packets())
        received = sum(p["TCP"].sport == 5004 for p in capture.packets())
        assert diverted.counts() == ({"out 0x1": sent, "in 0x1": received} if owner is ALICE else {})
        assert sent >= 4 and received >= 4


@every_backend
@every_family
@pytest.mark.parametrize("owner", [ALICE, BOB], ids=["chosen", "another"])
def test_tcp_server_from_the_first_syn(hosts: Hosts, backend: str, family: int, owner: Owner) -> None:
    """The accepted socket belongs to this process, not to the owner: the connection keeps its class."""
    with (
        diverting(hosts.a, backend, wanted := plan(Selector(user=(61001,)))) as diverted,
        tagging(hosts, wanted),
    ):
        with owned_socket(hosts.a, family, TCP, owner, 5004) as server, hosts.b.capture("tcp") as capture:
            talk(hosts, owned_socket(hosts.b, family, TCP), server, (hosts.a.address(family), 5004))
        sent = sum(p["TCP"].sport == 5004 for p in capture.packets())
        received = sum(p["TCP"].dport == 5004 for p in capture.packets())
        assert diverted.counts() == ({"out 0x1": sent, "in 0x1": received} if owner is ALICE else {})
        assert sent >= 4 and received >= 4


@every_backend
@every_family
def test_loopback_is_diverted_on_both_ways(hosts: Hosts, backend: str, family: int) -> None:
    here = {V4: "127.0.0.1", V6: "::1"}[family]
    with diverting(hosts.a, backend, plan(Selector(protocol=("udp",)))) as diverted, \
         owned_socket(hosts.a, family, UDP, ALICE, 5004) as server, \
         owned_socket(hosts.a, family, UDP, ALICE) as client:  # fmt: skip
        client.sendto(b"ping", (here, 5004))
        data, sender = server.recvfrom(100)
        server.sendto(data, sender)
        assert client.recv(100) == b"ping"
        assert diverted.counts() == {"out 0x1": 2, "in 0x1": 2}


@every_backend
@every_family
def test_exempt_packets_leave_untouched_and_still_arrive_customized(
    hosts: Hosts, backend: str, family: int
) -> None:
    here = {V4: "127.0.0.1", V6: "::1"}[family]
    with diverting(hosts.a, backend, plan(Selector())) as diverted, \
         owned_socket(hosts.a, family, UDP, ALICE, 5004) as server, \
         owned_socket(hosts.a, family, UDP, ALICE) as client:  # fmt: skip
        client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x2000)
        client.sendto(b"injected", (here, 5004))
        assert server.recv(100) == b"injected"
        assert diverted.counts() == {"in 0x1": 1}
