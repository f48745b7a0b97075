"""Tags: for every owner the tag's set says exactly which keys hold."""

from hypothesis import given
from hypothesis import strategies as st

from layer45.rules.diversion import Diversion, MarkLayout, QueueGroup, RulePlan, Selector
from layer45.rules.executables import Executable
from layer45.rules.owners import OwnerTags, owner_keys, owner_tags
from layer45.rules.processes import Owner
from layer45.rules.socket_tags import tag_of, without

MARKS = MarkLayout(0x10FF, 0x2000)
ids = st.lists(st.integers(1, 4), max_size=2).map(tuple)
paths = st.sampled_from(["a", "a/b", "a/b/c", "ab", "d"])
NAMES, FILES = ["dig", "curl", "x"], ["/bin/dig", "/bin/y"]
programs = st.lists(st.sampled_from([*NAMES, *FILES]), max_size=3).map(tuple)
selectors = st.builds(
    Selector, user=ids, group=ids, cgroup=st.lists(paths, max_size=2).map(tuple), program=programs
)

owners = st.tuples(
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from(["a", "a/b", "a/b/x", "ab", "z"]),
    st.sampled_from([*NAMES, "other"]),
    st.sampled_from([*FILES, "/other"]),
)


def plan(*chosen: Selector, marks: MarkLayout = MARKS, excepts: bool = True) -> RulePlan:
    """excepts: what one policy selects, another one excepts, for which it matters what does not hold."""
    queues = QueueGroup(0, 1, True)
    diversions = [Diversion("p", i, s, None, queues) for i, s in enumerate(chosen, 1)]
    if excepts:
        owned = [Diversion("q", 99, Selector(), s, queues) for s in chosen if s.owned]
        diversions += owned[:1]
    return RulePlan("o", marks, tuple(diversions))


def holds(selector: Selector, user: int, group: int, cgroup: str, name: str, path: str) -> bool:
    return (
        (not selector.user or user in selector.user)
        and (not selector.group or group in selector.group)
        and (not selector.cgroup or any(f"{cgroup}/".startswith(f"{c}/") for c in selector.cgroup))
        and (not selector.program or bool({name, path} & set(selector.program)))
    )


@given(st.lists(selectors, max_size=6), owners)
def test_some_tag_tells_what_holds(chosen: list[Selector], owner: tuple[int, int, str, str, str]) -> None:
    tags = owner_tags(plan(*chosen))
    if not tags.keys or tags.problem:
        return
    owned = [s for s in chosen if s.owned]
    places = frozenset(tags.keys.index(owner_keys(s)) for s in owned if holds(s, *owner))
    (number,) = (n for n, found in tags.sets.items() if found == places)
    assert tag(tags, *owner) == number
    for selector in owned:
        assert (number in tags.having(selector)) == holds(selector, *owner)
        assert (number in tags.lacking(selector)) != (number in tags.having(selector))


def tag(tags: OwnerTags, user: int, group: int, cgroup: str, name: str, path: str) -> int:
    """Of an owner, its executable told by a number."""
    files = {Executable(FILES.index(each), 1): row for each, row in tags.dimensions[4].rows.items()}
    file = Executable(FILES.index(path), 1) if path in FILES else Executable(7, 1)
    return tag_of(tags, Owner(1, user, group, cgroup, name, path, file), files)


@given(st.lists(selectors, max_size=6), st.lists(selectors, max_size=2), owners)
def test_what_is_taken_out_of_a_tag_does_not_hold_by_it(
    kept: list[Selector], taken: list[Selector], owner: tuple[int, int, str, str, str]
) -> None:
    """The other keys stay, where some owner could have just them."""
    tags = owner_tags(plan(*kept, *taken))
    if not tags.keys or tags.problem:
        return
    before = tag(tags, *owner)
    after = without(tags, before, taken)
    assert not [each for each in taken if each.owned and after in tags.having(each)]
    rest = tags.sets[before] - {tags.keys.index(owner_keys(each)) for each in taken if each.owned}
    assert tags.sets[after] == (rest if rest in tags.sets.values() else frozenset())


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


@given(st.lists(selectors, max_size=6))
def test_nobody_has_a_tag_where_no_policy_excepts_owners(chosen: list[Selector]) -> None:
    """All other tags are the same: a socket keeps its tag when the first such policy comes."""
    without, having = (owner_tags(plan(*chosen, excepts=excepts)) for excepts in (False, True))
    assert without.of_nothing == 0 and bool(having.of_nothing) == bool(having.sets)
    if not having.problem:
        assert without.sets == {number: places for number, places in having.sets.items() if places}


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
