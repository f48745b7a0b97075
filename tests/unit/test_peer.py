"""Who may command the daemon: root, and members of its group, supplementary membership included."""

import os
import socket
from pathlib import Path

import pytest

from layer45 import peer
from layer45.peer import Peer, peer_of

GROUP = 54321
NOBODY = 65534


def seen(tmp_path: Path, uid: int, gid: int, groups: list[int]) -> Peer:
    """How a child with these credentials looks from here."""
    tmp_path.chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        directory = os.open(tmp_path, os.O_RDONLY)
        (tmp_path / "s").chmod(0o666)
        child = os.fork()
        if child == 0:
            os.fchdir(directory)
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            client.connect("s")
            client.recv(1)
            os._exit(0)
        connection, _ = listener.accept()
        with connection:
            found = peer_of(connection)
        os.waitpid(child, 0)
        client.close()
        os.close(directory)
        assert found.pid == child
        return found


@pytest.mark.root
@pytest.mark.parametrize(
    ("uid", "gid", "groups", "permitted"),
    [
        (0, 0, [], True),
        (NOBODY, NOBODY, [], False),
        (NOBODY, GROUP, [], True),
        (NOBODY, NOBODY, [7, GROUP], True),
        (NOBODY, NOBODY, list(range(1000, 1300)), False),
        (NOBODY, NOBODY, [*range(1000, 1300), GROUP], True),
        (NOBODY, 0, [], False),
    ],
)
def test_credentials(
    uid: int, gid: int, groups: list[int], permitted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "control_gid", lambda: GROUP)
    found = seen(tmp_path, uid, gid, groups)
    assert (found.uid, found.groups) == (uid, frozenset([gid, *groups]))
    assert found.permitted is permitted


def test_without_the_group_only_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "control_gid", lambda: None)
    assert Peer(1, 0, frozenset([0])).permitted
    assert not Peer(1, 1000, frozenset([1000])).permitted
