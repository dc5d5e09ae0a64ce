from __future__ import annotations

import pytest

from tools.cli.text_table import aligned, markdown

ROWS = [["size", "program", "time"], ["64", "engine", "1.0"], ["1024", "torch, contiguous", "100.0"]]


def test_columns_are_aligned():
    assert aligned(ROWS, "><>") == [
        "size  program             time",
        "  64  engine               1.0",
        "1024  torch, contiguous  100.0",
    ]
    assert markdown(ROWS, "><>") == [
        "| size | program | time |",
        "| ---: | --- | ---: |",
        "| 64 | engine | 1.0 |",
        "| 1024 | torch, contiguous | 100.0 |",
    ]


@pytest.mark.parametrize("table", [aligned, markdown])
def test_the_last_alignment_counts_for_all_further_columns(table):
    assert table(ROWS, "<>") == table(ROWS, "<>>") != table(ROWS, "<")


def test_nothing_stands_behind_the_last_cell():
    assert aligned([["a", "long"], ["b", ""], ["", ""]], "<") == ["a  long", "b", ""]


def test_rows_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        aligned([["a", "b"], ["c"]], "<")
