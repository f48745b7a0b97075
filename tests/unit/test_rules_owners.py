"""Tags: for every owner the tag's set says exactly which keys hold."""

from hypothesis import given
from hypothesis import strategies as st

from layer45.rules.diversion import Diversion, MarkLayout, QueueGroup, RulePlan, Selector
from layer45.rules.owners import OwnerTags, owner_keys, owner_tags

MARKS = MarkLayout(0x10FF, 0x2000)
ids = st.lists(st.integers(1, 4), max_size=2).map(tuple)
paths = st.sampled_from(["a", "a/b", "a/b/c", "ab", "d"])
NAMES, FILES = ["dig", "curl", "x"], ["/bin/dig", "/bin/y"]
programs = st.lists(st.sampled_from([*NAMES, *FILES]), max_size=3).map(tuple)
selectors = st.builds(
    Selector, user=ids, group=ids, cgroup=st.lists(paths, max_size=2).map(tuple), program=programs
)


def plan(*chosen: Selector, marks: MarkLayout = MARKS) -> RulePlan:
    queues = QueueGroup(0, 1, True)
    return RulePlan("o", marks, tuple(Diversion("p", i, s, None, queues) for i, s in enumerate(chosen, 1)))


def holds(selector: Selector, user: int, group: int, cgroup: str, name: str, path: str) -> bool:
    return (
        (not selector.user or user in selector.user)
        and (not selector.group or group in selector.group)
        and (not selector.cgroup or any(f"{cgroup}/".startswith(f"{c}/") for c in selector.cgroup))
        and (not selector.program or bool({name, path} & set(selector.program)))
    )


@given(
    st.lists(selectors, max_size=6),
    st.tuples(
        st.integers(1, 5),
        st.integers(1, 5),
        st.sampled_from(["a", "a/b", "a/b/x", "ab", "z"]),
        st.sampled_from([*NAMES, "other"]),
        st.sampled_from([*FILES, "/other"]),
    ),
)
def test_some_tag_tells_what_holds(chosen: list[Selector], owner: tuple[int, int, str, str, str]) -> None:
    tags = owner_tags(plan(*chosen))
    if not tags.keys or tags.problem:
        return
    owned = [s for s in chosen if s.owned]
    places = frozenset(tags.keys.index(owner_keys(s)) for s in owned if holds(s, *owner))
    (number,) = (n for n, found in tags.sets.items() if found == places)
    assert tags.numbers[rows(tags, *owner)] == number
    for selector in owned:
        assert (number in tags.having(selector)) == holds(selector, *owner)
        assert (number in tags.lacking(selector)) != (number in tags.having(selector))


def rows(tags: OwnerTags, user: int, group: int, cgroup: str, name: str, path: str) -> tuple[int, ...]:
    """As the tagger finds them."""
    above = [cgroup.rsplit("/", count)[0] for count in range(3)]
    found = [next((each for each in above if each in tags.dimensions[2].rows), cgroup)]
    values = (user, group, *found, name, path)
    return tuple(d.rows.get(value, 0) for d, value in zip(tags.dimensions, values, strict=True))


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


def test_a_thousand_programs_fit_a_wide_mark() -> None:
    programs = [Selector(program=(f"p{i}",)) for i in range(1000)]
    tags = owner_tags(plan(*programs, marks=MarkLayout(0x0FFF0000, 0x10000000)))
    assert not tags.problem and len(tags.sets) == 1001
    assert [len(tags.having(each)) for each in programs] == [1] * 1000
    assert len(tags.lacking(programs[0])) == 1000


def test_of_many_combinations_the_simplest_are_told() -> None:
    """Who is in one of many cgroups, or runs one of many programs; of those that do both, some."""
    programs, cgroups = (
        [Selector(**{key: (f"x{i}",)}) for i in range(1000)]  # type: ignore[arg-type]
        for key in ("program", "cgroup")
    )
    tags = owner_tags(plan(*programs, *cgroups, marks=MarkLayout(0x0FFF0000, 0x10000000)))
    problem = "1002001 combinations of users, groups, cgroups and programs; the 16384 simplest are told"
    assert tags.problem == problem
    assert all(tags.having(each) for each in (*programs, *cgroups))
    for place in range(2000):
        assert frozenset([place]) in tags.sets.values()


def test_twenty_users_and_twenty_cgroups_fit() -> None:
    users, cgroups = (
        [Selector(user=(i,)) for i in range(20)],
        [Selector(cgroup=(f"x/{i}",)) for i in range(20)],
    )
    tags = owner_tags(plan(*users, *cgroups))
    assert not tags.problem and len(tags.sets) == 21 * 21
