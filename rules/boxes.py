"""What a policy's packets have in common, as a box for the decision tree.

axis            numbers
local, remote   addresses
local_port, remote_port
user, group     of the packet's socket, where the packet tells them
tag             where it does not: of the socket, see owners.py
class           of the connection, where only flows that have the class are asked for
"""

from collections.abc import Iterable

from layer45.rules.diversion import Diversion, Network, Selector
from layer45.rules.owners import OwnerTags
from layer45.rules.tree import Box, Spans, joined, spans


def box(diversion: Diversion, family: int, egress: bool, tags: OwnerTags) -> Box:
    """Of the packets of one family that a diversion selects. egress: they tell their socket's owner."""
    select = diversion.select
    assert select is not None
    axes: dict[str, Spans] = {
        "local": _addresses(select.local, family),
        "remote": _addresses(select.remote, family),
        "local_port": joined(select.local_port),
        "remote_port": joined(select.remote_port),
        **_owner(select, egress, tags),
        "class": () if diversion.flows == "any" else spans([diversion.class_id]),
    }
    return tuple((axis, found) for axis, found in axes.items() if found)


def by_tag(selector: Selector, egress: bool) -> bool:
    """Whether the socket's tag stands for the selector's owner keys."""
    return selector.owned and (not egress or bool(selector.program))


def _addresses(networks: Iterable[Network], family: int) -> Spans:
    mine = (each for each in networks if each.version == family)
    return joined((int(each.network_address), int(each.broadcast_address)) for each in mine)


def _owner(select: Selector, egress: bool, tags: OwnerTags) -> dict[str, Spans]:
    if by_tag(select, egress):
        return {"tag": spans(tags.having(select))}
    return {"user": spans(select.user), "group": spans(select.group)}
