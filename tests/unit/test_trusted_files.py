"""What is read as trusted: every level root's or ours, writable for nobody else, and no way around it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from layer45.trusted_files import MOST_BYTES, Distrusted, open_directory, real_path

ROOT = Path(__file__).parents[2]
SOMEBODY = 12345  # no user has this number


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """site/inner/file."""
    inner = tmp_path / "site/inner"
    inner.mkdir(parents=True)
    (inner / "file").write_bytes(b"content")
    return tmp_path / "site"


def read(path: Path) -> bytes:
    with open_directory(path.parent) as directory:
        return directory.read(path.name)


def refusal(path: Path) -> str:
    """What is said of a file, levels relative to its site."""
    with pytest.raises(Distrusted) as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(f"{caught.value.path}: ")
    return str(caught.value).replace(f"{path.parents[1].parent}/", "")


def test_what_is_ours_is_read(site: Path) -> None:
    assert read(site / "inner/file") == b"content"
    with open_directory(site) as directory, directory.inside("inner") as inner:
        assert (directory.names(), inner.names(), inner.owner) == (["inner"], ["file"], os.geteuid())
        assert inner.read("file") == b"content"


@pytest.mark.parametrize("level", ["site", "site/inner", "site/inner/file"])
@pytest.mark.parametrize(("bits", "who"), [(0o020, "its group"), (0o002, "everybody"), (0o022, "everybody")])
def test_what_others_can_write_is_refused(site: Path, level: str, bits: int, who: str) -> None:
    path = site.parent / level
    mode = path.stat().st_mode & 0o755 | bits
    path.chmod(mode)
    expected = (
        f"{level}: can be written by {who} (mode {mode:04o}); expected by its owner only; run: chmod go-w "
    )
    assert refusal(site / "inner/file") == f"{expected}{level}"


@pytest.mark.root
@pytest.mark.parametrize("level", ["site", "site/inner", "site/inner/file"])
def test_what_belongs_to_others_is_refused(site: Path, level: str) -> None:
    os.chown(site.parent / level, SOMEBODY, 0)
    assert refusal(site / "inner/file") == f"{level}: belongs to uid {SOMEBODY}; expected root"
    os.chown(site.parent / level, 0, SOMEBODY)
    assert read(site / "inner/file") == b"content"


READER = """
import os, sys
from pathlib import Path
from layer45.trusted_files import *
os.setuid(int(sys.argv[2]))
try:
    with open_directory(Path(sys.argv[1])) as directory:
        print(directory.read("file").decode())
except Distrusted as error:
    print(error.reason)
"""


def read_as(user: int, directory: Path) -> str:
    """What a process of a user reads, or why it does not."""
    words = [sys.executable, "-c", READER, str(directory), str(user)]
    return subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()


@pytest.mark.root
def test_for_a_user_what_is_roots_or_his_is_good() -> None:
    with tempfile.TemporaryDirectory() as name:
        inner, file = Path(name), Path(name) / "file"
        inner.chmod(0o755)
        file.write_text("content")
        assert read_as(SOMEBODY, inner) == "content"
        os.chown(inner, SOMEBODY, 0)
        os.chown(file, SOMEBODY, 0)
        assert read_as(SOMEBODY, inner) == "content"
        assert read_as(0, inner) == f"belongs to uid {SOMEBODY}; expected root"
        os.chown(file, SOMEBODY + 1, 0)
        expected = f"belongs to uid {SOMEBODY + 1}; expected root or uid {SOMEBODY}"
        assert read_as(SOMEBODY, inner) == expected


def test_a_sticky_directory_is_good_on_the_way_only(site: Path) -> None:
    site.chmod(0o1777)
    assert read(site / "inner/file") == b"content"
    (site / "inner").chmod(0o1777)
    assert refusal(site / "inner/file").startswith("site/inner: can be written by everybody (mode 1777)")
    (site / "inner").chmod(0o755)
    with pytest.raises(Distrusted), open_directory(site / "inner/.."):
        pass


def test_a_file_that_is_a_link_is_followed_only_where_that_is_asked(site: Path) -> None:
    (site / "inner/link").symlink_to("file")
    assert refusal(site / "inner/link") == "site/inner/link: is a symbolic link; expected what it leads to"
    with open_directory(site / "inner") as directory:
        assert directory.read_followed("link") == b"content"
        assert directory.read_followed("file") == b"content"


def test_a_directory_inside_that_is_a_link_is_refused(site: Path) -> None:
    (site / "link").symlink_to("inner")
    with (
        open_directory(site) as directory,
        pytest.raises(Distrusted, match="link: is a symbolic link"),
        directory.inside("link"),
    ):
        pass


@pytest.mark.parametrize("target", ["inner", "{site}/inner", "../site/./inner", "once", "inner/../inner//"])
def test_links_on_the_way_are_followed_where_all_of_their_way_passes(site: Path, target: str) -> None:
    (site / "once").symlink_to("inner")
    (site / "link").symlink_to(target.format(site=site))
    assert read(site / "link/file") == b"content"
    assert real_path(site / "link/file") == site / "inner/file"
    (site / "inner").chmod(0o775)
    with pytest.raises(Distrusted, match="inner: can be written by its group"):
        read(site / "link/file")


@pytest.mark.root
def test_a_link_of_another_user_is_refused(site: Path) -> None:
    """Who owns it can make it lead elsewhere."""
    site.chmod(0o1777)
    (site / "link").symlink_to("inner")
    os.chown(site / "link", SOMEBODY, 0, follow_symlinks=False)
    with pytest.raises(Distrusted, match=f"site/link: belongs to uid {SOMEBODY}; expected root"):
        read(site / "link/file")


def test_a_circle_of_links_ends(site: Path) -> None:
    (site / "a").symlink_to("b")
    (site / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels of symbolic links"), open_directory(site / "a"):
        pass


@pytest.fixture
def descriptors() -> Iterator[None]:
    """None is left open."""
    before = len([*Path("/proc/self/fd").iterdir()])
    yield
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_what_cannot_be_read_as_a_file(site: Path, descriptors: None) -> None:
    with pytest.raises(IsADirectoryError):
        read(site / "inner")
    with pytest.raises(FileNotFoundError):
        read(site / "inner/none")
    with pytest.raises(NotADirectoryError), open_directory(site / "inner/file"):
        pass
    with open_directory(site / "inner") as inner, pytest.raises(NotADirectoryError), inner.inside("file"):
        pass
    os.mkfifo(site / "inner/pipe")
    assert refusal(site / "inner/pipe") == "site/inner/pipe: is no regular file"
    (site / "inner/file").write_bytes(bytes(MOST_BYTES))
    assert len(read(site / "inner/file")) == MOST_BYTES
    (site / "inner/file").write_bytes(bytes(MOST_BYTES + 1))
    assert refusal(site / "inner/file") == f"site/inner/file: is longer than {MOST_BYTES} bytes"


def test_a_directory_that_is_swapped_meanwhile_stays_the_one_that_was_judged(site: Path) -> None:
    other = site.parent / "other"
    other.mkdir()
    (other / "file").write_bytes(b"another")
    with open_directory(site) as directory, directory.inside("inner") as inner:
        (site / "inner").rename(site / "gone")
        (site / "inner").symlink_to(other)
        assert inner.read("file") == b"content"
        with pytest.raises(Distrusted, match="is a symbolic link"), directory.inside("inner"):
            pass
