"""What `make demo` lets pass and what it does not, without its hosts: judgement, readings, the picture."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from layer45 import demo_fec, demo_picture, demo_replay
from layer45.demo_fec import NEVER, Reading, Seen
from layer45.demo_hosts import DemoError, Host, Stats, agree, within
from layer45.demo_iperf import CUSTOMIZED, PLAIN, Flow
from layer45.demo_link import Link, links
from layer45.demo_probe import COUNT, REPAIR_TOS, STAMP, Delays, content, delays
from layer45.demo_replay import Point

ENGINE = {"received": 9, "passed": 1, "rewritten": 5, "dropped": 2, "held": 1}
BALANCED = Stats({"engine": ENGINE, "policies": {}})
OFF_BALANCE = Stats({"engine": {**ENGINE, "held": 0}, "policies": {}})


def reading(sources: int = COUNT, lost: int = 5, known: int = 4) -> Reading:
    """Of a link that lost 5 % of all: source datagrams, and repair datagrams, 3 for 10."""
    repairs, taken = sources * 3 // 10, sources // 20
    recovered, repairs_taken = taken - lost, repairs // 20
    nothing = dict.fromkeys((*NEVER, "late", "duplicate"), 0)
    sender = {**nothing, "sources": sources, "repairs": repairs, "blocks_full": sources // 10}
    receiver = {
        **nothing,
        "arrived": sources - taken,
        "recovered": recovered,
        "unrecovered": known,
        "repairs_arrived": repairs - repairs_taken,
        "decode_ns": 5000 * recovered,
    }
    under = Link(sources + repairs, 1234 * (sources + repairs), taken + repairs_taken)
    sender["blocks_short"] = 1
    return Reading(sender, receiver, {CUSTOMIZED: under, PLAIN: Link(sources, 1228 * sources, taken)})


def seen() -> Seen:
    """All is well: iperf3's greeting is on the link too, and its last two datagrams were not waited for."""
    iperf, probe = reading(10001, 12, 11), reading()
    flows = {
        CUSTOMIZED: Flow(10000, iperf.lost, 2, 20e6, 0.1),
        PLAIN: Flow(10000, iperf.link[PLAIN].lost, 0, 20e6, 0.1),
    }
    came = {
        CUSTOMIZED: Delays([100_000] * probe.b["arrived"], [2_000_000] * probe.b["recovered"]),
        PLAIN: Delays([50_000] * (COUNT - probe.link[PLAIN].lost), []),
    }
    return Seen(flows, iperf, came, probe, BALANCED, BALANCED, 0, 0)


def changed(counted: Reading, side: str, **more: int) -> Reading:
    """Some counters of host a's or b's module with so much more."""
    counters = getattr(counted, side)
    return replace(
        counted, **{side: {**counters, **{name: counters[name] + by for name, by in more.items()}}}
    )


def test_what_is_right_passes_and_is_shown() -> None:
    demo_fec.judge(seen())
    out = StringIO()
    demo_fec.report(seen(), Console(file=out, width=110))
    for told in ("12, 0.12%", "500, 5.00%", "+30.6%", "0.10 / 0.10", "+0.05 / +0.05", "2.00 / 2.00"):
        assert told in out.getvalue(), out.getvalue()


@pytest.mark.parametrize("name", NEVER)
@pytest.mark.parametrize("side", ["a", "b"])
def test_a_counter_of_trouble_fails_it(side: str, name: str) -> None:
    with pytest.raises(DemoError, match=f"^iperf3: {name}: 1, expected 0$"):
        demo_fec.judge(replace(seen(), iperf=changed(seen().iperf, side, **{name: 1})))


@pytest.mark.parametrize(
    ("side", "more", "complaint"),
    [
        ("a", {"sources": 1}, "datagrams on the link"),
        ("a", {"repairs": -1}, "datagrams on the link"),
        ("b", {"arrived": -1}, "datagrams that arrived"),
        ("b", {"repairs_arrived": 1}, "datagrams that arrived"),
        ("b", {"duplicate": 1}, "datagrams that arrived"),
        ("b", {"unrecovered": 22}, "lost, but not unrecovered: -21, expected -20 to 20"),
        ("b", {"unrecovered": 25, "late": 3}, "lost, but not unrecovered: -24, expected -23 to 20"),
        ("b", {"recovered": -20}, "lost, but not unrecovered: 21, expected -20 to 20"),
        ("b", {"recovered": -60, "unrecovered": 60}, "lost behind the code: 72, expected 0 to 4"),
    ],
)
def test_a_count_that_does_not_add_up_fails_it(side: str, more: dict[str, int], complaint: str) -> None:
    with pytest.raises(DemoError, match=complaint):
        demo_fec.judge_counters("iperf3", changed(seen().iperf, side, **more))


def test_a_link_that_loses_too_little_or_too_much_fails_it() -> None:
    for lost in (0, 390, 610):
        spoiled = reading(10001)
        spoiled.link[PLAIN] = replace(spoiled.link[PLAIN], lost=lost)
        with pytest.raises(DemoError, match="the link's loss"):
            demo_fec.judge_counters("iperf3", spoiled)


@pytest.mark.parametrize(
    ("port", "changes", "complaint"),
    [
        (PLAIN, {"sent": 10001}, "greetings of an iperf3: 0"),
        (CUSTOMIZED, {"sent": 9999}, "given to the module: 10001, expected 10000"),
        (PLAIN, {"lost": 499}, "only the plain iperf3 misses: -1,"),
        (CUSTOMIZED, {"lost": 9}, "only the customized iperf3 misses: -1,"),
        (CUSTOMIZED, {"missed": 400}, "only the customized iperf3 misses: 400,"),
    ],
)
def test_an_application_that_saw_something_else_fails_it(
    port: int, changes: dict[str, int], complaint: str
) -> None:
    good = seen()
    flows = {**good.applications, port: replace(good.applications[port], **changes)}
    with pytest.raises(DemoError, match=complaint):
        demo_fec.judge(replace(good, applications=flows))


@pytest.mark.parametrize("port", [CUSTOMIZED, PLAIN])
@pytest.mark.parametrize("kind", ["arrived", "recovered"])
def test_a_probe_that_had_one_datagram_more_fails_it(port: int, kind: str) -> None:
    good = seen()
    more = replace(good.delays[port], **{kind: [1, *getattr(good.delays[port], kind)]})
    with pytest.raises(DemoError, match="the probe's datagrams"):
        demo_fec.judge(replace(good, delays={**good.delays, port: more}))


@pytest.mark.parametrize(
    "changes", [{"a": OFF_BALANCE}, {"b": OFF_BALANCE}, {"checksum_errors": 1}], ids=lambda each: str(*each)
)
def test_an_engine_that_owes_an_answer_or_a_bad_checksum_fails_it(changes: dict[str, object]) -> None:
    with pytest.raises(DemoError, match=r"^(packets answered by the engine of host [ab]: 8|checksum errors)"):
        demo_fec.judge(replace(seen(), **changes))


def test_what_iperf3_had_no_room_for_is_not_the_modules_fault() -> None:
    good = seen()
    short = replace(good.applications[CUSTOMIZED], lost=good.iperf.lost + 300)
    busy = replace(good, applications={**good.applications, CUSTOMIZED: short})
    with pytest.raises(DemoError, match="only the customized iperf3 misses: 302"):
        demo_fec.judge(busy)
    demo_fec.judge(replace(busy, full_sockets=300))


def test_what_is_wrong_is_one_line() -> None:
    agree([("this", 1, 1)])
    within("this", 0.05, 0.04, 0.06)
    with pytest.raises(DemoError, match=r"^that: 2, expected 3$"):
        agree([("this", 1, 1), ("that", 2, 3), ("another", 4, 5)])
    with pytest.raises(DemoError, match=r"^this: 0\.07, expected 0\.04 to 0\.06$"):
        within("this", 0.07, 0.04, 0.06)


# --- readings -----------------------------------------------------------------------------------------------


def test_a_reading_since_another() -> None:
    first, second = reading(1000), reading(3000)
    between = second.since(first)
    assert between.a["sources"] == 2000 and between.link[PLAIN] == Link(2000, 1228 * 2000, 100)
    assert between.lost == second.lost - first.lost


def test_iperf3_does_not_count_the_last_ones_as_lost() -> None:
    received = {"packets": 98, "lost_packets": 5, "bits_per_second": 1e6, "jitter_ms": 0.5}
    assert Flow.of({"sum_sent": {"packets": 100}, "sum_received": received}) == Flow(100, 5, 2, 1e6, 0.5)


class Listing(Host):
    """A host whose iptables says what a test wants."""

    text = ""

    def run(self, *words: str, timeout_s: float = 60) -> str:
        return self.text


def test_the_links_counts_are_read_from_the_rules() -> None:
    host = Listing("b", Path())
    rows = "  20 2000  udp", "  1  100 DROP udp", " 30 3000  udp", "  2  200 DROP udp"
    host.text = "\n".join(("Chain PREROUTING (policy ACCEPT)", " pkts bytes target", *rows)) + "\n"
    assert links(host) == {CUSTOMIZED: Link(20, 2000, 1), PLAIN: Link(30, 3000, 2)}
    host.text = "\n".join(("Chain", "pkts", *rows[:3]))
    with pytest.raises(DemoError, match="3 rules"):
        links(host)


def datagram(number: int, sent_ns: int) -> bytes:
    return STAMP.pack(number, sent_ns) + content(number)


def test_the_probe_tells_what_arrived_from_what_was_made_anew() -> None:
    came = [(1900, 0, datagram(1, 1000)), (1400, 0, datagram(0, 900)), (9000, REPAIR_TOS, datagram(2, 1100))]
    found = delays(came)
    assert found == Delays([500, 900], [7900])
    assert Delays(**json.loads(json.dumps(vars(found)))) == found


@pytest.mark.parametrize("second", [datagram(0, 2), datagram(1, 2)[:-1], datagram(1, 2)[:-1] + b"?"])
def test_the_probe_refuses_what_was_not_sent_so(second: bytes) -> None:
    with pytest.raises(ValueError, match="came twice, or other than it was sent"):
        delays([(5, 0, datagram(0, 1)), (6, 0, second)])


# --- replays and the picture --------------------------------------------------------------------------------


def test_a_replay_loses_what_theory_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_replay, "DATAGRAMS", 6000)
    monkeypatch.setattr(demo_replay, "LOSSES_PERCENT", (5, 20))
    points = demo_replay.measure()
    assert [(each.k, each.m, each.loss) for each in points[:2]] == [(10, 3, 0.05), (10, 3, 0.2)]
    assert all(each.sources == 6000 for each in points)
    assert points[1].residual == pytest.approx(points[1].theory, rel=0.3)
    demo_replay.judge(points)
    assert demo_replay.measure() == points


def test_a_replay_that_loses_more_fails_it() -> None:
    with pytest.raises(DemoError, match=r"^replay of \(20, 4\) at 5%: .*: 90, expected 0 to"):
        demo_replay.judge([Point(20, 4, 0.05, 20000, 90)])


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = [Point(10, 3, 0.05, 20000, 20), Point(20, 4, 0.05, 20000, 0)]
    for live in (points[0], None):
        demo_picture.draw(points, live, tmp_path / "made.png")
        assert (tmp_path / "made.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_it_says_so_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_picture, "find_spec", lambda name: None)
    out = StringIO()
    demo_picture.play(Console(file=out, width=200), None, tmp_path / "x.png")
    assert out.getvalue().splitlines() == [f"demo: no {tmp_path}/x.png: matplotlib is not installed"]
    assert not list(tmp_path.iterdir())
