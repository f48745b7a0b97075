"""When a chain fails too often: how many, of how many, within which time."""

from layer45.failures import FailureWatch, Faults, Finding, Tally

KEY = 1, "text"


def tally(begun: tuple[int, int] = (0, 0), others: tuple[int, int] = (0, 0), *faults: Faults) -> Tally:
    return Tally("voice", KEY, begun, others, faults or (Faults("tag", 1, errors=begun[1] + others[1]),))


def looks(watch: FailureWatch, *tallies: Tally, every_s: float = 1.0) -> list[tuple[int, int]]:
    """One look each; how many findings there were on flows begun here, and on others."""
    found = [watch.look([each], 100 + at * every_s) for at, each in enumerate(tallies)]
    return [(len(begun), len(others)) for begun, others in found]


def test_more_than_the_threshold_and_more_than_half() -> None:
    assert looks(FailureWatch(100), tally((200, 101))) == [(1, 0)]
    assert looks(FailureWatch(100), tally((100, 100))) == [(0, 0)]
    assert looks(FailureWatch(100), tally((202, 101))) == [(0, 0)]
    assert looks(FailureWatch(0), tally((10**6, 10**6))) == [(0, 0)]


def test_what_happened_longer_ago_does_not_count() -> None:
    slowly = [tally((count, count)) for count in range(0, 300, 9)]  # 9 a second: 90 in ten
    assert not any(begun for begun, _ in looks(FailureWatch(100), *slowly))
    faster = [tally((count, count)) for count in range(0, 300, 12)]
    assert any(begun for begun, _ in looks(FailureWatch(100), *faster))


def test_a_long_good_past_hides_nothing() -> None:
    good = [tally((count, 0)) for count in range(0, 100_000, 5000)]
    bad = [tally((100_000 + count, count)) for count in range(0, 60_000, 5000)]
    found = looks(FailureWatch(100), *good, *bad)
    assert not any(begun for begun, _ in found[: len(good)])
    assert found[-1] == (1, 0)


def test_what_others_began_is_told_once_and_again_when_it_was_over() -> None:
    flood = [tally((0, 0), (count, count)) for count in range(1000, 6000, 1000)]
    assert looks(FailureWatch(100), *flood) == [(0, 1), (0, 0), (0, 0), (0, 0), (0, 0)]
    again = [*flood, *[tally((0, 0), (5000, 5000))] * 12, tally((0, 0), (9000, 9000))]
    assert [others for _, others in looks(FailureWatch(100), *again)] == [1] + [0] * 16 + [1]


def test_it_tells_which_instance_and_what_it_did_most() -> None:
    faults = Faults("tag", 1, errors=3), Faults("fec", 2, errors=20, unset=100), Faults("drop", 3)
    (found,), _ = FailureWatch(100).look([tally((130, 123), (0, 0), *faults)], 1)
    assert found.told() == {
        "module": "fec", "instance": 2, "failures": 123, "packets": 130, "seconds": 10,
        "reason": "it gave no verdict that it may give",
    }  # fmt: skip


def test_reasons() -> None:
    assert Faults("m", 1, errors=1).reason == "it answered ERROR"
    assert Faults("m", 1, errors=1, said="KeyError: 'x'").reason == "it raised KeyError: 'x'"
    assert Faults("m", 1, flows_refused=1, said="KeyError: 'x'").reason == "it opens no flow"


def test_a_chain_that_is_put_back_begins_anew() -> None:
    watch = FailureWatch(100)
    assert looks(watch, tally((500, 500))) == [(1, 0)]
    watch.begin(tally((500, 500)), 101)
    assert _begun(watch, 500, 102) == []
    assert len(_begun(watch, 601, 103)) == 1


def test_a_chain_that_is_gone_is_forgotten() -> None:
    watch = FailureWatch(100)
    assert _begun(watch, 90, 100) == []
    watch.look([], 101)
    assert _begun(watch, 90, 102) == []  # a new one with the same text: from its beginning
    assert len(_begun(watch, 101, 103)) == 1


def _begun(watch: FailureWatch, count: int, now: float) -> list[Finding]:
    return watch.look([tally((count, count))], now)[0]
