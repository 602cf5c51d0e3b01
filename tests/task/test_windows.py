"""Windows over tables: which rows they take, and the parts of a table."""

import pytest

from elman import DataError, OptionError
from elman.data.waves import hours
from elman.task.windows import Window, Windows, ahead, parse_split, part_of, side_by_side


@pytest.fixture
def table():
    return hours(3360, (), seed=1)


def test_parts_lie_in_the_order_of_time(table):
    assert part_of(table, parse_split("0.5,0.25,0.125"))[1:] == (1680, 2520, 2940)
    assert part_of(table, parse_split("100,50"))[1:] == (100, 150, 3360)
    assert part_of(table, parse_split("100,50,7"))[1:] == (100, 150, 157)
    with pytest.raises(DataError, match="has 3,360 rows; --split asks for 4,000"):
        part_of(table, parse_split("3000,1000"))


@pytest.mark.parametrize("text", ["", "0.6", "a,b", "0.8,0.4", "0,1", "5.5,2", "-1,3", "1,2,3,4", "nan,0.1", "inf,1"])
def test_splits_that_cannot_be(text):
    with pytest.raises(OptionError, match="give the rows to train, to validate"):
        parse_split(text)


def test_forecasts_lie_in_their_part_and_their_past_may_lie_before(table):
    found = Windows([ahead(table, 50, 60, context=20, horizon=4)])
    assert [w.at for w in found] == list(range(50, 57))
    assert (found[0].begin, found[-1].end) == (30, 60)
    assert Windows([ahead(table, 0, 24, context=20, horizon=4)])[0].begin == 0
    assert not Windows([ahead(table, 0, 23, context=20, horizon=4)])


def test_windows_are_those_of_all_tables_in_turn(table):
    one, two = table, hours(50, (), seed=2)
    runs = [ahead(one, 0, 30, 20, 4), ahead(one, 0, 23, 20, 4), side_by_side(two, 47, 10), side_by_side(one, 9, 10)]
    want = [Window(one, at - 20, at, at + 4) for at in range(20, 27)] + [
        Window(two, k, k, k + 10) for k in (0, 10, 20, 30)
    ]
    found = Windows(runs)
    assert len(found) == 11
    for own, right in zip([*found, *found[3:9:2], found[-1]], [*want, *want[3:9:2], want[-1]]):
        assert own.table is right.table
        assert own[1:] == right[1:]
    with pytest.raises(IndexError):
        found[11]
