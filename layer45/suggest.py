"""Did you mean …? for a name that is close to a known one."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """', did you mean "x"?' for the closest known name; empty when none is close."""
    by_fold = {candidate.casefold(): candidate for candidate in known}
    close = get_close_matches(name.casefold(), by_fold, n=1, cutoff=0.6)
    return f', did you mean "{by_fold[close[0]]}"?' if close else ""
