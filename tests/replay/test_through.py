"""`replay --through`: out by a policy, over a network, and in again, as three passes by hand would do it."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from layer45.errors import ConfigError, Layer45Error
from layer45.replay import Summary, replay, replay_through

from .captures import (
    DUPLICATE,
    ETHERNET,
    MICROSECONDS,
    NANOSECONDS,
    SCRAMBLE,
    TAG,
    configure,
    linked,
    read,
    tcp,
    udp,
    write,
)
from .conftest import balanced

Through = Callable[..., list[Summary]]
BAD = "impair loss_percent=10 delay_ms=20 jitter_ms=3.5 duplicate_percent=5"
TO_5004 = '{ protocol = "udp", remote = ["10.0.0.2", "fd00::2"], remote_port = [5004] }'


@pytest.fixture
def through(tmp_path: Path) -> Through:
    """through(source, target, *instances, network=, match=, seed=) -> the passes' summaries, all balanced."""

    def run(
        source: Path,
        target: Path,
        *instances: str,
        network: str = "impair",
        match: str = TO_5004,
        seed: int = 1,
    ) -> list[Summary]:
        config = configure(tmp_path / "config", *instances, match=match)
        passes = replay_through(config, "bench", network.split(" + "), source, target, seed=seed)
        assert all(map(balanced, passes)), passes
        assert [each.direction for each in passes] == ["egress", "egress", "ingress"]
        return passes

    return run


def frames(count: int) -> list[bytes]:
    return [linked(ETHERNET, udp(b"%d " % at + b"x" * (at % 90), 6 if at % 3 else 4)) for at in range(count)]


@pytest.mark.parametrize("magic", [MICROSECONDS, NANOSECONDS])
def test_a_good_network_brings_everything_back(tmp_path: Path, through: Through, magic: int) -> None:
    others = [linked(ETHERNET, udp(b"other", dport=53)), linked(ETHERNET, tcp(b"x")), b"short"]
    source = write(tmp_path / "in.pcap", frames(100) + others, magic=magic)
    target = tmp_path / "out.pcap"
    out, between, back = through(source, target, TAG, SCRAMBLE, DUPLICATE)
    assert target.read_bytes() == source.read_bytes()
    assert (out.customized, out.injected, between.customized, back.dropped) == (100, 200, 302, 200)
    assert (out.source, back.target) == (str(source), str(target))
    assert [out.target, between.target] == [between.source, back.source]


def test_it_is_three_passes_by_hand(tmp_path: Path, through: Through) -> None:
    source = write(tmp_path / "in.pcap", frames(300), magic=NANOSECONDS)
    instances, everything = (TAG, DUPLICATE), '{ protocol = "udp" }'
    whole = through(source, tmp_path / "whole.pcap", *instances, network=BAD, match=everything)
    chains = (instances, (as_entry(BAD),), instances)
    paths = [source, *(tmp_path / f"{at}.pcap" for at in range(3))]
    for at, (chain, direction) in enumerate(zip(chains, ("egress", "egress", "ingress"), strict=True)):
        config = configure(tmp_path / "config", *chain, match=everything)
        by_hand = replay(config, "bench", direction, paths[at], paths[at + 1], seed=1 + at)
        assert (by_hand.read, by_hand.instances) == (whole[at].read, whole[at].instances)
    assert paths[3].read_bytes() == (tmp_path / "whole.pcap").read_bytes()


def as_entry(text: str) -> str:
    name, *pairs = text.split()
    return f'{{ module = "{name}", {", ".join(pairs)} }}'


def test_the_same_seed_gives_the_same_output(tmp_path: Path, through: Through) -> None:
    source = write(tmp_path / "in.pcap", frames(300))
    outputs = []
    for at, seed in enumerate((1, 1, 2, (1 << 64) - 1)):
        target = tmp_path / f"{at}.pcap"
        through(source, target, TAG, network=BAD, seed=seed)
        outputs.append(target.read_bytes())
    assert outputs[0] == outputs[1]
    assert len(set(outputs)) == 3


def test_losses_and_delays_are_the_networks(tmp_path: Path, through: Through) -> None:
    source = write(tmp_path / "in.pcap", frames(1000))
    out, between, back = through(
        source, tmp_path / "out.pcap", SCRAMBLE, network="impair loss_percent=20 delay_ms=7"
    )
    (counters,) = (each["counters"] for each in between.instances)
    assert out.written == 1000 == between.read
    assert between.dropped == counters["lost"] == 1000 - back.written > 100
    late = {record.frame: record.time_ns + 7_000_000 for record in read(source)}
    arrived = read(tmp_path / "out.pcap")
    assert all(late[record.frame] == record.time_ns for record in arrived)


def test_a_module_pays_on_a_bad_network(tmp_path: Path, through: Through) -> None:
    source = write(tmp_path / "in.pcap", frames(2000))
    bad = "impair loss_percent=10"
    bare = through(source, tmp_path / "out.pcap", network=bad)[-1].written
    mended = through(source, tmp_path / "out.pcap", DUPLICATE, network=bad)[-1].written
    assert 2000 - bare > 150
    assert 2000 - mended < 10  # a thousandth


def test_the_network_meets_what_the_policy_does_not(tmp_path: Path, through: Through) -> None:
    others = [linked(ETHERNET, udp(b"other", dport=53)), linked(ETHERNET, tcp(b"x"))] * 200
    source = write(tmp_path / "in.pcap", others)
    out, between, back = through(source, tmp_path / "out.pcap", TAG, network="impair loss_percent=50")
    assert (out.customized, between.customized, back.customized) == (0, 400, 0)
    assert 100 < back.written < 300


def test_several_instances_stand_one_behind_the_other(tmp_path: Path, through: Through) -> None:
    source = write(tmp_path / "in.pcap", frames(50))
    network = "impair delay_ms=3 + drop every=10 + impair delay_ms=4"
    _, between, _ = through(source, tmp_path / "out.pcap", TAG, network=network)
    assert [each["module"] for each in between.instances] == ["impair", "drop", "impair"]
    first = read(tmp_path / "out.pcap")[0]
    assert first.time_ns == read(source)[0].time_ns + 7_000_000


def test_the_output_has_the_precision_of_the_input(tmp_path: Path, through: Through) -> None:
    for magic in (MICROSECONDS, NANOSECONDS):
        source = write(tmp_path / "in.pcap", frames(3), magic=magic)
        through(source, tmp_path / "out.pcap", network="impair delay_ms=0.0005")
        assert struct.unpack_from("=I", (tmp_path / "out.pcap").read_bytes())[0] == magic
    late = [each.time_ns for each in read(tmp_path / "out.pcap")]
    assert late == [each.time_ns + 500 for each in read(source)]


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        ("impair loss_percent=500", "--through: loss_percent: expected number"),
        ("impair loss_percent=5%", "--through: loss_percent: expected number"),
        (
            "impair los_percent=5",
            '--through: los_percent: module impair has no such parameter, did you mean "loss_p',
        ),
        ("impair loss_percent", "--through: loss_percent: expected MODULE KEY=VALUE"),
        ("impair seed=1 seed=2", "--through: seed: given twice"),
        ("impar", '--through: module: no module "impar", did you mean "impair"?'),
        ("", "--through: expected MODULE KEY=VALUE"),
        ("impair 'seed=1", "--through: expected MODULE KEY=VALUE"),
        ("tag", "--through: id: missing; expected"),
        (
            "impair corrupt_checksum=men",
            '--through: corrupt_checksum: expected one of "keep", "mend", got "men"',
        ),
    ],
)
def test_what_is_wrong_with_the_network_is_one_line(
    tmp_path: Path, through: Through, network: str, problem: str
) -> None:
    source = write(tmp_path / "in.pcap", frames(3))
    with pytest.raises(ConfigError) as caught:
        through(source, tmp_path / "out.pcap", network=network)
    (line,) = caught.value.problems
    assert line.startswith(problem)
    assert "\n" not in line
    assert not (tmp_path / "out.pcap").exists()


def test_a_damaged_input_goes_as_far_as_it_can(tmp_path: Path, through: Through) -> None:
    source = write(tmp_path / "in.pcap", frames(100))
    source.write_bytes(source.read_bytes()[:-7])
    out, _, back = through(source, tmp_path / "out.pcap", TAG)
    assert str(out.error).startswith(f"{source}: damaged: ")
    assert str(out.error).endswith(f"the packets before are in {tmp_path / 'out.pcap'}")
    assert (out.read, back.written, back.error) == (99, 99, None)


def test_nothing_stays_behind(tmp_path: Path, through: Through, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    source = write(tmp_path / "in.pcap", frames(10))
    through(source, tmp_path / "out.pcap", TAG)
    with pytest.raises(Layer45Error, match="is the input"):
        through(source, source, TAG)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_command(tmp_path: Path) -> None:
    config = configure(tmp_path / "config", TAG, DUPLICATE)
    source = write(tmp_path / "in.pcap", frames(30))
    words = ["replay", "--config", config, "--policy", "bench", source, tmp_path / "out.pcap"]
    done = layer45(*words, "--through", "impair delay_ms=2", "--through", "drop every=7", "--json")
    assert done.returncode == 0, done.stderr
    passes = json.loads(done.stdout)["passes"]
    assert [each["policy"] for each in passes] == ["bench", "network", "bench"]
    assert [each["module"] for each in passes[1]["instances"]] == ["impair", "drop"]
    told = layer45(*words, "--through", "impair").stdout
    assert told.count("PACKETS") == 3
    for more in ([], ["--through", "impair", "--direction", "egress"]):
        done = layer45(*words, *more)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert "expected either --direction" in done.stderr


def layer45(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "layer45", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
