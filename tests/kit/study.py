"""A made-up study: a runner without models whose numbers are known, and its study file."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from curator.core.errors import EngineError
from curator.core.stopping import StopRequest
from finetune.cell_files import DenseResult, SavedImages, Sweep
from finetune.study.cells import (
    DenseCell,
    Json,
    PretrainCell,
    PretrainOutcome,
    SweepCell,
)
from finetune.study.recipe import Study, TaskSettings, parse_study
from finetune.study.run import StudySummary, run_study

STUDY = """
name = "made up"
description = "Do better captions help dense tasks?"
seeds = "{seeds}"
baseline = "noisy"
mae = "masked images"
verdict = ["recaptioned"]
notes = ["The captioner was trained on other pictures of the same world."]

[set]
seeds = 5
steps = 40

[pretrain]
recipe = "tiny"
samples_seen = [12_800, 51_200]
held_out = 256
options = { batch_size = 128 }

[[arm]]
name = "noisy"
data = "shards@as-is"

[[arm]]
name = "recaptioned"
data = "shards@best"

[[arm]]
name = "true captions"
data = "truth@v1"

[[arm]]
name = "shuffled"
data = "shards@best"
control = "shuffled"

[[arm]]
name = "masked images"
data = "shards@best"
objective = "simmim"

[[arm]]
name = "random"
backbone = "random"

[[task]]
task = "segmentation"
data = "segmentation"
protocol = "quick"
fractions = [0.03, 0.1, 0.3, 1.0]
lrs = [0.001, 0.003]
options = { steps = "{steps}", image_px = [64, 64], batch_size = 8 }

[[task]]
task = "depth"
data = "depth"
protocol = "finetune"
fractions = [0.1, 1.0]
lrs = [0.001]
options = { steps = "{steps}", image_px = [64, 64], batch_size = 8 }
"""

SMALL = """
name = "small"
seeds = "{seeds}"
baseline = "a"
[set]
seeds = 2
[pretrain]
recipe = "tiny"
samples_seen = 1000
[[arm]]
name = "a"
data = "shards@v1"
[[arm]]
name = "b"
data = "shards@v2"
[[task]]
task = "depth"
data = "depth"
options = { image_px = [32, 32] }
"""

QUALITY = {
    "noisy": 0.0,
    "recaptioned": 1.0,
    "true captions": 1.4,
    "shuffled": -1.2,
    "masked images": -0.4,
    "random": -2.2,
    "a": 0.0,
    "b": 1.0,
}
"""How good the features of an arm are, in units of one good caption."""


def noise(*what: object) -> float:
    """The same standard normal number for the same words, whatever ran before."""
    seed = zlib.crc32(repr(what).encode())
    return float(np.random.default_rng(seed).normal())


def picture(seed: int, *, tone: float) -> bytes:
    """A small PNG of blobs."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray((rng.random((4, 4, 3)) * 255 * tone).astype(np.uint8))
    out = io.BytesIO()
    small.resize((64, 64), Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


class FakeRunner:
    """Numbers instead of models. `calls` has the label of every cell that was run.

    `fails` holds labels of cells that raise; `at_cell` is called before each cell.
    """

    def __init__(self, fails: tuple[str, ...] = ()) -> None:
        self.calls: list[str] = []
        self.fails = fails
        self.recipes: dict[str, Any] = {"model": "tiny-conv", "lr": 0.001}

    def at_cell(self, label: str) -> None:
        self.calls.append(label)
        if any(part in label for part in self.fails):
            raise EngineError(f"no memory for {label}")

    def recipe(self, name: str, options: Mapping[str, Any]) -> Json:
        base = {"name": name, "objective": "clip", "samples_seen": 6400, "seed": 0, "control": None}
        return {**base, **self.recipes, **options}

    def source(self, data: str, *, text: bool) -> Json:
        return {
            "id": f"{zlib.crc32(data.encode()):08x}" * 8,
            "name": data,
            "num_samples": 2900 if text else 3000,
            "policy": data.rpartition("@")[2],
            "scorers": ["clip-world"],
            "captioners": ["local-world-vlm"],
        }

    def labels(self, task: TaskSettings, seeds: Sequence[int]) -> Json:
        return {"task": task.task, "layout": "camvid", "num_train": 240, "num_test": 120}

    def flops_per_sample(self, data: str, recipe: Json) -> float:
        return 1.5e9 if recipe["objective"] == "clip" else 1.0e9

    def pretrain(self, cell: PretrainCell, folder: Path, stop: StopRequest) -> PretrainOutcome:
        self.at_cell(cell.label)
        quality = QUALITY.get(cell.arm, 0.0)
        texts = cell.recipe["objective"] == "clip"
        recall = 0.2 + 0.1 * quality + 0.01 * noise("recall", cell.arm, cell.seed)
        steps = range(0, 400, 10)
        return PretrainOutcome(
            samples=cell.recipe["samples_seen"],
            flops=self.flops_per_sample(cell.data, cell.recipe) * cell.recipe["samples_seen"],
            seconds=31.5,
            metrics={"image_to_text_r1": max(recall, 0.004)} if texts else {},
            history=[
                {
                    "step": step,
                    "loss": 4.85 * np.exp(-step / 300 * (1 + quality / 3))
                    + 0.1 * noise("loss", cell.arm, cell.seed, step),
                }
                for step in steps
            ],
            texts=self.texts(cell.arm, cell.recipe["samples_seen"]) if texts else {},
        )

    def texts(self, arm: str, samples: int) -> dict[str, int]:
        """True captions are long: every fourth of them is cut; of the others none is."""
        cut = samples // 4 if arm == "true captions" else 0
        return {
            "context": 32,
            "num_texts": samples,
            "num_cut": cut,
            "num_tokens": 20 * samples,
            "num_tokens_cut": 8 * cut,
        }

    def sweep(self, cell: SweepCell, backbone: str, folder: Path, stop: StopRequest) -> Sweep:
        self.at_cell(cell.label)
        return Sweep(
            lr=max(cell.task.lrs),
            metric="mIoU",
            tried=tuple((rate, 30 + 1000 * rate) for rate in cell.task.lrs),
            evaluated_on="12 validation images",
            at_edge=False,
        )

    def finetune(
        self, cell: DenseCell, backbone: str, options: Json, folder: Path, stop: StopRequest
    ) -> DenseResult:
        self.at_cell(cell.label)
        quality = QUALITY.get(cell.arm, 0.0)
        size = 0.0 if cell.budget is None else np.log10(cell.budget / 51_200)
        score = 3 * quality + 8 * np.log10(cell.fraction) + 4 * size
        # The seed moves all arms together: that is what pairing takes out.
        score += 1.2 * noise("seed", cell.seed) + 0.5 * noise(cell.arm, cell.seed, cell.fraction)
        score += 0.5 * noise(cell.arm, cell.seed, cell.budget) if size else 0.0
        if cell.task.task == "depth":
            rmse = 0.62 - 0.012 * score
            metrics = {"RMSE": rmse, "AbsRel": rmse / 4, "delta1": 0.9 - rmse / 5}
        else:
            metrics = {"mIoU": (52 + score) / 100, "mAcc": (61 + score) / 100}
        return DenseResult(
            metrics=metrics,
            per_image={},
            per_class={},
            weights="0" * 64,
            num_train=max(1, round(240 * cell.fraction)),
            num_test=120,
            lr=options["lr"] or 0.001,
            seconds=12.0,
            flops=3_000_000_000_000,
            parameters={"backbone": 2_220_000, "all": 2_225_000, "trained": 5_000},
            image_flops=140_000_000,
            device="cpu",
            num_devices=2,
            history=[{"step": step, "loss": 2 * np.exp(-step / 20)} for step in range(40)],
            predictions=tuple(
                SavedImages(
                    name=str(place),
                    image=picture(place, tone=1.0),
                    truth=picture(place, tone=0.7),
                    prediction=picture(place + 7 * (quality < 0), tone=0.7),
                )
                for place in range(4)
            ),
        )


def study(text: str = STUDY, **values: str) -> Study:
    """The made-up study, with values for its {names}."""
    return parse_study(text, where="test", values=values)


def run(
    made: Study, out: Path, runner: FakeRunner | None = None, *, pretrain_only: bool = False
) -> StudySummary:
    """Run it to the end."""
    return run_study(
        made,
        out,
        runner=runner or FakeRunner(),
        stop=StopRequest(),
        pretrain_only=pretrain_only,
    )
