"""Pairs that may overlap: never too few, and not all where ports or programs differ."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from layer45.candidates import candidates, pairs
from layer45.overlap import covers, overlap
from layer45.rules.diversion import Selector

from .test_overlap import some

ports = some([(1, 1), (1, 9), (2, 3), (4, 4), (5, 65535), (9, 9)])
selectors = st.builds(
    Selector,
    protocol=some(["udp", "tcp"]),
    local_port=ports,
    remote_port=ports,
    user=some([0, 1]),
    group=some([0, 1]),
    cgroup=some(["a", "a/b"]),
    program=some(["dig", "curl", "/bin/dig", "/bin/x"]),
)


@given(st.lists(selectors, max_size=12))
def test_no_pair_is_missed(chosen: list[Selector]) -> None:
    found = list(pairs(chosen))
    assert len(set(found)) == len(found) and all(first < second for first, second in found)
    for pair in combinations(range(len(chosen)), 2):
        first, second = (chosen[place] for place in pair)
        if overlap(first, second, None, None) or covers(first, second) or covers(second, first):
            assert pair in found


@given(st.lists(selectors, max_size=8))
def test_each_is_its_own_candidate_and_they_are_so_mutually(chosen: list[Selector]) -> None:
    found = candidates(chosen)
    for place, bits in enumerate(found):
        assert bits >> place & 1
        assert all((found[other] >> place & 1) == (bits >> other & 1) for other in range(len(chosen)))


def test_a_thousand_services_and_programs_have_few() -> None:
    services = [Selector(("udp",), remote_port=((port, port),)) for port in range(1000)]
    programs = [Selector(program=(f"p{number}",)) for number in range(1000)]
    assert list(pairs(services)) == list(pairs(programs)) == []
    assert list(pairs([*services[:2], Selector(remote_port=((1, 5),)), services[9]])) == [(1, 2)]
