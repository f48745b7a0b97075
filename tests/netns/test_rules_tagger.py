"""The tagger: sockets of one namespace have the right tag from the moment they exist, while it lives."""

import contextlib
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from layer45.rules import cgroups, processes, socket_tags, tagger
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
    tags = owner_tags(wanted)
    sets = {frozenset(): tags.of_nothing, **{keys: number for number, keys in tags.sets.items()}}
    return wanted.marks.spread(sets[frozenset(places)])


@pytest.mark.parametrize("family", [V4, V6])
@pytest.mark.parametrize("kind", [UDP, TCP])
@pytest.mark.parametrize("excepts", [False, True])
def test_every_owner_has_the_tag_of_what_holds_for_it(
    hosts: Hosts, here: Tagger, family: int, kind: int, excepts: bool
) -> None:
    """Nobody has one only where a policy excepts owners."""
    first = Selector(user=(61001, 61003))
    wanted = plan(
        *[(Selector(), first)] * excepts,
        first,
        Selector(user=(61001, 61002)),
        Selector(group=(62001,)),
        Selector(user=(61002,), group=(62001, 62002)),
    )
    assert bool(holding(wanted)) == excepts
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
    wanted = plan(*(Selector(user=(60000 + i, 61000 + i)) for i in range(500)))
    apply(hosts.a, here, wanted)
    assert tag(hosts.a, Owner(61499)) == holding(wanted, 499)
    with hosts.a.entered():
        problem = here.apply(plan(*(Selector(user=(61000 + i,)) for i in range(600))))
    assert "600 sets of owner keys can hold together, marks for 511" in problem


MARK_OF_A_SOCKET = "import socket; print(socket.socket().getsockopt(socket.SOL_SOCKET, socket.SO_MARK))"
IN_A_THREAD = f"""
import threading
def work():
    open("/proc/thread-self/comm", "w").write("helper")
    {MARK_OF_A_SOCKET}
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
IN_A_CHILD = f"import subprocess; subprocess.run([{sys.executable!r}, '-c', {MARK_OF_A_SOCKET!r}])"


def program(directory: Path, name: str) -> Path:
    """An interpreter under a name of its own."""
    return Path(shutil.copy(Path(sys.executable).resolve(), directory / name))


def mark_of(host: Host, executable: Path, text: str = MARK_OF_A_SOCKET) -> int:
    """The mark of the socket that a program makes."""
    return int(host.run([str(executable), "-c", text]).stdout)


def test_a_program_has_a_name_and_an_executable(hosts: Hosts, here: Tagger, tmp_path: Path) -> None:
    """Whichever of its threads makes the socket; through a link as well. Its children are other programs."""
    phone, link = program(tmp_path, "phone"), tmp_path / "link"
    other = program(tmp_path, "other")
    link.symlink_to(phone)
    wanted = plan(
        Selector(program=("phone", "x")), Selector(program=(str(link),)), Selector(program=("link",))
    )
    apply(hosts.a, here, wanted)
    for text in (MARK_OF_A_SOCKET, IN_A_THREAD):
        assert mark_of(hosts.a, phone, text) == holding(wanted, 0, 1)
    assert mark_of(hosts.a, link) == holding(wanted, 1, 2)
    assert mark_of(hosts.a, other) == mark_of(hosts.a, phone, IN_A_CHILD) == holding(wanted)


AS_SOMEBODY = f"""
import os, sys
name, cgroup, user, group = sys.argv[1:]
open(cgroup + "/cgroup.procs", "w").write(str(os.getpid()))
open("/proc/self/comm", "w").write(name)
os.setresgid(*[int(group)] * 3)
os.setresuid(*[int(user)] * 3)
{MARK_OF_A_SOCKET.replace("))", "), flush=True)")}
sys.stdin.read()
"""


def _same_tag(host: Host, wanted: RulePlan, argv: list[object]) -> int:
    """The mark of the socket of a program that goes on, which is what Python finds for the process."""
    process = host.popen(list(map(str, argv)), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    mark = int(process.stdout.readline())
    found = socket_tags.tag_of(owner_tags(wanted), processes.owner(process.pid))
    process.communicate()
    assert mark == wanted.marks.spread(found)
    return mark


def test_python_finds_the_tag_that_the_tagger_gives(hosts: Hosts, here: Tagger, tmp_path: Path) -> None:
    """By user, group, cgroup, name and executable; of what has given itself another name, too."""
    phone = program(tmp_path, "phone")
    with new_cgroups("calls", "calls/video") as (calls, video):
        wanted = plan(
            Selector(program=("phone",)), Selector(program=(str(phone),)), Selector(program=("renamed",)),
            Selector(user=(61001,)), Selector(group=(62001,), program=(str(phone),)),
            Selector(cgroup=(calls,)), Selector(cgroup=(video,), user=(61001,)),
        )  # fmt: skip
        apply(hosts.a, here, wanted)
        found = set()
        for name in ("phone", "renamed"):
            for cgroup in ("", calls, video):
                for user, group in ((0, 0), (61001, 0), (0, 62001)):
                    words = (name, cgroups.mount_point() / cgroup, user, group)
                    found.add(_same_tag(hosts.a, wanted, [phone, "-c", AS_SOMEBODY, *words]))
        assert len(found) == 2 * (2 + 3 + 2)  # of user 61001, video is more than calls


def test_two_paths_of_one_executable_are_told_of(hosts: Hosts, here: Tagger, tmp_path: Path) -> None:
    phone, link = program(tmp_path, "phone"), tmp_path / "link"
    link.symlink_to(phone)
    wanted = plan(Selector(program=(str(phone),)), Selector(program=(str(link),)))
    with hosts.a.entered():
        problem = here.apply(wanted)
    assert problem == f"{phone} and {link} are one executable; expected the same path in all policies"


def test_a_name_of_fifteen_bytes(hosts: Hosts, here: Tagger, tmp_path: Path) -> None:
    wanted = plan(Selector(program=("sixteen-bytes-l",)))
    apply(hosts.a, here, wanted)
    assert mark_of(hosts.a, program(tmp_path, "sixteen-bytes-long")) == holding(wanted, 0)
    assert mark_of(hosts.a, program(tmp_path, "sixteen-bytes-")) == holding(wanted)


def test_an_executable_that_is_replaced(hosts: Hosts, here: Tagger, tmp_path: Path) -> None:
    """As packages do: another file under the same name. One that is missing at first is found later."""
    path = tmp_path / "phone"
    wanted = plan(Selector(program=(str(path),)))
    apply(hosts.a, here, wanted)
    for _ in range(2):
        fresh = program(tmp_path, "fresh")
        fresh.rename(path)
        assert mark_of(hosts.a, path) == holding(wanted)
        with hosts.a.entered():
            assert here.refresh() and not here.refresh()
        assert mark_of(hosts.a, path) == holding(wanted, 0)


def test_without_type_information_names_are_those_of_threads(
    hosts: Hosts, here: Tagger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise RulesError("no type information of the kernel: /x: gone")

    monkeypatch.setattr(tagger.kernel_types, "offsets", missing)
    phone = program(tmp_path, "phone")
    wanted = plan(Selector(program=("phone",)), Selector(program=(str(phone),)))
    with hosts.a.entered():
        assert here.apply(wanted) == (
            "programs are told by their threads' names alone: no type information of the kernel: /x: gone"
        )
    assert mark_of(hosts.a, phone) == holding(wanted, 0)
    assert mark_of(hosts.a, phone, IN_A_THREAD) == holding(wanted)


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
