# ruff: noqa: E501 (messages stand whole, as a user sees them)
"""Match keys: what they read, and one line for each that is wrong."""

import os
import pwd
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layer45.problems import Place, Problems
from layer45.rules.diversion import Selector
from layer45.selector import read_cgroup, read_match, read_network, read_ports

PLACE = Place(Path("f"), path=("match",))
PORTS = st.integers(1, 65535)


def read(table: Any) -> tuple[Selector, Selector | None, list[str]]:
    problems = Problems()
    return (
        *read_match(table, PLACE, problems),
        [line.removeprefix("f: match") for line in problems.sorted_lines()],
    )


def test_every_key() -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    select, unless, problems = read({
        "protocol": "udp", "local": "10.0.0.1", "remote": ["10.0.0.0/8", "fd00::/8"], "local_port": 53,
        "remote_port": ["5004-5100", "7", 9], "user": [me, 12345], "group": "root", "cgroup": "/a/b/",
        "program": ["dig", "/usr/bin/../bin/curl"],
        "unless": {"remote": ["10.1.0.0/16"]},
    })  # fmt: skip
    assert problems == []
    assert select == Selector(
        protocol=("udp",), local=(ip_network("10.0.0.1"),),
        remote=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")), local_port=((53, 53),),
        remote_port=((5004, 5100), (7, 7), (9, 9)), user=(os.getuid(), 12345), group=(0,), cgroup=("a/b",),
        program=("dig", "/usr/bin/curl"),
    )  # fmt: skip
    assert unless == Selector(remote=(ip_network("10.1.0.0/16"),))


def test_no_key_is_any_socket() -> None:
    assert read({}) == (Selector(), None, [])


def test_doubles_count_once() -> None:
    assert read({"remote_port": [5, "5", "5-5"], "protocol": ["udp", "udp"]})[0] == Selector(
        protocol=("udp",), remote_port=((5, 5),)
    )


NETWORK = "expected an address or network such as 10.0.0.0/8 or fd00::/8, got "
PORT = 'expected a port 1..65535 or a range such as "5004-5100", got '


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("udp", [': expected a table such as { protocol = "udp" }, got "udp"']),
        ({"protocl": "udp"}, ['.protocl: unknown key, did you mean "protocol"?']),
        ({"protocol": "upd"}, ['.protocol: expected "udp" or "tcp", got "upd", did you mean "udp"?']),
        ({"protocol": ["tcp", 6]}, ['.protocol[1]: expected "udp" or "tcp", got 6']),
        ({"protocol": []}, [".protocol: an empty list matches nothing; expected at least one value"]),
        ({"program": 7}, ['.program: expected a program such as "iperf3" or "/usr/bin/iperf3", got 7']),
        ({"program": ["a", ""]}, ['.program[1]: expected a program such as "iperf3" or "/usr/bin/iperf3", got ""']),
        ({"program": "bin/ssh"}, ['.program: expected a name without / or an absolute path, got "bin/ssh"']),
        ({"program": "gnome-calculator"}, [
            ".program: the kernel keeps 15 bytes of a program's name; expected "
            '"gnome-calculato" or the executable\'s path, got "gnome-calculator"']),
        ({"remote": "10.0.0.1/8"}, [f'.remote: {NETWORK}"10.0.0.1/8"; it has bits set behind the prefix, did you mean 10.0.0.0/8?']),
        ({"remote": ["::/0", "fd00::1/x"]}, [f'.remote[1]: {NETWORK}"fd00::1/x"']),
        ({"remote": 10}, [f".remote: {NETWORK}10"]),
        ({"remote": "fe80::1%eth0"}, [f'.remote: {NETWORK}"fe80::1%eth0"']),
        ({"remote": "::ffff:10.0.0.1"}, [f'.remote: {NETWORK}"::ffff:10.0.0.1"; write IPv4 addresses as such']),
        ({"remote": {"a": 1}}, [f".remote: {NETWORK}a table"]),
        ({"local": "10.0.0.0/8", "remote": "fd00::/8"}, [": local and remote have no address family in common, so no socket matches"]),
        ({"local_port": 0}, [f".local_port: {PORT}0"]),
        ({"local_port": True}, [f".local_port: {PORT}true"]),
        ({"local_port": "9-8"}, [f'.local_port: {PORT}"9-8"']),
        ({"local_port": ["1-65536", "-5", "5-", "a"]}, [f'.local_port[{i}]: {PORT}"{text}"' for i, text in enumerate(["1-65536", "-5", "5-", "a"])]),
        ({"local_port": "٣"}, [f'.local_port: {PORT}"٣"']),
        ({"user": "rooot"}, ['.user: no user "rooot" on this host, did you mean "root"?']),
        ({"user": -1}, [".user: expected a user name or number 0..4294967294, got -1"]),
        ({"user": "\0"}, ['.user: no user "\\u0000" on this host']),
        ({"user": ""}, ['.user: expected a user name or number 0..4294967294, got ""']),
        ({"user": "99999999999999999999999999"}, ['.user: expected a user name or number 0..4294967294, got "99999999999999999999999999"']),
        ({"group": "wheeeel"}, ['.group: no group "wheeeel" on this host']),
        ({"cgroup": ""}, ['.cgroup: expected a cgroup path such as "system.slice/x.service", got ""']),
        ({"cgroup": "/"}, ['.cgroup: expected a cgroup path such as "system.slice/x.service", got "/"']),
        ({"cgroup": "a//b"}, ['.cgroup: expected a path below the cgroup mount, without . and .., got "a//b"']),
        ({"cgroup": "../b"}, ['.cgroup: expected a path below the cgroup mount, without . and .., got "../b"']),
        ({"unless": {}}, [".unless: has no key, so nothing would match; expected at least one match key"]),
        ({"unless": "x"}, ['.unless: expected a table of match keys, got "x"']),
        ({"unless": {"unless": {}, "usr": 1}}, [
            ".unless.unless: unknown key; expected one of protocol, local, remote, local_port, remote_port, user, group, cgroup, program",
            '.unless.usr: unknown key, did you mean "user"?']),
    ],
)  # fmt: skip
def test_wrong_keys(table: Any, expected: list[str]) -> None:
    assert read(table)[2] == expected


@given(PORTS, PORTS, st.sampled_from(["{}-{}", " {} - {} ", "{:05d}-{:05d}"]))
def test_port_ranges(first: int, last: int, style: str) -> None:
    text = style.format(first, last)
    if first <= last:
        assert read_ports(text) == (first, last)
    else:
        with pytest.raises(ValueError, match="expected a port"):
            read_ports(text)


@given(st.text("0123456789- ", max_size=13) | st.integers() | st.none() | st.booleans() | st.floats())
def test_ports_are_read_right_or_refused(value: Any) -> None:
    try:
        first, last = read_ports(value)
    except ValueError:
        return
    assert 1 <= first <= last <= 65535
    assert str(value).replace(" ", "").lstrip("0").startswith(str(first))


@given(st.ip_addresses(), st.integers(0, 128))
def test_networks(address: Any, prefix: int) -> None:
    prefix = min(prefix, address.max_prefixlen)
    network = ip_network(f"{address}/{prefix}", strict=False)
    if network.version == 6 and network.subnet_of(ip_network("::ffff:0:0/96")):
        return
    assert read_network(str(network)) == network
    if network.network_address != address:
        with pytest.raises(ValueError, match="bits set behind the prefix"):
            read_network(f"{address}/{prefix}")


@given(st.text(max_size=20))
def test_any_text_is_a_network_or_a_value_error(text: str) -> None:
    try:
        read_network(text)
    except ValueError as error:
        assert str(error).startswith(NETWORK)


@pytest.mark.parametrize("mount", ["", "/", "/sys/fs/cgroup/", "/sys/fs/cgroup/unified/"])
def test_a_cgroup_may_be_written_with_its_mount(mount: str) -> None:
    assert read_cgroup(f"{mount}system.slice/x.service") == "system.slice/x.service"
