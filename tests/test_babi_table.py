"""The paper's Table 3 with a column of our own."""

import pytest

from mnm_rl.tasks.babi import babi_table
from mnm_rl.tasks.babi.table import PAPER_ERRORS
from mnm_rl.tasks.base import ErrorCounts
from mnm_rl.text_tables import format_table


def counts(errors):
    return ErrorCounts(by_kind={task: (wrong, 1000) for task, wrong in errors.items()})


def test_the_paper_columns_have_the_printed_means_and_failures():
    rows = babi_table(counts(dict.fromkeys(range(1, 21), 0)))
    assert len(rows) == 1 + 20 + 2
    printed = [7.38, 0.81, 3.8, 2.9, 2.76, 0.175]
    assert [float(cell) for cell in rows[-2][2:]] == pytest.approx(printed, abs=0.031)
    assert rows[-1][2:] == ("4", "0", "2", "1", "1", "0")
    assert rows[-2][:2] == ("mean error (%)", "0.00")


def test_mean_and_failed_tasks_of_a_whole_run():
    rows = babi_table(counts({task: 10 * task for task in PAPER_ERRORS}), "mnm-p")
    assert rows[0][1] == "mnm-p"
    assert [row[1] for row in rows[1:4]] == ["1.00", "2.00", "3.00"]
    assert rows[-2][1] == "10.50"
    assert rows[-1][1] == "15"


def test_tasks_that_were_not_run_are_blank_and_not_counted():
    rows = babi_table(counts({1: 0, 16: 501}))
    assert [row[1] for row in rows[1:21]] == ["0.00"] + [""] * 14 + ["50.10"] + [""] * 4
    assert rows[-2][:3] == ("mean error (%), 2 tasks run", "25.05", "26.10")
    assert rows[-1] == ("failed tasks (> 5%), 2 tasks run", "1", "1", "0", "1", "1", "1", "0")


def test_a_table_of_nothing_has_blank_means():
    assert {cell for row in babi_table(ErrorCounts())[-2:] for cell in row[1:]} == {""}


def test_the_text_is_aligned_and_ends_with_the_notes():
    lines = format_table(babi_table(counts({3: 12})), ["task 3 trains on few questions"]).split("\n")
    assert len({len(line) for line in lines[:-1]}) == 1
    assert " ".join(lines[3].split()) == "3: three supporting facts 1.20 10.6 3.4 1.8 0.7 1.8 0.9"
    assert lines[-1] == "task 3 trains on few questions"


def test_errors_on_another_task_are_refused():
    with pytest.raises(ValueError, match="No bAbI task has the number 0"):
        babi_table(counts({0: 1}))
