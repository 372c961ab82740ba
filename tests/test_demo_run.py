"""`curator demo run`: the bundled models through the whole engine, held against the truth."""

from __future__ import annotations

import re
from pathlib import Path

from tests.clikit import curator


def test_the_tour_ends_in_a_table_and_a_second_run_makes_nothing(tmp_path: Path) -> None:
    first = curator("demo", "run", tmp_path / "demo", "--images", "40")
    assert first.code == 0, first.err
    right = {
        policy: float(share)
        for policy, share in re.findall(r"v\d ([\w-]+) +\d+ of 40 +([\d.]+)%", first.out)
    }
    assert right["replace"] > right["as-is"]  # 0.6 against 0.4 on 3,000 scenes
    assert (tmp_path / "demo" / "diff.html").exists()
    assert "samples changed their text" in first.out.replace("\n", " ")
    assert "Vocabulary" not in first.out  # the tables of `diff` are for whoever asks for them
    again = curator("demo", "run", tmp_path / "demo", "--images", "40")
    assert again.code == 0, again.err
    assert "no model was called" in again.out
