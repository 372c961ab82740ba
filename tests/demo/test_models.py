"""The benchmark of the bundled models: it runs, and its figures are the ones it names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.demo_models import Measure, _judged
from curator.demo.checker import check, total
from curator.demo.language import caption
from curator.demo.scene import sample_scene
from tests.kit.paths import ROOT


@pytest.mark.slow
def test_quick(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.demo_models", "--quick", "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())["details"]
    assert found["AUROC, good alt texts against file_name"]["value"] > 0.9
    assert found["R@1, the text of a picture among 12 detailed"]["value"] > 0.5
    for length in ("short", "detailed", "spatial"):
        assert found[f"the right one of a pair wins, {length}"]["n"] == 12
        assert found[f"attribute F1, {length} captions"]["value"] > 0.3
    by_size = [one["n"] for name, one in found.items() if name.startswith("right, short captions,")]
    assert sum(by_size) == 12


def test_captions_are_summed_up_as_the_checker_does() -> None:
    told = []
    for seed in range(20):
        text = caption(sample_scene(seed), "detailed", np.random.default_rng(seed))
        told.append(check(text, sample_scene(seed + seed % 3)))  # one in three is the scene's own
    summary = total(told)
    f1, hallucinated, right = (figure.value for figure in _judged("x", told, Measure(10)))
    assert f1 == pytest.approx(summary.f1)
    assert hallucinated == pytest.approx(summary.hallucination_rate)
    assert right == pytest.approx(summary.right_share)
    assert 0 < right < 1


def test_an_interval_holds_the_value_and_one_scene_has_none() -> None:
    values = np.random.default_rng(0).normal(3, 1, 400)
    figure = Measure(500)("mean", np.mean, values)
    assert figure.interval is not None
    low, high = figure.interval
    assert low < figure.value < high
    assert high - low == pytest.approx(4 / 400**0.5, rel=0.2)  # two standard errors on each side
    assert Measure(500)("mean", np.mean, values[:1]).interval is None
