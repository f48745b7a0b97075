"""One daemon per control socket, however the last one ended."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from layer45.errors import Layer45Error
from layer45.lock import DaemonLock, lock_path

HOLD = """
import sys, time
from pathlib import Path
from layer45.lock import DaemonLock
with DaemonLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(control_socket: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(control_socket)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_the_second_is_told_the_pid_of_the_first(tmp_path: Path) -> None:
    first = holder(tmp_path / "s.sock")
    try:
        with pytest.raises(Layer45Error, match=rf"already running here, pid {first.pid}$"):
            DaemonLock(tmp_path / "s.sock").__enter__()
    finally:
        end(first)


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    end(holder(tmp_path / "s.sock"))
    assert lock_path(tmp_path / "s.sock").exists()
    with DaemonLock(tmp_path / "s.sock"):
        assert lock_path(tmp_path / "s.sock").read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == []


def test_sockets_have_locks_of_their_own(tmp_path: Path) -> None:
    with DaemonLock(tmp_path / "one.sock"), DaemonLock(tmp_path / "two.sock"):
        pass


def test_its_directory_is_made(tmp_path: Path) -> None:
    with DaemonLock(tmp_path / "run" / "layer45" / "s.sock"):
        assert (tmp_path / "run" / "layer45").stat().st_mode & 0o777 == 0o755


def test_the_umask_does_not_shut_out_the_control_group(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with DaemonLock(tmp_path / "run" / "s.sock"):
            assert (tmp_path / "run").stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(before)


def test_nobody_else_can_take_it(tmp_path: Path) -> None:
    with DaemonLock(tmp_path / "s.sock"):
        assert lock_path(tmp_path / "s.sock").stat().st_mode & 0o777 == 0o600


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    lock_path(tmp_path / "s.sock").symlink_to(tmp_path / "precious")
    with pytest.raises(Layer45Error, match="cannot open the lock"):
        DaemonLock(tmp_path / "s.sock").__enter__()
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Layer45Error, match=r"file: cannot make it"):
        DaemonLock(tmp_path / "file" / "s.sock").__enter__()
