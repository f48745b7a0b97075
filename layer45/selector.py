"""A policy's match table -> rules.diversion.Selector. Works without root and asks the kernel nothing."""

import grp
import os
import pwd
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from ipaddress import IPv6Network, ip_interface, ip_network
from typing import Any

from layer45.config import cgroup_fault
from layer45.problems import Place, Problems, shown
from layer45.rules.diversion import Network, PortRange, Selector
from layer45.suggest import did_you_mean
from layer45.table import report_unknown

PROTOCOLS = ("udp", "tcp")
LONGEST_NAME_BYTES = 15  # TASK_COMM_LEN
LAST_ID = (1 << 32) - 2  # -1 is no id
CGROUP_MOUNTS = ("/sys/fs/cgroup/unified/", "/sys/fs/cgroup/")
MAPPED = IPv6Network("::ffff:0:0/96")
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


def read_match(table: object, place: Place, problems: Problems) -> tuple[Selector, Selector | None]:
    """A match table as (match, unless). Wrong keys are problems and left out."""
    if not isinstance(table, dict):
        problems.add(place, f'expected a table such as {{ protocol = "udp" }}, got {shown(table)}')
        return Selector(), None
    positive = {key: value for key, value in table.items() if key != "unless"}
    select = _read_selector(positive, place, problems, (*READERS, "unless"))
    if "unless" not in table:
        return select, None
    return select, _read_unless(table["unless"], place.child("unless"), problems)


def _read_unless(table: object, place: Place, problems: Problems) -> Selector | None:
    if not isinstance(table, dict):
        problems.add(place, f"expected a table of match keys, got {shown(table)}")
        return None
    if not table:
        problems.add(place, "has no key, so nothing would match; expected at least one match key")
    return _read_selector(table, place, problems, READERS)


def _read_selector(table: dict[str, Any], place: Place, problems: Problems, known: Iterable[str]) -> Selector:
    report_unknown(table, known, place, problems)
    before = len(problems)
    values = {
        key: _read_list(value, READERS[key], place.child(key), problems)
        for key, value in table.items()
        if key in READERS
    }
    select = Selector(**values)
    if len(problems) == before and not families(select):
        problems.add(place, "local and remote have no address family in common, so no socket matches")
    return select


def _read_list(
    value: object, read: Callable[[object], Any], place: Place, problems: Problems
) -> tuple[Any, ...]:
    """A list, or a single value in the place of one. Doubles are left out."""
    if value == []:
        problems.add(place, "an empty list matches nothing; expected at least one value")
    numbered = [(place.child(i), each) for i, each in enumerate(value)] if isinstance(value, list) else None
    found: dict[Any, None] = {}
    for spot, each in numbered if numbered is not None else [(place, value)]:
        try:
            found[read(each)] = None
        except ValueError as error:
            problems.add(spot, str(error))
    return tuple(found)


def families(select: Selector) -> set[int]:
    """The IP versions a selector leaves possible."""
    possible = {4, 6}
    for networks in (select.local, select.remote):
        if networks:
            possible &= {each.version for each in networks}
    return possible


def as_policy_protocol(select: Selector, protocols: tuple[str, ...]) -> Selector:
    """The selector narrowed to some protocols; all of them: as it is."""
    return select if set(protocols) == set(PROTOCOLS) else replace(select, protocol=protocols)


def read_protocol(value: object) -> str:
    """ "udp" or "tcp". Raises ValueError, as all readers here."""
    if value in PROTOCOLS:
        return str(value)
    hint = did_you_mean(value, PROTOCOLS) if isinstance(value, str) else ""
    raise ValueError(f'expected "udp" or "tcp", got {shown(value)}{hint}')


def read_network(value: object) -> Network:
    """An address, or a network whose host bits are 0."""
    wrong = f"expected an address or network such as 10.0.0.0/8 or fd00::/8, got {shown(value)}"
    if not isinstance(value, str) or "%" in value:
        raise ValueError(wrong)
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise ValueError(wrong) from None
    if ip_interface(value).ip != network.network_address:
        raise ValueError(f"{wrong}; it has bits set behind the prefix, did you mean {network}?")
    if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
        raise ValueError(f"{wrong}; write IPv4 addresses as such")
    return network


def read_ports(value: object) -> PortRange:
    """A port, or a range of ports, both ends included."""
    wrong = f'expected a port 1..65535 or a range such as "5004-5100", got {shown(value)}'
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(wrong)
    found = _PORTS.fullmatch(str(value).replace(" ", ""))
    if not found:
        raise ValueError(wrong)
    first, last = int(found[1]), int(found[2] or found[1])
    if not 1 <= first <= last <= 65535:
        raise ValueError(wrong)
    return first, last


def _user_ids() -> dict[str, int]:
    return {each.pw_name: each.pw_uid for each in pwd.getpwall()}


def _group_ids() -> dict[str, int]:
    return {each.gr_name: each.gr_gid for each in grp.getgrall()}


def _read_id(
    kind: str, one: Callable[[str], int], everyone: Callable[[], dict[str, int]], value: object
) -> int:
    wrong = f"expected a {kind} name or number 0..{LAST_ID}, got {shown(value)}"
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:20])
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LAST_ID:
        return value
    if not isinstance(value, str) or not value:
        raise ValueError(wrong)
    try:
        return one(value)
    except (KeyError, ValueError):
        raise ValueError(f"no {kind} {shown(value)} on this host{did_you_mean(value, everyone())}") from None


read_user = partial(_read_id, "user", lambda name: pwd.getpwnam(name).pw_uid, _user_ids)
read_group = partial(_read_id, "group", lambda name: grp.getgrnam(name).gr_gid, _group_ids)


def read_cgroup(value: object) -> str:
    """A path below the cgroup v2 mount; a leading slash, or the mount itself, is left out."""
    if not isinstance(value, str) or not value.strip("/"):
        raise ValueError(f'expected a cgroup path such as "system.slice/x.service", got {shown(value)}')
    path = value
    for mount in CGROUP_MOUNTS:
        path = path.removeprefix(mount)
    fault = cgroup_fault(path)
    if fault:
        raise ValueError(fault)
    return path.strip("/")


def read_program(value: object) -> str:
    """A program's name, as `ps -o comm` shows it, or the path of its executable."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f'expected a program such as "iperf3" or "/usr/bin/iperf3", got {shown(value)}')
    if value.startswith("/"):
        return os.path.normpath(value)
    if "/" in value:
        raise ValueError(f"expected a name without / or an absolute path, got {shown(value)}")
    kept = value.encode()[:LONGEST_NAME_BYTES]
    if kept != value.encode():
        raise ValueError(
            f"the kernel keeps {LONGEST_NAME_BYTES} bytes of a program's name; expected "
            f"{shown(kept.decode(errors='ignore'))} or the executable's path, got {shown(value)}"
        )
    return value


READERS: dict[str, Callable[[Any], Any]] = {
    "protocol": read_protocol,
    "local": read_network,
    "remote": read_network,
    "local_port": read_ports,
    "remote_port": read_ports,
    "user": read_user,
    "group": read_group,
    "cgroup": read_cgroup,
    "program": read_program,
}
