"""Tables from CSV files: columns, times, missing values, and one clear line for each bad cell."""

import gzip
import math
from datetime import datetime, timedelta

import pytest
import torch

from elman import DataError
from elman.data import table as module
from elman.data.table import calendar, fill_forward, parsed, read_columns, read_head, times_after
from elman.data.waves import hours, sine_cosine

PLANT = """time,valve,place,heat
2024-02-28 22:00:00,1.5,north,20
2024-02-28 23:00:00,2.5,south,21
2024-02-29 00:00:00,-1e1,north,22
"""


@pytest.fixture
def plant(tmp_path):
    path = tmp_path / "plant.csv"
    path.write_text(PLANT)
    return path


def read(path, *names, time=None, kinds=(), fill=False):
    return read_columns(path, names, time, kinds, fill)


def test_columns_times_and_numbers(plant):
    assert read_head(plant, None).numeric == ["valve", "heat"]
    table = read(plant, "heat", "valve", kinds=("hour",))
    assert table.names == ("heat", "valve")
    assert table.values.tolist() == [[20, 1.5], [21, 2.5], [22, -10]]
    assert table.seen.all()
    assert table.time == "time"
    assert table.times[2] == datetime(2024, 2, 29)
    torch.testing.assert_close(table.clock[2], torch.tensor([0.0, 1.0]))
    assert len(table) == 3


def test_a_packed_file_reads_alike(plant, tmp_path):
    packed = tmp_path / "plant.csv.gz"
    packed.write_bytes(gzip.compress(plant.read_bytes()))
    assert torch.equal(read(packed, "heat").values, read(plant, "heat").values)


def test_a_time_column_in_another_place_is_named(tmp_path):
    path = tmp_path / "plant.csv"
    path.write_text("heat,day\n1,2024-01\n2,2024-02\n")
    assert read(path, "heat").times == ()
    assert read(path, "heat", time="day").times == (datetime(2024, 1, 1), datetime(2024, 2, 1))


def test_without_times_a_first_column_of_numbers_is_one_of_them(tmp_path):
    path = tmp_path / "plant.csv"
    path.write_text("year,heat\n2001,1\n2002,2\n")
    assert read_head(path, None).numeric == ["year", "heat"]
    assert read(path, "year").times == ()


def test_a_column_of_numbers_may_begin_with_holes(tmp_path):
    path = tmp_path / "holes.csv"
    path.write_text("a,b,c,d\n?,n/a,x,\n1,-,2,\n")
    assert read_head(path, None).numeric == ["a", "b", "d"]
    assert read(path, "a", "b", fill=True).seen.tolist() == [[False, False], [True, False]]


def test_missing_values_repeat_the_one_before_and_are_marked(tmp_path):
    path = tmp_path / "holes.csv"
    path.write_text("a,b\n,1\n2,\nNaN,3\n5,4\n")
    table = read(path, "a", "b", fill=True)
    assert math.isnan(table.values[0, 0])
    assert table.values[1:].tolist() == [[2, 1], [2, 3], [5, 4]]
    assert table.seen.tolist() == [[False, True], [True, False], [False, True], [True, True]]


@pytest.mark.parametrize("piece", [1, 2, 7])
def test_a_table_in_pieces_is_the_table(tmp_path, monkeypatch, piece):
    path = tmp_path / "long.csv"
    path.write_text("time,a,b\n" + "".join(f"2024-01-{d:02d},{d}.5,{'' if d % 3 else d}\n" for d in range(1, 20)))
    whole = read(path, "a", "b", kinds=("hour", "month"), fill=True)
    monkeypatch.setattr(module, "PIECE", piece)
    again = read(path, "a", "b", kinds=("hour", "month"), fill=True)
    assert torch.equal(again.values.nan_to_num(-1), whole.values.nan_to_num(-1))
    assert torch.equal(again.seen, whole.seen)
    assert torch.equal(again.clock, whole.clock)
    assert again.times == whole.times
    assert again.digest(11) == whole.digest(11) != whole.digest(12)
    with pytest.raises(DataError, match=r"long.csv, line 2: b is missing \(''\)"):
        read(path, "b")
    path.write_text(path.read_text() + "2024-01-20,x,3\n")
    with pytest.raises(DataError, match="long.csv, line 21: a is 'x', not a number"):
        read(path, "a", fill=True)


def test_filling_keeps_what_is_known():
    values = torch.tensor([[1.0], [math.nan], [math.nan], [4.0]])
    assert fill_forward(values).flatten().tolist() == [1, 1, 1, 4]


BAD = {
    "bad.csv, line 3: a is missing (''); --missing fill": "a,b\n1,2\n,3\n",
    "bad.csv, line 3: b is missing ('nan')": "a,b\n1,2\n2,nan\n",
    "bad.csv, line 4: b is '3,5', not a number": 'a,b\n1,2\n1,2\n1,"3,5"\n',
    "bad.csv, line 3: a is 'inf', not a number": "a,b\n1,2\ninf,2\n",
    "bad.csv, line 2: b is 'x', not a number": "a,b\n1,x\n",
    "bad.csv has no column 'b'; it has a, c": "a,c\n1,2\n",
    "bad.csv, line 3: 1 cells; the first line names 2 columns": "a,b\n1,2\n1\n",
    "bad.csv, line 1 holds numbers; it must name the columns": "1,2\n3,4\n",
    "bad.csv, line 1: two columns are called 'a'": "a,b,a\n1,2,3\n",
    "bad.csv has 1 lines": "a,b\n",
    "bad.csv has 0 lines": "",
    "bad.csv, line 3: day is 'soon', not a time": "day,a,b\n2024-01-01,1,2\nsoon,1,2\n",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_tables(words, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(BAD[words])
    with pytest.raises(DataError) as error:
        read(path, "a", "b")
    assert words in str(error.value)


def test_rows_stand_in_the_order_of_time(tmp_path):
    """But for an hour, by which clocks are put back in autumn."""
    path = tmp_path / "times.csv"
    path.write_text("time,a\n2024-10-27 02:30,1\n2024-10-27 02:00,2\n2024-10-27 03:00,3\n")
    assert len(read_columns(path, ["a"], "time", [], False).values) == 3
    path.write_text("time,a\n2024-01-02,1\n2024-01-04,2\n2024-01-03,3\n")
    with pytest.raises(DataError, match=r"row 3 below the names has time 2024-01-03 .*sort the file"):
        read_columns(path, ["a"], "time", [], False)


def test_a_time_column_that_is_not_there(plant):
    with pytest.raises(DataError, match="no column 'when' for the time; it has time, valve, place, heat"):
        read(plant, "heat", time="when")


TIMES = {
    "2016-07-01 13:30:00": datetime(2016, 7, 1, 13, 30),
    "2016-07-01T13:30": datetime(2016, 7, 1, 13, 30),
    "2016/07/01": datetime(2016, 7, 1),
    "1949-01": datetime(1949, 1, 1),
    "north": None,
    "12.5": None,
}


@pytest.mark.parametrize("cell", TIMES)
def test_times_are_read(cell):
    assert parsed(cell) == TIMES[cell]


def test_the_calendar_turns_with_day_week_and_year():
    times = [datetime(2024, 1, 1, 6), datetime(2024, 1, 2, 6), datetime(2024, 7, 1, 6)]  # Monday, Tuesday, Monday
    clock = calendar(times, ("hour", "weekday", "month"))
    assert clock.shape == (3, 6)
    torch.testing.assert_close(clock[:, 0], torch.ones(3))  # a quarter of the day
    torch.testing.assert_close(clock[:, 1], torch.tensor([0.0, math.sin(2 * math.pi / 7), 0.0]))
    torch.testing.assert_close(clock[:, 5], torch.tensor([1.0, math.cos(2 * math.pi / 12 / 31), -1.0]))
    assert calendar(times, ()).shape == (3, 0)


def test_times_go_on_by_hours_by_months_or_not_at_all():
    start = datetime(2024, 2, 28, 22)
    hourly = [start + timedelta(hours=k) for k in range(3)]
    assert times_after(hourly, 2) == [datetime(2024, 2, 29, 1), datetime(2024, 2, 29, 2)]
    monthly = [datetime(2023, 10, 1), datetime(2023, 11, 1), datetime(2023, 12, 1)]
    assert times_after(monthly, 3) == [datetime(2024, 1, 1), datetime(2024, 2, 1), datetime(2024, 3, 1)]
    assert times_after([start, start + timedelta(hours=1), start + timedelta(hours=5)], 1) == []
    assert times_after(hourly[:2], 1) == []


def test_made_tables_are_the_same_each_time():
    wave, day = sine_cosine(400), hours(300, ("hour",), seed=1)
    torch.testing.assert_close(wave.values.pow(2).sum(-1), torch.ones(400, dtype=torch.float64))
    assert torch.equal(day.values, hours(300, ("hour",), seed=1).values)
    assert not torch.equal(day.values, hours(300, ("hour",), seed=2).values)
    assert day.times[-1] - day.times[0] == timedelta(hours=299)
    assert day.clock.shape == (300, 2)
