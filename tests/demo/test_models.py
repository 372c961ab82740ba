"""The bundled models reach their goals; the benchmark's figures are the ones it names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.demo_models import (
    Measure,
    Shown,
    _judged,
    against_noise,
    against_one_wrong,
    captions,
    shown_images,
)
from curator.demo.bundled import bundled_model
from curator.demo.checker import check, total
from curator.demo.language import LENGTHS, Length, caption
from curator.demo.scene import sample_scene
from curator.engine.makers import scorer_maker
from curator.scorers.clip import ClipScorer
from tests.kit.paths import ROOT

SCENES = 200
WORLD = 2  # neither the demo's nor the benchmark's


def slack(goal: float) -> float:
    """Three standard errors of a share of SCENES that is exactly at its goal.

    It also bounds the error of an AUROC of SCENES against SCENES: its variance is at most
    A (1 - A) / SCENES. The hallucinated things are a share of more than SCENES.
    """
    return float(3 * np.sqrt(goal * (1 - goal) / SCENES))


@pytest.fixture(scope="module")
def images() -> list[Shown]:
    return shown_images(WORLD, SCENES)


@pytest.fixture(scope="module")
def scorer() -> ClipScorer:
    return ClipScorer(**scorer_maker(str(bundled_model("scorer"))).options)


@pytest.mark.parametrize(
    ("length", "figure", "goal"),
    [("kinds", "right", 0.95), ("kinds", "hallucinated", 0.03), ("detailed", "attribute F1", 0.95)],
)
def test_the_captioner_reaches_its_goals(
    images: list[Shown], length: Length, figure: str, goal: float
) -> None:
    told = captions(bundled_model("captioner"), images, length, Measure(2))
    value = next(one.value for one in told if one.name == f"{figure}, {length} captions")
    if figure == "hallucinated":
        assert value <= goal + slack(goal)
    else:
        assert value >= goal - slack(goal)


def test_the_scorer_knows_another_image_s_caption(images: list[Shown], scorer: ClipScorer) -> None:
    found = {one.name: one.value for one in against_noise(scorer, images, Measure(2))}
    assert found["AUROC, good alt texts against other_caption"] >= 0.97 - slack(0.97)


def test_the_scorer_knows_a_wrong_kind(images: list[Shown], scorer: ClipScorer) -> None:
    auroc, _ = against_one_wrong(scorer, images, "kinds", "kind", Measure(2))
    assert auroc.value >= 0.90 - slack(0.90)


@pytest.mark.parametrize("model", ["captioner", "scorer"])
def test_a_bundled_model_is_small(model: str) -> None:
    files = [path for path in bundled_model(model).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 10_000_000


@pytest.mark.slow
def test_quick(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.demo_models", "--quick", "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())["details"]
    assert found["AUROC, good alt texts against file_name"]["value"] > 0.9
    assert found["R@1, the text of an image among 12 detailed"]["value"] > 0.5
    for length in LENGTHS:
        assert found[f"the true one of a pair wins, {length}, one wrong detail"]["n"] == 12
        assert found[f"attribute F1, {length} captions"]["value"] > 0.3
    for detail in ("kind", "ground", "sky"):
        assert found[f"AUROC, bare kinds captions against one wrong {detail}"]["n"] == 12
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
