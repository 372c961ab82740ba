"""The texts of a sample are numbered and counted within their row."""

from __future__ import annotations

import polars as pl

from curator.policy.candidates import number_in_rows


def texts(*rows: tuple[int, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, {"row": pl.Int32, "source": pl.String}, orient="row")


def test_numbers_start_again_with_every_row() -> None:
    found = number_in_rows(
        texts((0, "g"), (0, "alt_text"), (0, "g"), (4, "alt_text"), (5, "g"), (5, "g"))
    )
    assert found["slot"].to_list() == [0, 1, 2, 0, 0, 1]
    assert found["num_texts"].to_list() == [3, 3, 3, 1, 2, 2]
    assert found["num_alt"].to_list() == [1, 1, 1, 1, 0, 0]


def test_no_texts_have_no_numbers() -> None:
    assert number_in_rows(texts()).columns == ["row", "source", "slot", "num_texts", "num_alt"]
