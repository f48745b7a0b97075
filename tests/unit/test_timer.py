"""The timer wheel against a plain dictionary of deadlines."""

from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from layer45.fastpath.timer import Wheel

COUNT = 20
spans = st.one_of(st.integers(0, 10**5), st.integers(0, 10**9), st.integers(0, 10**13), st.integers(0, 2**62))
actions = st.one_of(
    st.tuples(st.just("arm"), st.integers(0, COUNT - 1), spans),
    st.tuples(st.just("disarm"), st.integers(0, COUNT - 1), st.just(0)),
    st.tuples(st.just("pass"), st.just(0), spans),
)


@settings(max_examples=300)
@given(st.integers(0, 2**61), st.lists(actions, max_size=60))
def test_every_timer_fires_once_when_due_in_order(start, steps):
    wheel = Wheel(COUNT, start)
    armed: dict[int, int] = {}
    now = start
    for action, index, span in steps:
        if action == "arm":
            armed[index] = min(now + span, 2**63)
            wheel.arm(index, armed[index])
        elif action == "disarm":
            armed.pop(index, None)
            wheel.disarm(index)
        else:
            now = min(now + span, 2**63)
            if armed:
                assert wheel.next_ns <= min(armed.values())
            fired = list(iter(partial(wheel.pop, now), None))
            assert sorted(fired) == sorted((index, due) for index, due in armed.items() if due <= now)
            assert [due for _, due in fired] == sorted(due for _, due in fired)
            armed = {index: due for index, due in armed.items() if due > now}
        assert wheel.armed == len(armed)


def test_a_passed_deadline_fires_at_the_next_look():
    wheel = Wheel(1, 10**12)
    wheel.arm(0, 5)
    assert wheel.pop(10**12) == (0, 5)
    assert wheel.pop(10**18) is None


def test_moving_a_timer_forgets_the_first_deadline():
    wheel = Wheel(1, 0)
    wheel.arm(0, 10**6)
    wheel.arm(0, 10**9)
    assert wheel.armed == 1
    assert wheel.pop(10**8) is None
    assert wheel.pop(10**9) == (0, 10**9)


def test_a_clock_of_any_age_keeps_the_order():
    """2^53 ns are 104 days of uptime; the wheel's levels must reach beyond any carry."""
    start = 2**53 - 10**9
    wheel = Wheel(2000, start)
    deadlines = [start + 10**10 - index * 10**7 for index in range(2000)]
    for index, deadline in enumerate(deadlines):
        wheel.arm(index, deadline)
    fired = [wheel.pop(2**60) for _ in deadlines]
    assert fired == sorted(enumerate(deadlines), key=lambda each: each[1])
    assert wheel.armed == 0
