"""Policies that could have the same sockets: which of two is first, and whether the other has any left."""

from collections.abc import Iterator, Sequence

from layer45.candidates import pairs
from layer45.overlap import covers, overlap
from layer45.policy import Policy
from layer45.problems import Problems
from layer45.rules.diversion import Selector


def check_priorities(policies: Sequence[Policy], problems: Problems) -> None:
    """Of two policies with one priority, neither would be first where both match."""
    sound = [each for each in policies if each.match is not None and not _unsure(each, problems)]
    for first, second in _candidates(sound):
        if first.priority == second.priority and _overlap(first, second):
            early, late = sorted((first, second), key=lambda each: (str(each.file), each.line))
            text = f"equal to that of policy.{early.name} ({early.place}), and a socket could match both"
            expected = "expected different priorities, or matches that exclude each other"
            problems.add(late.place.child("priority"), f"{late.priority} is {text}; {expected}")


def _candidates(policies: Sequence[Policy]) -> Iterator[tuple[Policy, Policy]]:
    for first, second in pairs([each.match or Selector() for each in policies]):
        yield policies[first], policies[second]


def _unsure(policy: Policy, problems: Problems) -> bool:
    """Whether its match or priority has problems, so that one cannot judge it."""
    return any(problems.concern(policy.place.child(key)) for key in ("match", "priority"))


def _overlap(first: Policy, second: Policy) -> bool:
    assert first.match is not None and second.match is not None
    return overlap(first.match, second.match, first.unless, second.unless)


def warn_of_shadows(policies: Sequence[Policy], found: Problems) -> None:
    """A policy all of whose sockets its own `unless` excludes, or another one has first."""
    matching = [each for each in policies if each.match is not None]
    for each in matching:
        if each.match and each.unless and covers(each.unless, each.match):
            text = "excludes all that the match selects; only `layer45 exec` will use this policy"
            found.add(each.place.child("match", "unless"), text)
    for first, second in _candidates(matching):
        assert first.match is not None and second.match is not None
        if first.unless is None and first.priority > second.priority and covers(first.match, second.match):
            text = f"selects no socket that policy.{first.name} ({first.place}), of higher priority, does not"
            found.add(second.place.child("match"), f"{text}; only `layer45 exec` will use this policy")
