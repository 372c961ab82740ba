"""Evaluate the captions of a version against the ground truth of the rendered world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from curator.core.auroc import auroc
from curator.demo.alttext import NOISES
from curator.demo.checker import CheckSummary, check, total
from curator.demo.data import TRUTH_SCHEMA, materials
from curator.demo.scene import sample_scene
from curator.policy.decider import read_decision
from curator.store import parquet
from curator.store.store import Store
from curator.store.versions import Version


@dataclass(frozen=True, slots=True)
class TruthScores:
    """Results of a version against the truth; `mean_score` is the scorer's, nan without scores."""

    version: str
    policy: str
    num_texts: int
    num_samples: int
    mean_score: float
    summary: CheckSummary


def read_truth(out: Path) -> pl.DataFrame:
    """Read the truth of all images of a demo folder, in the columns of TRUTH_SCHEMA."""
    paths = sorted((out / "truth").glob("*.parquet"))
    return pl.concat([parquet.read(path, TRUTH_SCHEMA) for path in paths])


def score_against_truth(store: Store, version: Version, truth: pl.DataFrame) -> TruthScores:
    """Check the first text of every sample that has one."""
    rows = _first_texts(store, version).join(truth, on="image_sha256")
    checks = [
        check(text, sample_scene(seed, materials(patterns)))
        for text, seed, patterns in rows.select("text", "scene_seed", "patterns").rows()
    ]
    mean = rows["score"].fill_nan(None).mean()
    return TruthScores(
        version=version.name,
        policy=str(version.policy["name"]),
        num_texts=len(rows),
        num_samples=version.num_samples,
        mean_score=mean if isinstance(mean, float) else float("nan"),
        summary=total(checks),
    )


def separation(store: Store, as_is: Version, truth: pl.DataFrame) -> Mapping[str, float]:
    """Return for each noise the AUROC of scores: good alt texts against that noise."""
    rows = _first_texts(store, as_is).join(truth, on="image_sha256")
    scores = {
        str(noise): part["score"].drop_nulls().to_numpy()
        for (noise,), part in rows.group_by("noise")
    }
    good = scores.get("good", np.empty(0))
    return {
        noise: auroc(good, scores[noise])
        for noise in NOISES
        if noise != "good" and len(scores.get(noise, [])) and len(good)
    }


def _first_texts(store: Store, version: Version) -> pl.DataFrame:
    frames = [read_decision(store, entry) for entry in version.shards]
    rows = pl.concat(frames).filter(pl.col("slot") == 0, pl.col("text").is_not_null())
    return rows.select("image_sha256", "text", "score")
