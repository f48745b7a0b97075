"""`layer45 sockets` and `layer45 explain`: which policy sockets of real programs have, and why, or why not.

a: a program older than the daemon, one younger, a server, a TCP connection ──▶ wire ──▶ b: nobody
"""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from .daemons import Daemon, eventually, running
from .datagrams import FAMILIES, connected, echo, exchange
from .owned_sockets import Owner, new_cgroups, owned_socket
from .test_live_attach import by_program, refused, sender
from .topology import Hosts

pytestmark = pytest.mark.root

UNKNOWN = "the socket was made before the tagger, was detached, or its program set its mark"
CHAIN = 'chain = [ { module = "tag", id = "x" } ]\n'


def policy(name: str, priority: int, match: str, chain: str = "") -> str:
    return f"[policy.{name}]\npriority = {priority}\nmatch = {{ {match} }}\n{chain}"


def rows(daemon: Daemon, *words: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    """By protocol, local and remote address."""
    found = daemon.ask(*words)
    return {(each["protocol"], each["local"], each["remote"]): each for each in found}


def answers(row: dict[str, Any]) -> dict[str, tuple[str, str, str, str]]:
    return {a["policy"]: (a["holds"], a["key"], a["value"], a["expected"]) for a in row["answers"]}


def test_why_a_socket_is_not_customized_policy_by_policy(hosts: Hosts, tmp_path: Path) -> None:
    text = (
        policy("phone", 9, 'protocol = "udp", program = "phone"', CHAIN)
        + policy("far", 8, 'protocol = "udp", remote = "10.0.0.0/8", remote_port = "5000-5100"')
        + policy("root", 7, 'protocol = "tcp", user = 0, local_port = 7002')
        + policy("spared", 6, 'protocol = "udp", unless = { user = 0 }')
        + "[policy.command]\n"
    )
    with sender(hosts.a, hosts.b, tmp_path) as phone, running(hosts.a, text) as a:
        found = rows(a, "explain", "--pid", str(phone.pid))
        assert len(found) == 4 and {row["pid"] for row in found.values()} == {phone.pid}
        (ipv4,) = (row for key, row in found.items() if key[2] == f"{hosts.b.ipv4}:7001")
        assert answers(ipv4) == {
            "command": ("no", "cgroup", _cgroup(phone.pid), f"{a.cgroup}/command"),
            "phone": ("no", "program", f"unknown: {UNKNOWN}", "phone"),
            "far": ("no", "remote_port", "7001", "5000-5100"),
            "root": ("no", "protocol", "udp", "tcp"),
            "spared": ("no", "unless", "user 0", "anything else"),
        }
        assert list(answers(ipv4)) == ["command", "phone", "far", "root", "spared"]
        assert (ipv4["policies"], ipv4["tag"]["state"], ipv4["path"]) == (
            [],
            "unseen",
            str(tmp_path / "phone"),
        )
        (client,) = (row for key, row in found.items() if key[2] == "127.0.0.1:7002")
        assert client["connection"] and client["policies"] == [] and "what its SYN decided" in client["why"]
        listening = found["tcp", "127.0.0.1:7002", "*:*"]
        assert (
            listening["policies"] == [{"policy": "root", "holds": "yes"}]
            and listening["state"] == "listening"
        )

        a.ask("attach", "phone", "--pid", str(phone.pid))
        after = rows(a, "sockets")
        assert {key for key in after if key[0] == "udp"} == {key for key in found if key[0] == "udp"}
        eventually(lambda: rows(a, "sockets")["udp", ipv4["local"], ipv4["remote"]]["packets"] > 20)
        seen = rows(a, "sockets")["udp", ipv4["local"], ipv4["remote"]]
        assert seen["policies"] == [{"policy": "phone", "holds": "yes"}]
        assert seen["tag"]["policies"] == ["phone", "root"]  # the user holds, too
        assert seen["flows"] == 1 and seen["bytes"] == 36 * seen["packets"] and seen["since_s"] > 0


def _cgroup(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text().split("0::/", 1)[1].strip()


def test_a_socket_is_told_by_who_made_it(hosts: Hosts) -> None:
    """User, group and cgroup: of a socket that another process has now, and that is bound to no address."""
    with new_cgroups("calls", "calls/video") as (calls, video):
        text = (
            policy("group", 9, f'protocol = "udp", user = 61001, group = 62001, cgroup = "{calls}"', CHAIN)
            + policy("other", 8, 'protocol = "udp", user = [61002, 61003]')
            + policy("near", 7, 'protocol = "udp", remote = "10.77.0.0/16"')
        )
        with (
            running(hosts.a, text) as a,
            owned_socket(hosts.a, socket.AF_INET, socket.SOCK_DGRAM, Owner(61001, 62001, video), 7001),
            owned_socket(hosts.a, socket.AF_INET6, socket.SOCK_DGRAM, Owner(61001), 7003),
        ):
            mine = rows(a, "sockets", "--all")["udp", "*:7001", "*:*"]
            assert (mine["pid"], mine["user"], mine["group"], mine["cgroup"]) == (
                os.getpid(),
                61001,
                62001,
                video,
            )
            assert (
                mine["policies"] == [{"policy": "group", "holds": "yes"}] and mine["tag"]["state"] == "seen"
            )
            (six,) = a.ask("explain", "--socket", "udp/*:7003")
            assert answers(six)["group"] == ("no", "group", "0", "62001")
            assert answers(six)["other"] == ("no", "user", "61001", "61002, 61003")
            assert answers(six)["near"] == ("packet", "remote", "each packet's own", "10.77.0.0/16")
            assert six["policies"] == [{"policy": "near", "holds": "packet"}]
            lines = a.host.run(a.command("sockets")).stdout.splitlines()
            assert [line.split()[8] for line in lines if "*:7003" in line] == ["near?"]


def test_what_the_rules_do_is_what_is_said(hosts: Hosts) -> None:
    """A connected, an open and a twin socket: flows of the engine stand where nobody else's could be."""
    text = policy("near", 7, 'protocol = "udp", local_port = 7001', CHAIN)
    with (
        running(hosts.b, text) as b,
        running(hosts.a, policy("to", 7, 'protocol = "udp", remote_port = 7001', CHAIN)) as a,
        echo(hosts.b, 7001) as server,
    ):
        for family in FAMILIES:
            with connected(hosts.a, family, hosts.b, 7001) as client:
                assert exchange(client, [b"x"] * 7) == [b"x"] * 7
                (here,) = a.ask("sockets")
                assert (here["flows"], here["packets"]) == (1, 14) and here["policies"][0]["policy"] == "to"
        there = [each for each in b.ask("sockets") if each["local"] == "*:7001"]
        assert [(each["pid"], each["flows"], each["packets"]) for each in there] == [(server.pid, 1, 14)] * 2


def test_a_customized_connection_is_told_by_its_flow(hosts: Hosts, tmp_path: Path) -> None:
    """It keeps the policy of its SYN: whatever policies say after a reload, and whoever has the socket."""
    chain = 'chain = [ { module = "stream_tag", every_bytes = 1000, tag_bytes = 32, id = "x" } ]\n'
    web, moved = (policy("web", 7, f'protocol = "tcp", local_port = {port}', chain) for port in (8080, 8081))
    with (
        running(hosts.b, web) as b,
        running(hosts.a, web.replace("local_port", "remote_port")),
        hosts.b.socket(socket.AF_INET, socket.SOCK_STREAM) as listener,
        hosts.a.socket(socket.AF_INET, socket.SOCK_STREAM) as client,
    ):
        listener.bind((hosts.b.ipv4, 8080))
        listener.listen()
        client.connect((hosts.b.ipv4, 8080))
        accepted, peer = listener.accept()
        with accepted:
            client.sendall(b"x" * 5000)
            assert len(accepted.recv(5000, socket.MSG_WAITALL)) == 5000
            b.reload(moved)
            found = rows(b, "sockets", "--all")
            own = f"{hosts.b.ipv4}:8080"
            connection = found["tcp", own, f"{hosts.a.ipv4}:{peer[1]}"]
            assert connection["policies"] == [{"policy": "web", "holds": "yes"}]
            assert connection["why"] == "its SYN was selected; customized" and connection["packets"] > 3
            assert found["tcp", own, "*:*"]["why"] == "web: local_port is 8080, expected 8081"


def test_what_cannot_be_explained(hosts: Hosts, tmp_path: Path) -> None:
    """And an empty list, as text; a process that is in another namespace has no socket here."""
    with sender(hosts.b, hosts.a, tmp_path) as other, running(hosts.a, by_program("phone")) as a:
        assert refused(a, "explain", "--pid", other.pid) == (
            f"process {other.pid} (phone) has no bound TCP or UDP socket in this network namespace; "
            "layer45 sockets --all has them all"
        )
        assert refused(a, "explain", "--pid", 4194304) == "there is no process 4194304"
        assert refused(a, "explain", "--socket", "udp/*:9").startswith("no socket udp/*:9 in this network")
        said = a.host.run(a.command("sockets")).stdout
        assert said == "no policy has a socket; --all shows the others, and why\n"
        assert a.host.run(a.command("sockets", "--all")).stdout == "no sockets\n"


def test_explained_as_text(hosts: Hosts, tmp_path: Path) -> None:
    text = by_program("phone", "priority = 2") + policy("low", 1, 'protocol = "udp", remote_port = 7001')
    with running(hosts.a, text) as a, sender(hosts.a, hosts.b, tmp_path) as phone:
        a.ask("attach", "voice", "--pid", str(phone.pid))
        said = a.host.run(a.command("explain", "--pid", str(phone.pid))).stdout.split("\n\n")[0].splitlines()
        assert said[0].endswith(f"→ {hosts.b.ipv4}:7001, connected: phone (pid {phone.pid})")
        assert said[1] == "policy: voice"
        assert [line.split(maxsplit=2) for line in said[2:]] == [
            ["POLICY", "SELECTS", "WHY"],
            ["voice", "yes", "every key holds"],
            ["low", "yes", "every key holds; voice comes first"],
        ]
