"""Readers and writers of capture files alone; what goes through a chain between them is in tests/replay."""

import struct
from pathlib import Path

import pytest

from layer45.fastpath.capture import Reader, Writer


def written(path: Path, link_type: int, snaplen: int, nanoseconds: bool) -> bytes:
    with path.open("wb") as file:
        writer = Writer(file.fileno(), link_type, snaplen, nanoseconds)
        writer.finish()
        writer.close()
    return path.read_bytes()


@pytest.mark.parametrize("link_type", [0, 1, 12, 14, 108, 113, 228, 229, 276])
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_a_header_comes_back(tmp_path: Path, link_type: int, nanoseconds: bool) -> None:
    path = tmp_path / "empty.pcap"
    content = written(path, link_type, 4321, nanoseconds)
    magic, major, minor, _, _, snaplen, _ = struct.unpack("=IHHiIII", content)
    assert (magic, major, minor, snaplen) == (0xA1B23C4D if nanoseconds else 0xA1B2C3D4, 2, 4, 4321)
    with path.open("rb") as file:
        reader = Reader(file.fileno())
        assert (reader.nanoseconds, reader.snaplen) == (nanoseconds, 4321)
        assert reader.link_type == (12 if link_type == 14 else link_type)


@pytest.mark.parametrize("content", [b"", b"\xd4", b"\xd4\xc3\xb2\xa1", b"no capture at all", bytes(100)])
def test_what_is_no_capture_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "not.pcap"
    path.write_bytes(content)
    with path.open("rb") as file, pytest.raises(ValueError):
        Reader(file.fileno())


def test_a_full_disk_is_an_error() -> None:
    with Path("/dev/full").open("wb") as file:
        writer = Writer(file.fileno(), 1, 65535, False)
        with pytest.raises(OSError, match="No space left"):
            writer.finish()


def test_descriptors_are_closed(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        test_a_header_comes_back(tmp_path, 1, True)
        test_what_is_no_capture_is_refused(tmp_path, b"no capture at all")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
