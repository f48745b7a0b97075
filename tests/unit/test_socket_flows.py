"""Flows find their sockets: by the 5-tuple first, then by a local address that only one socket has."""

from ipaddress import ip_address
from typing import Any

import pytest

from layer45.rules.socket_list import Socket
from layer45.socket_flows import Traffic, endpoint, read_address, traffic, written


def flow(local: str, remote: str, protocol: str = "udp", packets: int = 1) -> dict[str, Any]:
    return {
        "protocol": protocol, "local": local, "remote": remote, "policy": "p", "state": "",
        "egress_packets": packets, "ingress_packets": 1, "egress_bytes": 100 * packets, "ingress_bytes": 100,
        "age_s": float(packets),
    }  # fmt: skip


def made(
    inode: int, local: str, remote: str = "*:*", protocol: str = "udp", families: tuple[int, ...] = (4,)
) -> Socket:
    return Socket(protocol, *endpoint(local), *endpoint(remote), frozenset(families), "open", 0, inode, 0, 1)


def test_a_connected_socket_has_its_own_and_the_open_one_the_rest() -> None:
    open_one, connected = made(1, "*:53", families=(4, 6)), made(2, "10.0.0.1:53", "10.0.0.2:9")
    flows = [
        flow("10.0.0.1:53", "10.0.0.2:9", packets=5), flow("10.0.0.1:53", "10.0.0.2:10", packets=2),
        flow("[fd00::1]:53", "[fd00::2]:9"), flow("10.0.0.1:54", "10.0.0.2:9"),
        flow("10.0.0.1:53", "10.0.0.2:9", "tcp"),
    ]  # fmt: skip
    assert traffic([open_one, connected], flows) == {
        2: Traffic(1, 6, 600, 5.0, "p", ""),
        1: Traffic(2, 5, 500, 2.0),
    }


def test_families_and_addresses_are_told_apart() -> None:
    four, six, there = made(1, "*:53"), made(2, "*:53", families=(6,)), made(3, "10.0.0.9:53")
    flows = [
        flow("10.0.0.1:53", "10.0.0.2:9"), flow("[fd00::1]:53", "[fd00::2]:9"),
        flow("10.0.0.9:53", "10.0.0.2:9", packets=4),
    ]  # fmt: skip
    found = traffic([four, six, there], flows)
    assert {inode: each.packets for inode, each in found.items()} == {1: 2, 2: 2, 3: 5}


def test_nobody_has_what_several_could_have() -> None:
    twins = [made(1, "*:53"), made(2, "*:53")]
    assert traffic(twins, [flow("10.0.0.1:53", "10.0.0.2:9")]) == {}


def test_a_listening_tcp_socket_has_no_packets_of_its_own() -> None:
    listening = made(1, "*:80", protocol="tcp")
    assert traffic([listening], [flow("10.0.0.1:80", "10.0.0.2:9", "tcp")]) == {}


@pytest.mark.parametrize("text", ["10.0.0.1:53", "[fd00::1]:53", "*:53", "*:*", "10.0.0.1:*"])
def test_endpoints_are_read_as_they_are_written(text: str) -> None:
    assert written(*endpoint(text)) == text


def test_an_address_of_a_socket() -> None:
    assert read_address("udp/*:53/[fd00::1]:9") == ("udp", [(None, 53), (ip_address("fd00::1"), 9)])


@pytest.mark.parametrize(
    "text", ["", "udp", "sctp/*:1", "udp/1", "udp/*:x", "udp/*:1/*:1/*:1", "udp/10.0.0:1"]
)
def test_what_is_no_address_of_a_socket(text: str) -> None:
    with pytest.raises(ValueError, match="expected PROTO/LOCAL or PROTO/LOCAL/REMOTE"):
        read_address(text)
