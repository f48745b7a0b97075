"""Datagrams out through fec, over a network that loses some, and in again."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from layer45.replay import Summary, replay_through

from ..modules.wire import Record, read_capture, write_capture
from .captures import configure
from .conftest import balanced

START_NS = 10**12


def fec(k: int, m: int) -> str:
    """Only full blocks, whatever the pace is."""
    return f'{{ module = "fec", source_symbols = {k}, repair_symbols = {m}, deadline_ms = 1000 }}'


@cache
def content(number: int) -> bytes:
    """All of one length, no two alike."""
    return number.to_bytes(4, "big") + b" of a stream"


def through(
    tmp_path: Path, chain: str, network: str, sent: Sequence[Record], settings: str = ""
) -> tuple[list[Summary], list[Record]]:
    """The passes, and what arrived. settings: lines of layer45.toml."""
    config = configure(tmp_path / "config", chain)
    (config / "layer45.toml").write_text(settings)
    source, target = tmp_path / "in.pcap", tmp_path / "out.pcap"
    write_capture(source, sent)
    passes = replay_through(config, "bench", [network], source, target)
    assert all(map(balanced, passes)), passes
    return passes, read_capture(target)


def counters(each: Summary) -> dict[str, int]:
    """Of the first instance."""
    return dict(each.instances[0]["counters"])
