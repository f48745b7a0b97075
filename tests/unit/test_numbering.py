"""Class and queue numbers over many reloads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layer45.numbering import QueueKind, number_classes, number_queues

NAMES = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=5)
KINDS = [
    QueueKind(size, gso, failure, renumbers)
    for size in (192, 65531)
    for gso in (True, False)
    for failure in ("open", "closed")
    for renumbers in (False, True)
]


@given(st.lists(NAMES, min_size=1, max_size=8), st.integers(5, 9))
def test_numbers_are_kept_and_never_shared(reloads: list[list[str]], capacity: int) -> None:
    known: dict[str, int] = {}
    for names in reloads:
        numbers = number_classes(names, known, capacity)
        assert set(names) <= numbers.keys()
        assert len(set(numbers.values())) == len(numbers)
        assert all(1 <= number <= capacity for number in numbers.values())
        assert all(numbers[name] == known[name] for name in names if name in known)
        known = numbers


def test_a_gone_policys_number_is_the_last_to_be_given_away() -> None:
    known = number_classes(["a", "b"], {}, 3)
    known = number_classes(["b"], known, 3)
    known = number_classes(["b", "c"], known, 3)
    assert known == {"b": 2, "c": 3, "a": 1}
    assert number_classes(["a", "b", "c"], known, 3) == {"a": 1, "b": 2, "c": 3}
    assert number_classes(["b", "c", "d"], known, 3) == {"b": 2, "c": 3, "d": 1}


def test_a_narrower_mask_renumbers_what_does_not_fit() -> None:
    assert number_classes(["a", "b"], {"a": 9, "b": 2}, 3) == {"a": 1, "b": 2}


@pytest.mark.parametrize(("count", "bits"), [(4, 3), (7, 3), (8, 4)])
def test_too_many_policies(count: int, bits: int) -> None:
    with pytest.raises(ValueError, match=rf"^{count} policies need {bits} class bits$"):
        number_classes([str(n) for n in range(count)], {}, 3)


@given(st.lists(st.tuples(st.lists(st.sampled_from(KINDS)), st.integers(1, 3)), min_size=1, max_size=6))
def test_queues_in_use_are_never_given_to_others(reloads: list[tuple[list[QueueKind], int]]) -> None:
    previous, workers_before = (), 0
    for kinds, workers in reloads:
        groups = number_queues(kinds, 100, workers, previous, workers == workers_before)
        numbers = [number for group in groups.values() for number in group.numbers]
        assert groups.keys() == set(kinds)
        assert len(set(numbers)) == len(numbers)
        old = {number: group for group in previous for number in group.numbers}
        assert all(old.get(number, group) == group for group in groups.values() for number in group.numbers)
        if workers == workers_before:
            assert all(groups[group.kind] == group for group in previous if group.kind in groups)
        previous, workers_before = tuple(groups.values()), workers


def test_numbers_go_back_to_the_first() -> None:
    one, two = KINDS[:2]
    before = number_queues([one], 100, 1, (), True)
    between = number_queues([two], 100, 1, tuple(before.values()), True)
    assert between[two].first == 101
    assert number_queues([two, one], 100, 1, tuple(between.values()), True)[one].first == 100


def test_the_last_queue() -> None:
    assert number_queues([KINDS[0]], 65533, 2, (), True)[KINDS[0]].first == 65533
    with pytest.raises(ValueError, match=r"^the queues would end at 65536; the last there is is 65534$"):
        number_queues([KINDS[0]], 65534, 3, (), True)


def test_a_full_queue_lets_packets_by_only_where_nothing_can_break() -> None:
    """What on_failure says is shown as it is; a customized connection passes customized or not at all."""
    groups = number_queues(KINDS, 100, 1, (), True).values()
    assert {group.kind for group in groups if group.fail_open} == {
        kind for kind in KINDS if kind.on_failure == "open" and not kind.renumbers
    }
    assert {group.on_failure for group in groups if group.renumbers} == {"open", "closed"}
