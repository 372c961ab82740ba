"""How well scores tell two groups apart: the area under the ROC curve."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu


def auroc(good: np.ndarray[Any, Any], bad: np.ndarray[Any, Any]) -> float:
    """The chance that one of `good` is above one of `bad`, ties counted half.

    Mann and Whitney's U over the number of pairs (Hanley and McNeil 1982).
    """
    # The method is that of a p-value, which nobody asks for: the quick one.
    u = mannwhitneyu(good, bad, method="asymptotic").statistic
    return float(u / (len(good) * len(bad)))
