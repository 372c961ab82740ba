"""Two processes on one machine, through torchrun and gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pretrain.loop.loop import train
from tests.kit.ddp_worker import CASES, batches, options
from tests.kit.paths import ROOT
from tests.kit.train import objective, recipe


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes saw."""
    folder = tmp_path_factory.mktemp("ddp")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command, "-m", "tests.kit.ddp_worker", str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / str(rank) / "seen.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one_does(
    tmp_path: Path, seen: list[dict[str, Any]], name: str
) -> None:
    values = CASES[name]
    made = objective(recipe(tmp_path, **values))
    alone = train(made, batches(values, 0, 1), options(values), folder=None)
    losses = [row["loss"] for row in alone.history]
    for rank in range(2):
        assert seen[rank]["size"] == 2
        assert seen[rank][name]["losses"] == pytest.approx(losses, rel=2e-4)
    assert seen[0][name]["weights"] == seen[1][name]["weights"]
    assert losses[0] != losses[1]


def test_counts_are_of_all_processes(seen: list[dict[str, Any]]) -> None:
    for rank in range(2):  # three steps, of fourteen texts in all
        assert seen[rank]["clip, many texts"]["counts"] == {"batches": 6, "texts": 42}


def test_arithmetic_is_counted_over_all_processes(
    tmp_path: Path, seen: list[dict[str, Any]]
) -> None:
    """MAE has no pairs: two halves of a batch cost what the whole does."""
    values = CASES["mae"]
    made = objective(recipe(tmp_path, **values))
    alone = train(made, batches(values, 0, 1), options(values), folder=None)
    assert seen[0]["mae"]["flops"] == alone.flops


def test_a_signal_to_one_stops_all_and_all_go_on(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["stop"] == pytest.approx(seen[0]["clip"]["losses"], rel=1e-5)
