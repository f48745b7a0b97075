"""The cgroups of `exec`: made, shared between daemons, removed only when empty and nobody's."""

import fcntl
import os
from pathlib import Path

import pytest

from layer45.cgroups import Cgroups, enter, mount_point, path_of
from layer45.errors import Layer45Error


def test_the_mount_is_found_wherever_it_is(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"
        "cgroup2 /mnt/my\\040cgroups cgroup2 rw 0 0\n"
    )
    assert mount_point(mounts) == Path("/mnt/my cgroups")


def test_without_a_mount_the_command_is_named(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text("tmpfs / tmpfs rw 0 0\n")
    with pytest.raises(Layer45Error, match="mount -t cgroup2"):
        mount_point(tmp_path / "mounts")


def test_made_and_removed(tmp_path: Path) -> None:
    cgroups = Cgroups("layer45", tmp_path)
    assert cgroups.prepare("voice") == path_of("layer45", "voice") == "layer45/voice"
    assert (tmp_path / "layer45/voice").is_dir()
    cgroups.close()
    assert list(tmp_path.iterdir()) == []


def test_what_has_content_stays(tmp_path: Path) -> None:
    cgroups = Cgroups("layer45", tmp_path)
    cgroups.prepare("voice")
    (tmp_path / "layer45/voice/child").mkdir()
    cgroups.close()
    assert (tmp_path / "layer45/voice/child").is_dir()


def test_what_another_daemon_uses_stays(tmp_path: Path) -> None:
    one, other = Cgroups("layer45", tmp_path), Cgroups("layer45", tmp_path)
    one.prepare("voice")
    other.prepare("voice")
    one.close()
    assert (tmp_path / "layer45/voice").is_dir()
    other.close()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_daemons_are_taken_over_and_removed(tmp_path: Path) -> None:
    (tmp_path / "layer45/voice").mkdir(parents=True)
    cgroups = Cgroups("layer45", tmp_path)
    cgroups.prepare("voice")
    cgroups.close()
    assert list(tmp_path.iterdir()) == []


def test_gone_policies_lose_theirs(tmp_path: Path) -> None:
    cgroups = Cgroups("layer45", tmp_path)
    cgroups.prepare("voice")
    cgroups.prepare("bulk")
    cgroups.keep_only({"bulk"})
    assert [path.name for path in (tmp_path / "layer45").iterdir()] == ["bulk"]
    cgroups.close()


def test_a_gone_policys_goes_when_its_programs_have_ended(tmp_path: Path) -> None:
    cgroups = Cgroups("layer45", tmp_path)
    cgroups.prepare("voice")
    program = tmp_path / "layer45/voice/child"
    program.mkdir()
    cgroups.keep_only(set())
    assert program.is_dir()
    program.rmdir()
    cgroups.close()
    assert list(tmp_path.iterdir()) == []


def test_a_users_lock_delays_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layer45.cgroups.LOCK_WAIT_S", 0.1)
    (tmp_path / "layer45").mkdir()
    user = os.open(tmp_path / "layer45", os.O_RDONLY)
    fcntl.flock(user, fcntl.LOCK_EX)
    cgroups = Cgroups("layer45", tmp_path)
    cgroups.prepare("voice")
    assert (tmp_path / "layer45/voice").is_dir()
    cgroups.close()
    os.close(user)


def test_one_that_was_removed_is_made_again(tmp_path: Path) -> None:
    cgroups = Cgroups("layer45", tmp_path)
    cgroups.prepare("voice")
    (tmp_path / "layer45/voice").rmdir()
    (tmp_path / "layer45").rmdir()
    cgroups.prepare("voice")
    assert (tmp_path / "layer45/voice").is_dir()
    cgroups.close()


def test_one_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "layer45").write_text("a file")
    with pytest.raises(Layer45Error, match="layer45: cannot make the cgroup"):
        Cgroups("layer45", tmp_path).prepare("voice")


def test_entering_one_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Layer45Error, match="cannot move into the cgroup"):
        enter("layer45/voice", tmp_path)
