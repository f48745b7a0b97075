"""Tags: for every owner the tag's set says exactly which keys hold."""

from hypothesis import given
from hypothesis import strategies as st

from layer45.rules.diversion import Diversion, MarkLayout, QueueGroup, RulePlan, Selector
from layer45.rules.owners import owner_keys, owner_tags

MARKS = MarkLayout(0x10FF, 0x2000)
ids = st.lists(st.integers(1, 4), max_size=2).map(tuple)
paths = st.sampled_from(["a", "a/b", "a/b/c", "ab", "d"])
selectors = st.builds(Selector, user=ids, group=ids, cgroup=st.lists(paths, max_size=2).map(tuple))


def plan(*chosen: Selector, marks: MarkLayout = MARKS) -> RulePlan:
    queues = QueueGroup(0, 1, True)
    return RulePlan("o", marks, tuple(Diversion("p", i, s, None, queues) for i, s in enumerate(chosen, 1)))


def holds(selector: Selector, user: int, group: int, cgroup: str) -> bool:
    return (
        (not selector.user or user in selector.user)
        and (not selector.group or group in selector.group)
        and (not selector.cgroup or any(f"{cgroup}/".startswith(f"{c}/") for c in selector.cgroup))
    )


@given(
    st.lists(selectors, max_size=6),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from(["a", "a/b", "a/b/x", "ab", "z"]),
)
def test_some_tag_tells_what_holds(chosen: list[Selector], user: int, group: int, cgroup: str) -> None:
    tags = owner_tags(plan(*chosen))
    if not tags.keys or tags.problem:
        return
    owned = [s for s in chosen if s.owned]
    places = frozenset(tags.keys.index(owner_keys(s)) for s in owned if holds(s, user, group, cgroup))
    (number,) = (n for n, found in tags.sets.items() if found == places)
    for selector in owned:
        assert (number in tags.having(selector)) == holds(selector, user, group, cgroup)
        assert (number in tags.lacking(selector)) != (number in tags.having(selector))


@given(st.lists(selectors, max_size=6))
def test_numbers_are_classes_of_the_mark(chosen: list[Selector]) -> None:
    tags = owner_tags(plan(*chosen))
    assert all(1 <= number <= MARKS.capacity for number in tags.sets)
    assert len(set(tags.sets.values())) == len(tags.sets)


def test_numbers_survive_a_reload_that_adds_other_keys() -> None:
    one, two = Selector(user=(1,)), Selector(user=(2,))
    assert owner_tags(plan(one)).having(one) == owner_tags(plan(two, one)).having(one)
    assert owner_tags(plan(one)).lacking(one) != owner_tags(plan(one, two)).lacking(one)


def test_order_of_values_does_not_matter() -> None:
    assert owner_keys(Selector(user=(2, 1, 1))) == owner_keys(Selector(user=(1, 2)))


def test_addresses_alone_need_no_tags() -> None:
    assert owner_tags(plan(Selector(local_port=((1, 1),)))).sets == {}


def test_too_many_sets_keep_the_simple_ones_and_say_so() -> None:
    small = MarkLayout(0x3, 0x4)
    users = [Selector(user=(i,)) for i in range(5)]
    tags = owner_tags(plan(*users, marks=small))
    assert sorted(map(len, tags.sets.values())) == [0, 1, 1]
    assert tags.problem == "6 sets of owner keys can hold together, marks for 3; a wider mark_mask helps"
    assert [len(tags.having(user)) for user in users] == [1, 1, 0, 0, 0]


def test_too_many_keys_keep_the_first_and_say_so() -> None:
    users = [Selector(user=(i,)) for i in range(70)]
    tags = owner_tags(plan(*users))
    assert tags.problem.startswith("70 different combinations")
    assert tags.having(users[63]) and not tags.having(users[64]) and not tags.lacking(users[64])


def test_twenty_users_and_twenty_cgroups_fit() -> None:
    users, cgroups = (
        [Selector(user=(i,)) for i in range(20)],
        [Selector(cgroup=(f"x/{i}",)) for i in range(20)],
    )
    tags = owner_tags(plan(*users, *cgroups))
    assert not tags.problem and len(tags.sets) == 21 * 21
