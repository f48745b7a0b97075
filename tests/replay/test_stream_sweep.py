"""Whatever TCP there is in captures comes back from its way out and in; and no hostile packet lacks a count.

The captures are those of test_sweep.py, and http.pcap; see test_streams.py.
"""

import functools
import random
import struct
from collections import Counter
from pathlib import Path

import pytest

from layer45 import loader
from layer45.replay import Summary

from .captures import SCRAMBLE, configure, read
from .segments import assert_restored
from .test_streams import HTTP, OF_BOTH, tags
from .test_sweep import given, made, mutants, sweep

CHAINS = {
    "prototype": (tags(32, 1000),),
    "short": (tags(1, 16),),
    "two": (tags(7, 100), SCRAMBLE, tags(20, 333)),
    "options": ('{ module = "option_tag", id = "me", on = "all" }', tags(3, 50)),
}
MUTANTS = 60


@pytest.fixture(autouse=True)
def loads_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the configuration takes longer than replaying a small capture."""
    monkeypatch.setattr(loader, "load", functools.cache(loader.load))


def out_and_in(folder: Path, config: Path, source: Path) -> tuple[Summary, Summary] | None:
    """To wire.pcap and on to back.pcap; None for what is refused as a whole."""
    out = sweep(config, source, folder / "wire.pcap", "egress")
    if out is None:
        return None
    back = sweep(config, folder / "wire.pcap", folder / "back.pcap", "ingress")
    assert back
    return out, back


@pytest.mark.parametrize("chain", CHAINS)
def test_all_captures_come_back(tmp_path: Path, chain: str) -> None:
    config = configure(tmp_path / "config", *CHAINS[chain], match=OF_BOTH)
    plain = configure(tmp_path / "plain")
    total: Counter[str] = Counter()
    for source in [*given(), HTTP, *made(tmp_path)]:
        done = out_and_in(tmp_path, config, source)
        if done is None:
            continue
        assert sweep(plain, source, tmp_path / "was.pcap", "egress")  # as pcap, whatever the source is
        assert_restored(*(tmp_path / f"{name}.pcap" for name in ("was", "wire", "back")))
        total.update(done[0].engine)
        total["captures"] += bool(done[0].customized)
        assert done[0].engine["connections_customized"] == done[1].engine["connections_customized"]
    print(f"{chain}: {total['captures']} captures, {total['connections_customized']} connections")
    assert total["connections_customized"] >= 2


@pytest.mark.parametrize("chain", CHAINS)
def test_mutated_connections(tmp_path: Path, chain: str) -> None:
    config = configure(tmp_path / "config", *CHAINS[chain], match=OF_BOTH)
    choice = random.Random(f"{chain} 4.5")
    total: Counter[str] = Counter()
    for mutant in [*mutants(tmp_path, HTTP, choice, MUTANTS), *shuffled(tmp_path, choice, MUTANTS)]:
        for direction in ("egress", "ingress"):
            summary = sweep(config, mutant, tmp_path / "out.pcap", direction)
            if summary:
                total.update(summary.engine)
        out_and_in(tmp_path, config, mutant)
    assert total["connections_customized"] > MUTANTS // 4
    assert total["connections_unseen"] > 0


def shuffled(folder: Path, choice: random.Random, count: int) -> list[Path]:
    """The connections with packets in another order, some twice, some not at all; and in part with other
    flags, numbers or options.
    """
    records, paths = read(HTTP), []
    for number in range(count):
        picked = [choice.choice(records) if choice.random() < 0.1 else each for each in records]
        for _ in range(choice.randint(0, 20)):
            one, two = (choice.randrange(len(picked)) for _ in range(2))
            picked[one], picked[two] = picked[two], picked[one]
        frames = [bytearray(each.frame) for each in picked]
        for frame in frames:
            if choice.random() < 0.2:
                tcp = 14 + (20 if frame[12] == 8 else 40)
                frame[tcp + choice.choice((4, 5, 8, 9, 12, 13, 14, 20, 21))] = choice.randrange(256)
        path = folder / f"shuffled-{number}.pcap"
        head = HTTP.read_bytes()[:24]
        path.write_bytes(head + b"".join(struct.pack("=IIII", 1, 0, len(f), len(f)) + f for f in frames))
        paths.append(path)
    return paths
