"""Equal captions are called better or worse in at most 5 % of studies.

benchmarks/aa.py counts more of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from benchmarks.aa import decided, drawn_errors, errors, simulated, towers_of
from tests.kit.study import SMALL, run, study

STUDIES = 2000
MOST = int(scipy_stats.binom.ppf(0.999, STUDIES, 0.05))


# Tests at exactly 5 % would fail in one case of a thousand; the numbers are fixed, so this does
# not happen by chance later.
@pytest.mark.parametrize(
    ("world", "candidates", "tasks", "seeds"),
    [
        ("normal", 1, 2, 3),
        ("normal", 1, 2, 7),
        ("heavy tails", 1, 2, 4),
        ("skewed", 3, 2, 4),
        ("half learn", 1, 2, 2),
        ("half learn", 1, 1, 3),
        ("half learn", 3, 2, 3),
        ("half learn", 5, 3, 4),
    ],
)
def test_equal_captions(world: str, candidates: int, tasks: int, seeds: int) -> None:
    # 100 of either kind, so all that name a difference, are told by the report's own code.
    found = errors(
        world, candidates=candidates, tasks=tasks, seeds=seeds, studies=STUDIES, checked=100
    )
    assert found <= MOST


@pytest.mark.parametrize(("candidates", "seeds", "rate"), [(1, 2, 0.09), (3, 3, 0.07)])
def test_a_t_test_alone_would_decide_too_often(candidates: int, seeds: int, rate: float) -> None:
    """Why a winner needs three seeds, and four among several candidates."""
    rng = np.random.default_rng(0)
    scores = simulated(
        "half learn", rng, studies=STUDIES, arms=candidates + 1, seeds=seeds, tasks=1
    )
    p = scipy_stats.ttest_1samp(scores[:, 0, 1:] - scores[:, 0, :1], 0, axis=-1).pvalue
    assert np.mean(p.min(axis=1) < 0.05 / candidates) > rate


def test_a_real_difference_is_still_found() -> None:
    # 7 mIoU are five standard deviations of a difference of two runs: four seeds see 2.7.
    rng = np.random.default_rng(0)
    scores = simulated("normal", rng, studies=100, arms=2, seeds=4, tasks=2)
    scores[:, :, 1] += 7
    assert sum(decided(one).choice == "use" for one in scores) >= 95


def test_towers_of_a_study(tmp_path: Path) -> None:
    run(study(SMALL, seeds="6"), tmp_path / "out")
    towers = towers_of(tmp_path / "out")
    assert {arm: found.shape for arm, found in towers.items()} == {"a": (6, 1), "b": (6, 1)}
    # A spread around the mean of the arm: no arm is better than another.
    assert all(abs(found.mean()) < 1e-9 for found in towers.values())
    assert drawn_errors(towers, candidates=1, seeds=3, studies=50) is not None
    assert drawn_errors(towers, candidates=1, seeds=7, studies=50) is None
