"""`curator demo run`: the bundled models through the whole engine, held against the truth."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from tests.kit.cli import curator


def test_the_tour_ends_in_a_table_and_a_second_run_makes_nothing(tmp_path: Path) -> None:
    first = curator("demo", "run", tmp_path / "demo", "--images", "40", "--no-study")
    assert first.code == 0, first.err
    right = {
        policy: float(share)
        for policy, share in re.findall(r"v\d ([\w-]+) +\d+ of 40 +([\d.]+)%", first.out)
    }
    assert right["replace"] > right["as-is"]  # 0.6 against 0.4 on 3,000 scenes
    assert (tmp_path / "demo" / "diff.html").exists()
    assert "samples changed their text" in first.out.replace("\n", " ")
    assert "Vocabulary" not in first.out  # the tables of `diff` are for whoever asks for them
    again = curator("demo", "run", tmp_path / "demo", "--images", "40", "--no-study")
    assert again.code == 0, again.err
    assert "no model was called" in again.out


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_tour_with_its_study_ends_in_a_report(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    tour = curator("demo", "run", out, "--images", "400", "--quick")
    assert tour.code == 0, tour.err
    lines = tour.out.splitlines()
    for task in ("segmentation", "depth"):
        assert any(line.startswith(f"{task}: ") and "3 seeds" in line for line in lines), tour.out
    assert (out / "study" / "report.html").exists()
    table = pl.read_parquet(out / "study" / "results.parquet")
    assert set(table["arm"]) == {
        "alt text", "recaptioned", "true captions", "shuffled", "masked images", "random"
    }  # fmt: skip
    assert set(table["seed"]) == {0, 1, 2}
