"""Sets of numbers as sorted spans [start, end)."""


class Spans:
    """Never adjacent, never overlapping."""

    def __init__(self) -> None:
        self.all: list[tuple[int, int]] = []

    def add(self, start: int, end: int) -> None:
        if end <= start:
            return
        apart = [span for span in self.all if span[1] < start or span[0] > end]
        joined = [span for span in self.all if span not in apart] + [(start, end)]
        self.all = sorted([*apart, (min(s for s, _ in joined), max(e for _, e in joined))])

    def covers(self, start: int, end: int) -> bool:
        return any(s <= start and end <= e for s, e in self.all)

    def reach(self, at: int) -> int:
        """How far it is unbroken from there."""
        return next((e for s, e in self.all if s <= at <= e), at)

    def above(self, at: int) -> list[tuple[int, int]]:
        return [(s, e) for s, e in self.all if s > at]

    def overlap(self, start: int, end: int, received: int) -> tuple[int, int] | None:
        """The first part of [start, end) that is below received or in here."""
        if start < received and start > 0:
            return start, min(end, received)
        return next(((max(s, start), min(e, end)) for s, e in self.all if s < end and start < e), None)
