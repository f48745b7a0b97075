"""Odd and hostile captures: no crash, no hang, no packet without a count.

The captures are those below LAYER45_PCAPS, or shared/pcaps beside the checkout, if there are any; and always
ones made here, whole and mutated. Each goes both ways through several chains.
"""

import functools
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from layer45 import loader
from layer45.errors import Layer45Error
from layer45.replay import Summary, replay

from .captures import (
    COOKED,
    COOKED2,
    DUPLICATE,
    ETHERNET,
    LOOP,
    NANOSECONDS,
    NULL,
    RAW,
    SCRAMBLE,
    TAG,
    configure,
    ethernet,
    linked,
    read,
    tcp,
    udp,
    write,
    write_pcapng,
)
from .conftest import balanced

BESIDE = Path(__file__).parents[3] / "shared" / "pcaps"
LOOKING = '{ module = "classify" }'
SUFFIXES = {".pcap", ".pcapng", ".cap"}
CHAINS = {
    "untouched": (),
    "datagrams": (TAG, SCRAMBLE, DUPLICATE),
    "anything": (SCRAMBLE,),
    "looking": (LOOKING,),
    "python": ('{ module = "example_python" }',),
}
BOTH = ((), (SCRAMBLE,), (LOOKING,))  # chains for TCP, too
MUTANTS = 150
COUNTS = ("read", "customized", "injected", "dropped")


@pytest.fixture(autouse=True)
def loads_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the configuration takes longer than replaying a small capture."""
    monkeypatch.setattr(loader, "load", functools.cache(loader.load))


def given() -> list[Path]:
    """The captures of a folder that is not part of the project."""
    folder = Path(os.environ.get("LAYER45_PCAPS") or BESIDE)
    return sorted(each for each in folder.rglob("*") if each.suffix in SUFFIXES)


def made(folder: Path) -> Iterator[Path]:
    """Captures of each link type with all that replay has a name for."""
    sizes = (0, 1, 99, 1400)
    packets = [make(b"x" * size, version) for make in (udp, tcp) for size in sizes for version in (4, 6)]
    packets += [
        packets[0][:25],
        packets[1][:44],
        packets[4][:-1],
        packets[0] + b"more",
        b"\x45",
        b"\x60" * 60,
    ]
    for link in (ETHERNET, RAW, COOKED, COOKED2, NULL, LOOP):
        yield write(folder / f"{link}.pcap", [linked(link, each) for each in packets], link)
    tagged = [ethernet(each, (0x8100,) * (at % 10)) for at, each in enumerate(packets)]
    yield write(folder / "tagged.pcap", tagged, magic=NANOSECONDS)
    yield write_pcapng(folder / "new.pcapng", tagged)


def mutants(folder: Path, source: Path, choice: random.Random, count: int) -> Iterator[Path]:
    """Copies with some bytes changed, cut off or repeated, in headers more often than elsewhere."""
    content = source.read_bytes()
    for number in range(count):
        mutant = bytearray(content)
        for _ in range(choice.randint(1, 40)):
            at = choice.randrange(24 if choice.random() < 0.9 else 0, len(mutant))
            mutant[at] = choice.choice((0, 1, 0x45, 0x7F, 0x80, 0xFF, choice.randrange(256)))
        if choice.random() < 0.2:
            del mutant[choice.randrange(len(mutant)) :]
        path = folder / f"{source.stem}-{number}.mutant"
        path.write_bytes(mutant)
        yield path


def sweep(config: Path, source: Path, target: Path, direction: str) -> Summary | None:
    """None for what is refused as a whole: one line, and no output."""
    target.unlink(missing_ok=True)
    try:
        summary = replay(config, "bench", direction, source, target)
    except Layer45Error as error:
        assert "\n" not in str(error)
        assert str(source) in str(error)
        assert not target.exists()
        return None
    assert balanced(summary), (source, summary)
    assert summary.error is None or "\n" not in summary.error
    assert len(read(target)) == summary.written, source
    return summary


def sweep_all(tmp_path: Path, sources: list[Path], instances: tuple[str, ...]) -> Counter[str]:
    """Sums of what happened, over all captures and both directions."""
    match = '{ protocol = ["udp", "tcp"] }' if instances in BOTH else '{ protocol = "udp" }'
    config = configure(tmp_path / "config", *instances, match=match)
    total: Counter[str] = Counter()
    for source in sources:
        for direction in ("egress", "ingress"):
            summary = sweep(config, source, tmp_path / "out.pcap", direction)
            total["refused" if summary is None else "replayed"] += 1
            if summary:
                total.update({key: getattr(summary, key) for key in COUNTS})
                total.update(summary.untouched)
                total["damaged"] += summary.error is not None
    return total


@pytest.mark.parametrize("chain", ["datagrams", "anything"])
def test_given_captures(tmp_path: Path, chain: str) -> None:
    """Meaningful without any: those made here stand in."""
    sources = given() or list(made(tmp_path))
    total = sweep_all(tmp_path, sources, CHAINS[chain])
    print(f"{chain}: {len(sources)} captures: {dict(total)}")
    assert total["replayed"] + total["refused"] == 2 * len(sources)
    assert total["customized"] > 0


@pytest.mark.parametrize("chain", CHAINS)
def test_made_captures(tmp_path: Path, chain: str) -> None:
    sources = list(made(tmp_path))
    total = sweep_all(tmp_path, sources, CHAINS[chain])
    assert total["refused"] == total["damaged"] == 0
    for reason in ("short", "malformed", "too_many_tags"):
        assert total[reason], reason
    assert total["customized"] >= 2 * 8 * len(sources)


@pytest.mark.parametrize("chain", CHAINS)
def test_mutated_captures(tmp_path: Path, chain: str) -> None:
    choice = random.Random(f"{chain} 45")
    sources = [
        mutant
        for source in list(made(tmp_path))
        for mutant in mutants(tmp_path, source, choice, MUTANTS // len(CHAINS))
    ]
    total = sweep_all(tmp_path, sources, CHAINS[chain])
    print(f"{chain}: {len(sources)} mutants: {dict(total)}")
    assert total["replayed"] > total["refused"]
    assert total["damaged"] > 0
    assert total["customized"] > 0


def test_an_untouched_replay_changes_no_byte_of_any_frame(tmp_path: Path) -> None:
    """Both directions of an empty chain give the same file, whatever is in it."""
    config = configure(tmp_path / "config", match='{ protocol = ["udp", "tcp"] }')
    one, two = tmp_path / "one.pcap", tmp_path / "two.pcap"
    for source in [*given(), *made(tmp_path)]:
        if sweep(config, source, one, "egress"):
            sweep(config, one, two, "ingress")
            assert one.read_bytes() == two.read_bytes(), source
