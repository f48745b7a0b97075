"""Runs packets through a chain of modules by way of the real loader, engine and replay."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from layer45.replay import replay

from ..unit.compiled import compiled
from .wire import Record, read_capture, write_capture

Entry = dict[str, Any]


@dataclass(frozen=True)
class Passage:
    """What came out, and each instance's counters, in the chain's order."""

    records: list[Record]
    counters: list[dict[str, int]]
    engine: dict[str, int]
    live: dict[str, int]

    @property
    def packets(self) -> list[bytes]:
        return [record.packet for record in self.records]

    @property
    def payloads(self) -> list[bytes]:
        return [record.payload for record in self.records]

    def counted(self, place: int = 0) -> dict[str, int]:
        """An instance's counters that are not 0."""
        return {name: value for name, value in self.counters[place].items() if value}


@dataclass
class Road:
    """Sends packets through chains, each in a directory of its own below `scratch`."""

    scratch: Path
    journeys: int = 0

    def __call__(
        self,
        chain: Sequence[Entry],
        direction: str,
        packets: Sequence[bytes | Record],
        *,
        protocol: str = "udp",
        reference: bool = False,
        seed: int = 1,
    ) -> Passage:
        """packets without a time come one microsecond apart. reference: plain Python in place of hot code."""
        self.journeys += 1
        directory = self.scratch / str(self.journeys)
        (directory / "policies").mkdir(parents=True)
        (directory / "layer45.toml").write_text("")
        (directory / "policies" / "test.toml").write_text(policy_text(chain, protocol))
        before, after = directory / "before.pcap", directory / "after.pcap"
        records = [
            each if isinstance(each, Record) else Record(each, 1_000_000_000 + 1000 * at)
            for at, each in enumerate(packets)
        ]
        write_capture(before, records)
        summary = replay(directory, "test", direction, before, after, seed=seed, reference=reference)
        assert summary.error is None
        assert sum(summary.untouched.values()) == 0
        assert summary.customized == len(records)
        counters = [each["counters"] for each in summary.instances]
        return Passage(read_capture(after), counters, summary.engine, summary.live)


def policy_text(chain: Sequence[Entry], protocol: str) -> str:
    entries = ", ".join(
        "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in entry.items()) + " }"
        for entry in chain
    )
    return f'[policy.test]\nmatch = {{ protocol = "{protocol}" }}\nchain = [ {entries} ]\n'


@pytest.fixture
def road(tmp_path: Path) -> Road:
    return Road(tmp_path / "road")


@pytest.fixture
def there_and_back(road: Road) -> Callable[..., tuple[Passage, Passage]]:
    """Sends packets out and what left in again; both passages."""

    def travel(chain: Sequence[Entry], packets: Sequence[bytes], **keys: Any) -> tuple[Passage, Passage]:
        out = road(chain, "egress", packets, **keys)
        return out, road(chain, "ingress", out.records, **keys)

    return travel


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Workers without a kernel, driven from Python."""
    return compiled(Path(__file__).parents[1] / "unit/driver", tmp_path_factory.mktemp("driver"))


@pytest.fixture
def ends(driver: Any, tmp_path: Path) -> Any:
    """Of fec: see fec_ends.Ends."""
    from .fec_ends import Ends

    return Ends(driver, tmp_path / "ends")
