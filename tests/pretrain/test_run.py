"""Whole runs on a small rendered dataset: versions, objectives, stops, kills, the command."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import typer
from safetensors.torch import load_file

from curator.cli import pretrain as pretrain_command
from curator.cli.app import app
from curator.cli.output import run_app
from curator.core.errors import StoppedError, UsageError
from pretrain.recipe import Recipe
from pretrain.run import num_workers, pretrain
from pretrain.run_files import RunSummary, read_summary
from pretrain.towers.backbone import load_backbone
from tests.kit.paths import ROOT
from tests.kit.train import SIDE, config_file, recipe
from tests.pretrain.loop.test_loop import StopAt


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures with alt text, and a version that keeps them as they are."""
    folder = tmp_path_factory.mktemp("world")
    sizes = ["--images", "40", "--labelled", "0", "--side", "32"]
    assert run_app(app, ["demo", "data", str(folder), *sizes]) == 0
    assert run_app(app, ["index", str(folder / "shards")]) == 0
    assert run_app(app, ["decide", str(folder / "shards"), "--policy", "as-is"]) == 0
    return folder


def run(world: Path, made: Recipe, out: Path, **options: Any) -> RunSummary:
    return pretrain(str(world / "shards@v1"), made, out, device="cpu", **options)


def weights(out: Path) -> dict[str, torch.Tensor]:
    (path,) = (out / "model").glob("*.safetensors")
    return load_file(path)


def test_a_run_trains_saves_and_says_what_it_did(world: Path, tmp_path: Path) -> None:
    made = recipe(tmp_path)
    summary = run(world, made, tmp_path / "run", held_out=6)
    assert (summary.steps, summary.samples_seen) == (8, 64)
    assert summary.flops > 0
    assert summary.recipe_digest == made.digest()
    assert summary.retrieval["num_pairs"] == 6
    assert set(summary.final) >= {"loss", "accuracy", "logit_scale", "steps_per_sec"}
    assert read_summary(tmp_path / "run") == summary
    found = json.loads((tmp_path / "run/run.json").read_text())
    assert found["recipe"] == made.model_dump()
    assert found["source"]["version"] == "v1"
    net = open_clip.create_model(f"local-dir:{tmp_path / 'run/model'}", require_pretrained=True)
    assert torch.equal(net.visual.proj, weights(tmp_path / "run")["visual.proj"])
    assert load_backbone(str(tmp_path / "run"), image_px=(SIDE, SIDE)).channels == (32,) * 4


def test_a_finished_run_is_read_and_another_one_refused(world: Path, tmp_path: Path) -> None:
    made = recipe(tmp_path, samples_seen=8)
    first = run(world, made, tmp_path / "run")
    assert run(world, made, tmp_path / "run") == first
    with pytest.raises(UsageError, match="the folder holds another run"):
        run(world, made.changed(["lr=1e-4"]), tmp_path / "run")
    with pytest.raises(UsageError, match="different held_out"):
        run(world, made, tmp_path / "run", held_out=5)


@pytest.mark.parametrize("name", ["mae", "simmim"])
def test_images_alone(world: Path, tmp_path: Path, name: str) -> None:
    made = recipe(tmp_path, samples_seen=16, objective=name)
    summary = run(world, made, tmp_path / "run")
    assert summary.retrieval == summary.zero_shot == {}
    assert load_backbone(str(tmp_path / "run"), image_px=(SIDE, SIDE)).channels == (32,) * 4


def test_a_stopped_run_ends_with_the_same_bytes(world: Path, tmp_path: Path) -> None:
    made = recipe(tmp_path, precision="bf16")
    whole = run(world, made, tmp_path / "whole")
    with pytest.raises(StoppedError, match="run the same command again"):
        run(world, made, tmp_path / "parts", stop=StopAt(3))
    assert not (tmp_path / "parts/summary.json").exists()
    parts = run(world, made, tmp_path / "parts")
    assert parts.retrieval == whole.retrieval
    wanted, got = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(wanted[key], got[key]) for key in wanted)


@pytest.mark.slow
def test_a_run_stopped_at_50_random_steps_ends_with_the_same_bytes(
    world: Path, tmp_path: Path
) -> None:
    made = recipe(tmp_path, samples_seen=480)  # 60 steps
    whole = run(world, made, tmp_path / "whole")
    done = 0
    for at in sorted(random.Random(1).sample(range(1, 60), 50)):
        with pytest.raises(StoppedError, match="run the same command again"):
            run(world, made, tmp_path / "parts", stop=StopAt(at - done))
        done = at
    parts = run(world, made, tmp_path / "parts")
    assert parts.retrieval == whole.retrieval
    assert parts.final["loss"] == whole.final["loss"]
    wanted, got = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(wanted[key], got[key]) for key in wanted)


def test_a_killed_run_ends_with_the_same_bytes(world: Path, tmp_path: Path) -> None:
    """SIGKILL at a write in the middle of a checkpoint; checkpoints after every step."""
    made = recipe(tmp_path)
    run(world, made, tmp_path / "whole")
    (tmp_path / "recipe.json").write_text(made.model_dump_json())
    code = (
        "import sys, pretrain.loop.loop, pretrain.run\n"
        "from pathlib import Path\n"
        "from pretrain.recipe import Recipe\n"
        "data, folder = sys.argv[1], Path(sys.argv[2])\n"
        "options = Recipe.loop_options\n"
        "from dataclasses import replace\n"
        "Recipe.loop_options = lambda self: replace(options(self), checkpoint_every_sec=0.0)\n"
        "made = Recipe.model_validate_json((folder / 'recipe.json').read_text())\n"
        "pretrain.run.pretrain(data, made, folder / 'killed', device='cpu')\n"
    )
    arguments = [sys.executable, "-c", code, str(world / "shards@v1"), str(tmp_path)]
    threads = str(torch.get_num_threads())
    environment = os.environ | {"CURATOR_FAILPOINT": "60", "OMP_NUM_THREADS": threads}
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    steps = sorted(int(p.stem) for p in (tmp_path / "killed/checkpoints").glob("*.json"))
    assert 0 < steps[-1] < 8
    run(world, made, tmp_path / "killed")
    wanted, got = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(wanted[key], got[key]) for key in wanted)


def test_batches_larger_than_the_data_are_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="samples to train on, and batches of 4,096"):
        run(world, recipe(tmp_path, batch_size=4096), tmp_path / "run")


def test_a_control_needs_what_it_matches(world: Path, tmp_path: Path) -> None:
    made = recipe(tmp_path, samples_seen=8, control="shuffled")
    summary = run(world, made, tmp_path / "run")
    assert "shuffled" in summary.source
    with pytest.raises(UsageError, match="needs a reference"):
        run(world, made.changed(["control=length-matched"]), tmp_path / "other")
    with pytest.raises(UsageError, match="no finished run here"):
        read_summary(tmp_path / "other")


# -- the command -----------------------------------------------------------------------------------


def curator(*argv: str) -> int:
    """The commands of `curator.cli.pretrain` alone."""
    commands = typer.Typer()
    commands.callback()(lambda: None)
    commands.command()(pretrain_command.pretrain)
    return run_app(commands, argv)


def test_the_command_trains_and_says_what_comes_next(
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "tiny.toml").write_text(
        f'name = "tiny"\nmodel = "{config_file(tmp_path)}"\nimage_px = {SIDE}\n'
        "samples_seen = 80\nbatch_size = 8\nlr = 1e-3\n"
    )
    data, out = str(world / "shards@v1"), tmp_path / "run"
    typed = ["pretrain", data, "--recipe", str(tmp_path / "tiny.toml"), "--out", str(out)]
    typed += ["--set", "samples_seen=16", "--set", "seed=2", "--device", "cpu"]
    monkeypatch.setattr("pretrain.checks.zeroshot._MIN_TEXTS", 1)  # there are four held-out pairs
    assert curator(*typed) == 0
    said = capsys.readouterr().out
    assert "16 samples seen" in said
    assert "retrieval among" in said
    assert re.search(
        r"zero-shot recognition of [1-9]\d* words of their captions: AUROC [01]\.\d{3}", said
    )
    assert said.endswith("next: curator finetune --help\n")
    assert json.loads((out / "run.json").read_text())["recipe"]["seed"] == 2
    assert curator(*typed, "--json") == 0
    assert json.loads(capsys.readouterr().out)["samples_seen"] == 16
    monkeypatch.setenv("RANK", "1")  # one of several processes: only the first speaks
    assert curator(*typed) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("typed", "code", "what"),
    [
        (["--recipe", "demmo"], 2, "did you mean 'demo'"),
        (["--set", "lr"], 2, "write --set key=value"),
        (["--set", "lr=-1"], 2, "lr is -1: "),
        (["--device", "tpu"], 2, "device is 'tpu'"),
    ],
)
def test_the_command_says_what_is_wrong(
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    typed: list[str],
    code: int,
    what: str,
) -> None:
    argv = ["pretrain", str(world / "shards@v1"), "--out", str(tmp_path / "run"), *typed]
    assert curator(*argv) == code
    assert what in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_is_named_after_its_recipe_and_version() -> None:
    assert pretrain_command._label("data/shards/@v2") == "shards-v2"
    assert pretrain_command._label("shards") == "shards"


def test_workers_decode_beside_a_gpu_only_on_the_cores_of_this_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert num_workers(torch.device("cpu")) == 0
    gpu = torch.device("cuda")
    for cores, wanted in ((1, 1), (4, 3), (99, 8)):
        monkeypatch.setattr("pretrain.run.num_cores", lambda cores=cores: cores)
        assert num_workers(gpu) == wanted
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "33")
    assert num_workers(gpu) == 2
