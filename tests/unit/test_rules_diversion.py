"""A class spread over the bits of any mask can be read back, and never touches a bit outside."""

from hypothesis import given
from hypothesis import strategies as st

from layer45.rules.diversion import MarkLayout, Selector

masks = st.integers(1, 0xFFFFFFFF)


def gather(mask: int, value: int) -> int:
    """The reverse of spread, written the other way round."""
    number, order = 0, 0
    while mask:
        low = mask & -mask
        number |= bool(value & low) << order
        mask, order = mask ^ low, order + 1
    return number


@given(masks, st.data())
def test_spread_can_be_gathered(mask: int, data: st.DataObject) -> None:
    marks = MarkLayout(mask, 0)
    number = data.draw(st.integers(0, marks.capacity))
    assert gather(mask, marks.spread(number)) == number
    assert marks.spread(number) & ~mask == 0


@given(masks, st.data())
def test_different_classes_have_different_marks(mask: int, data: st.DataObject) -> None:
    marks = MarkLayout(mask, 0)
    one, other = (data.draw(st.integers(0, marks.capacity)) for _ in range(2))
    assert (marks.spread(one) == marks.spread(other)) == (one == other)


@given(masks)
def test_no_class_is_no_mark_and_the_last_fills_the_mask(mask: int) -> None:
    marks = MarkLayout(mask, 0)
    assert (marks.spread(0), marks.spread(marks.capacity)) == (0, mask)


def test_owned() -> None:
    assert not Selector(protocol=("udp",), local_port=((1, 2),)).owned
    assert all(s.owned for s in (Selector(user=(0,)), Selector(group=(0,)), Selector(cgroup=("a",))))
