"""Area under the ROC curve: how well scores separate two groups."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu


def auroc(good: np.ndarray[Any, Any], bad: np.ndarray[Any, Any]) -> float:
    """Return the probability that one of `good` exceeds one of `bad`, ties counted as half.

    Mann and Whitney's U over the number of pairs (Hanley and McNeil 1982).
    """
    # The method affects only the p-value, which is not used, so take the fast one.
    u = mannwhitneyu(good, bad, method="asymptotic").statistic
    return float(u / (len(good) * len(bad)))
