"""Batch norms over processes: two processes give what one gives for all of their images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from curator.core.errors import UsageError
from finetune.synced_norms import synchronise
from tests.kit.norms_worker import batch, net, outcome
from tests.kit.paths import ROOT


def test_two_processes_normalise_as_one_does(tmp_path: Path) -> None:
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command, "-m", "tests.kit.norms_worker", str(tmp_path)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    alone = outcome(net().double(), batch().double(), scale=1)
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    outputs = torch.cat([one.pop("outputs") for one in both])
    torch.testing.assert_close(outputs, alone.pop("outputs").float(), atol=2e-3, rtol=2e-3)
    for one in both:
        assert one.keys() == alone.keys()
        for name, value in alone.items():
            expected = value.float() if value.is_floating_point() else value
            torch.testing.assert_close(one[name], expected, atol=5e-2, rtol=1e-2, msg=name)


def test_an_unknown_kind_of_batch_norm_is_refused() -> None:
    class Own(nn.BatchNorm2d):
        pass

    with pytest.raises(UsageError, match=r"of the kind Own cannot be synchronised .* \(0\)"):
        synchronise(nn.Sequential(Own(3)))


def test_in_evaluation_nothing_changes() -> None:
    made, plain = net().eval(), net().eval()
    synchronise(made)
    assert torch.equal(made(batch()), plain(batch()))
    assert list(made.state_dict()) == list(plain.state_dict())
