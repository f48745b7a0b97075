"""The tagger: sockets of one namespace have the right tag from the moment they exist, while it lives."""

import contextlib
import socket
from pathlib import Path

import pytest

from layer45.rules import cgroups, tagger
from layer45.rules.diversion import MarkLayout, RulePlan, Selector
from layer45.rules.errors import RulesError
from layer45.rules.owners import owner_tags
from layer45.rules.tagger import Tagger

from .owned_sockets import Owner, new_cgroups, owned_socket
from .rule_plans import MARKS, plan
from .test_rules_matching import ALICE, BOB, TCP, UDP, V4, V6
from .topology import Host, Hosts

pytestmark = pytest.mark.root


@pytest.fixture
def here(hosts: Hosts):  # type: ignore[no-untyped-def]
    """A tagger of host a."""
    with contextlib.closing(Tagger()) as tagger:
        yield tagger


def apply(host: Host, here: Tagger, wanted: RulePlan) -> None:
    """As the daemon of that host would."""
    with host.entered():
        here.apply(wanted)


def tag(host: Host, owner: Owner, family: int = V4, kind: int = UDP) -> int:
    """The mark a new socket of that owner has."""
    with owned_socket(host, family, kind, owner) as made:
        return made.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)


def holding(wanted: RulePlan, *places: int) -> int:
    """The mark of a socket for which exactly these owner keys hold."""
    sets = {keys: number for number, keys in owner_tags(wanted).sets.items()}
    return wanted.marks.spread(sets[frozenset(places)])


@pytest.mark.parametrize("family", [V4, V6])
@pytest.mark.parametrize("kind", [UDP, TCP])
def test_every_owner_has_the_tag_of_what_holds_for_it(
    hosts: Hosts, here: Tagger, family: int, kind: int
) -> None:
    wanted = plan(
        Selector(user=(61001, 61003)),
        Selector(user=(61001, 61002)),
        Selector(group=(62001,)),
        Selector(user=(61002,), group=(62001, 62002)),
    )
    apply(hosts.a, here, wanted)
    expected = {ALICE: (0, 1, 2), BOB: (1, 3), Owner(61003): (0,), Owner(5, 62001): (2,), Owner(): ()}
    for owner, places in expected.items():
        assert tag(hosts.a, owner, family, kind) == holding(wanted, *places)


def test_cgroups_nest(hosts: Hosts, here: Tagger) -> None:
    with new_cgroups("calls", "calls/video", "mail") as (calls, video, mail):
        wanted = plan(
            Selector(cgroup=(calls,)), Selector(cgroup=(video,)), Selector(cgroup=(mail,), user=(61001,))
        )
        apply(hosts.a, here, wanted)
        expected = {
            Owner(cgroup=calls): (0,),
            Owner(cgroup=video): (0, 1),
            Owner(cgroup=mail): (),
            Owner(61001, cgroup=mail): (2,),
            Owner(): (),
        }
        for owner, places in expected.items():
            assert tag(hosts.a, owner) == holding(wanted, *places)


def test_other_namespaces_and_other_kinds_of_socket_are_left_alone(hosts: Hosts, here: Tagger) -> None:
    apply(hosts.a, here, plan(Selector(user=(61001,))))
    assert tag(hosts.a, ALICE)
    assert not tag(hosts.b, ALICE)
    with hosts.a.socket(V4, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        assert not raw.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)


def test_mask_with_holes_up_to_the_highest_bit(hosts: Hosts, here: Tagger) -> None:
    marks = MarkLayout(0x8421_1248, 0x1)
    wanted = RulePlan("test", marks, plan(Selector(user=(61001,))).diversions)
    apply(hosts.a, here, wanted)
    assert tag(hosts.a, ALICE) & 0xFFFFFFFF == holding(wanted, 0)


def test_two_taggers_of_one_namespace_keep_to_their_bits(hosts: Hosts, here: Tagger) -> None:
    mine, other = plan(Selector(user=(61001,))), plan(Selector(group=(62001,)))
    other = RulePlan("other", MarkLayout(0xF00000, 0x1000000), other.diversions)
    apply(hosts.a, here, mine)
    with contextlib.closing(Tagger()) as second:
        apply(hosts.a, second, other)
        assert tag(hosts.a, ALICE) == holding(mine, 0) | holding(other, 0)
    assert tag(hosts.a, ALICE) == holding(mine, 0)


def test_reload_replaces_and_close_ends(hosts: Hosts, here: Tagger) -> None:
    first, second = plan(Selector(user=(61001,))), plan(Selector(user=(61001,)), Selector(group=(62001,)))
    apply(hosts.a, here, first)
    with owned_socket(hosts.a, V4, UDP, Owner(61001)) as old:
        apply(hosts.a, here, second)
        assert old.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == holding(second, 0)  # still right
    assert tag(hosts.a, ALICE) == holding(second, 0, 1)
    apply(hosts.a, here, plan(Selector()))
    assert not tag(hosts.a, ALICE)
    apply(hosts.a, here, first)
    assert tag(hosts.a, ALICE)
    here.close()
    assert not tag(hosts.a, ALICE)


def test_descriptors_are_given_back(hosts: Hosts, here: Tagger) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        apply(hosts.a, here, plan(Selector(user=(61001,))))
    here.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_as_many_keys_as_fit(hosts: Hosts, here: Tagger) -> None:
    wanted = plan(*(Selector(user=(61000 + i, 61500 + i)) for i in range(64)))
    apply(hosts.a, here, wanted)
    assert tag(hosts.a, Owner(61563)) == holding(wanted, 63)
    with hosts.a.entered():
        problem = here.apply(plan(*(Selector(user=(61000 + i,)) for i in range(65))))
    assert "only the first 64 count" in problem
    assert tag(hosts.a, Owner(61063)) != tag(hosts.a, Owner(61064)) == tag(hosts.a, Owner())


def test_what_bpf_cannot_do_is_said(hosts: Hosts, here: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tagger, "program", lambda *_: b"\xff" * 8)
    with pytest.raises(
        RulesError, match="sockets are not tagged: cannot load the BPF program: Invalid argument"
    ):
        apply(hosts.a, here, plan(Selector(user=(61001,))))
    monkeypatch.undo()
    monkeypatch.setattr(cgroups, "mount_point", lambda: Path("/proc"))
    with pytest.raises(RulesError, match="sockets are not tagged: cannot attach the BPF program"):
        apply(hosts.a, here, plan(Selector(user=(61001,))))
    assert MARKS.capacity == 511
