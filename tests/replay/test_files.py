"""Inputs and outputs that are not as they should be: one clear line, and nothing half written left behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from layer45.errors import Layer45Error
from layer45.replay import replay

from .captures import ETHERNET, TAG, configure, linked, read, udp, write
from .conftest import Send

FRAMES = [linked(ETHERNET, udp(bytes([at]) * 100)) for at in range(50)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.pcap", FRAMES)


def files(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.is_file())


def command(config: Path, source: str, target: str, **keys: object) -> subprocess.CompletedProcess[bytes]:
    options = f"replay --policy bench --direction egress --json --config {config}"
    words = [sys.executable, "-m", "layer45", *options.split(), source, target]
    return subprocess.run(words, capture_output=True, check=False, **keys)


def assert_refused(send: Send, source: Path, target: Path, expected: str) -> None:
    before = files(source.parent) if source.parent.is_dir() else []
    with pytest.raises(Layer45Error, match=expected) as caught:
        send(source, target, TAG)
    assert "\n" not in str(caught.value)
    assert files(source.parent) == before


def test_the_input_must_exist(tmp_path: Path, send: Send) -> None:
    assert_refused(send, tmp_path / "none.pcap", tmp_path / "out.pcap", "none.pcap: No such file")


def test_the_input_must_be_a_file(tmp_path: Path, send: Send) -> None:
    assert_refused(send, tmp_path, tmp_path / "out.pcap", "directory")


@pytest.mark.parametrize("content", [b"", b"GIF89a", bytes(4096)])
def test_the_input_must_be_a_capture(tmp_path: Path, send: Send, content: bytes) -> None:
    (tmp_path / "in.pcap").write_bytes(content)
    assert_refused(send, tmp_path / "in.pcap", tmp_path / "out.pcap", "in.pcap: not a capture")


def test_the_link_type_must_be_known(tmp_path: Path, send: Send) -> None:
    for link, name in ((127, "IEEE802_11_RADIO"), (147, "147")):
        source = write(tmp_path / "in.pcap", FRAMES, link)
        assert_refused(send, source, tmp_path / "out.pcap", f"link type {name} is not supported")


def test_the_output_must_not_be_the_input(tmp_path: Path, send: Send, source: Path) -> None:
    (tmp_path / "link.pcap").symlink_to(source)
    before = source.read_bytes()
    assert_refused(send, source, source, "is the input")
    assert_refused(send, source, tmp_path / "link.pcap", "is the input")
    assert source.read_bytes() == before


def test_the_output_needs_a_directory(tmp_path: Path, send: Send, source: Path) -> None:
    assert_refused(send, source, tmp_path / "none" / "out.pcap", "no directory .*none")
    assert_refused(send, source, tmp_path, "is a directory")


def test_the_policy_must_exist(tmp_path: Path, source: Path) -> None:
    config = configure(tmp_path / "config", TAG)
    with pytest.raises(Layer45Error, match="no active policy voice; expected one of: bench"):
        replay(config, "voice", "egress", source, tmp_path / "out.pcap")
    with pytest.raises(Layer45Error, match="expected egress or ingress"):
        replay(config, "bench", "sideways", source, tmp_path / "out.pcap")


def test_an_older_output_is_replaced_only_by_a_whole_one(tmp_path: Path, send: Send, source: Path) -> None:
    target = tmp_path / "out.pcap"
    target.write_text("precious")
    with pytest.raises(Layer45Error):
        send(tmp_path / "none.pcap", target, TAG)
    assert target.read_text() == "precious"
    send(source, target, TAG)
    assert len(read(target)) == len(FRAMES)


def test_a_link_to_the_output_stays_a_link(tmp_path: Path, send: Send, source: Path) -> None:
    (tmp_path / "link.pcap").symlink_to(tmp_path / "real.pcap")
    send(source, tmp_path / "link.pcap", TAG)
    assert (tmp_path / "link.pcap").is_symlink()
    assert len(read(tmp_path / "real.pcap")) == len(FRAMES)


def test_a_full_disk_is_told(send: Send, source: Path) -> None:
    assert_refused(send, source, Path("/dev/full"), "/dev/full: No space left")
    assert Path("/dev/full").is_char_device()


def test_a_device_is_written_and_not_replaced(send: Send, source: Path) -> None:
    send(source, Path("/dev/null"), TAG)
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("lost", [1, 15, 16, 17, 100, 157])
def test_a_cut_input_is_used_as_far_as_it_goes(tmp_path: Path, send: Send, source: Path, lost: int) -> None:
    source.write_bytes(source.read_bytes()[:-lost])
    summary = send(source, tmp_path / "out.pcap", TAG)
    assert summary.error is not None
    assert "\n" not in summary.error
    assert "truncated" in summary.error
    assert len(read(tmp_path / "out.pcap")) == len(FRAMES) - 1 == summary.written


def test_a_truncated_input_fails_the_command(tmp_path: Path, source: Path) -> None:
    source.write_bytes(source.read_bytes()[:-1])
    config = configure(tmp_path / "config", TAG)
    done = command(config, str(source), str(tmp_path / "out.pcap"))
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"truncated" in done.stderr
    assert len(read(tmp_path / "out.pcap")) == len(FRAMES) - 1


def test_standard_input_and_output(tmp_path: Path, send: Send, source: Path) -> None:
    config = configure(tmp_path / "config", TAG)
    done = command(config, "-", "-", input=source.read_bytes())
    assert done.returncode == 0, done.stderr
    (tmp_path / "piped.pcap").write_bytes(done.stdout)
    send(source, tmp_path / "out.pcap", TAG)
    assert read(tmp_path / "piped.pcap") == read(tmp_path / "out.pcap")


def test_progress_is_told(tmp_path: Path) -> None:
    source = write(tmp_path / "in.pcap", FRAMES * 4000)
    told: list[tuple[int, float | None]] = []
    config = configure(tmp_path / "config", TAG)
    replay(config, "bench", "egress", source, tmp_path / "out.pcap", progress=lambda *each: told.append(each))
    assert [records for records, _ in told] == [65536, 131072, 196608]
    shares = [share or 0 for _, share in told]
    assert shares == sorted(shares)
    assert 0.9 < shares[-1] <= 1


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    source = write(tmp_path / "in.pcap", FRAMES * 4000)
    config = configure(tmp_path / "config", TAG)
    before = files(tmp_path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(config, "bench", "egress", source, tmp_path / "out.pcap", progress=interrupt)
    assert files(tmp_path) == before


def test_memory_does_not_grow_with_the_capture(tmp_path: Path) -> None:
    config = configure(tmp_path / "config", TAG)
    peaks = []
    for repeats in (200, 10_000):
        write(tmp_path / "in.pcap", FRAMES * repeats)
        script = (
            "import resource, sys; from layer45.replay import replay; "
            "replay(sys.argv[1], 'bench', 'egress', sys.argv[2], sys.argv[3]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        words = [str(config), str(tmp_path / "in.pcap"), str(tmp_path / "out.pcap")]
        done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 4096, f"{peaks} kB for 10 thousand and 500 thousand packets"


def test_descriptors_are_closed(tmp_path: Path, send: Send, source: Path) -> None:
    send(source, tmp_path / "out.pcap", TAG)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        send(source, tmp_path / "out.pcap", TAG)
        with pytest.raises(Layer45Error):
            send(source, tmp_path / "none" / "out.pcap", TAG)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
