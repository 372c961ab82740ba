from __future__ import annotations

import json
import math
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from curator.core.errors import EngineError, StoppedError, UsageError
from curator.core.stopping import StopRequest
from finetune.study.jobs import _Flagged
from pretrain.loop import flops
from pretrain.loop.loop import ParamGroup, TrainResult, Values, _optimizer, train
from pretrain.loop.options import LoopOptions
from tests.kit.train import batches, objective, recipe


class Line(torch.nn.Module):
    """Learns y = 2x: an objective of one matrix, one bias and some noise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net = torch.nn.Linear(2, 2)

    def losses(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        noise = 0.01 * torch.randn_like(x)
        error = (self.net(x + noise) - 2 * x).square().mean()
        return {"loss": error, "double": 2 * error}


def numbers(bad_step: int | None = None) -> Callable[[int], Iterator[torch.Tensor]]:
    def starting_with(step: int) -> Iterator[torch.Tensor]:
        while True:
            x = torch.randn(8, 2, generator=torch.Generator().manual_seed(step))
            yield x * math.nan if step == bad_step else x
            step += 1

    return starting_with


def options(**values: Any) -> LoopOptions:
    return LoopOptions(**({"total_steps": 20, "lr": 0.05, "log_every": 5} | values))


class StopAt(StopRequest):
    """Asks for a stop after so many questions: one question a step."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def __call__(self) -> bool:
        self.left -= 1
        if self.left == 0:
            self.signum = signal.SIGTERM
        return super().__call__()


def run(
    folder: Path | None, *, stop: StopRequest | None = None, **values: Any
) -> tuple[Line, TrainResult]:
    made = Line()
    return made, train(made, numbers(), options(**values), folder=folder, stop=stop)


# -- learning rate, decay --------------------------------------------------------------------------


def test_the_rate_warms_up_in_a_line_and_falls_in_half_a_cosine() -> None:
    made = options(total_steps=10, warmup_steps=4)
    rates = [made.rate(step) for step in range(10)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[7] == pytest.approx(0.5)
    assert rates[9] == pytest.approx(0.5 * (1 + math.cos(math.pi * 5 / 6)))


def test_only_matrices_decay_and_groups_learn_at_their_own_rate() -> None:
    net = torch.nn.ModuleDict(
        {"norm": torch.nn.LayerNorm(3), "line": torch.nn.Linear(3, 3), "scale": torch.nn.Module()}
    )
    gamma = torch.nn.Parameter(torch.ones(3, 1, 1))  # as layer scales of conv nets are
    depthwise = torch.nn.Parameter(torch.ones(3, 1, 3, 3))
    groups = [
        ParamGroup(parameters=[*net.parameters(), gamma], lr_scale=0.5),
        ParamGroup(parameters=[depthwise, torch.nn.Parameter(torch.tensor(1.0))]),
    ]
    found = [
        (group["weight_decay"], group["lr_scale"], [tuple(p.shape) for p in group["params"]])
        for group in _optimizer(groups, options(weight_decay=0.3)).param_groups
    ]
    assert found == [
        (0.3, 0.5, [(3, 3)]),
        (0.0, 0.5, [(3,), (3,), (3,), (3, 1, 1)]),
        (0.3, 1.0, [(3, 1, 3, 3)]),
        (0.0, 1.0, [()]),
    ]


def test_a_parameter_without_a_group_stays_as_it_is() -> None:
    made = Line()
    bias = made.net.bias.clone()
    groups = [ParamGroup(parameters=[made.net.weight])]
    train(made, numbers(), options(), folder=None, parameter_groups=groups)
    assert torch.equal(made.net.bias, bias)


@pytest.mark.parametrize(
    "values",
    [{"total_steps": 0}, {"lr": 0.0}, {"lr": math.inf}, {"clip_grad": -1.0}, {"beta2": 1.0},
     {"precision": "fp8"}, {"accumulate": 0}, {"warmup_steps": -1}],
)  # fmt: skip
def test_a_wrong_option_is_named(values: dict[str, Any]) -> None:
    (name,) = values
    with pytest.raises(UsageError, match=f"{name} is {next(iter(values.values()))!r}"):
        options(**values)


# -- stopping and going on -------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 7, 19])
def test_stopped_and_gone_on_ends_with_the_same_bytes(tmp_path: Path, at: int) -> None:
    whole, result = run(tmp_path / "whole")
    with pytest.raises(StoppedError, match=f"{at} of 20 steps is kept"):
        run(tmp_path / "parts", stop=StopAt(at))
    again, second = run(tmp_path / "parts")
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    losses = [{k: row[k] for k in ("step", "loss", "double")} for row in result.history]
    assert losses == [{k: row[k] for k in ("step", "loss", "double")} for row in second.history]
    assert second.flops == result.flops > 0


@pytest.mark.long
def test_stopped_at_50_random_steps_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """One training, stopped again and again; each start goes on where the last one was."""
    whole, result = run(tmp_path / "whole", total_steps=120)
    done = 0
    for at in sorted(random.Random(0).sample(range(1, 120), 50)):
        with pytest.raises(StoppedError, match=f"{at} of 120 steps is kept"):
            run(tmp_path / "parts", total_steps=120, stop=StopAt(at - done))
        done = at
    again, second = run(tmp_path / "parts", total_steps=120)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    kept = ("step", "loss", "double")
    assert [[row[k] for k in kept] for row in result.history] == [
        [row[k] for k in kept] for row in second.history
    ]


def test_a_cell_of_a_study_stops_when_its_parent_asks(tmp_path: Path) -> None:
    """There the request is read from the parent, and cannot be set."""
    flag = SimpleNamespace(value=0)

    def told_at(step: int) -> Iterator[torch.Tensor]:
        for number, x in enumerate(numbers()(step)):
            flag.value = signal.SIGINT if number == 7 else flag.value
            yield x

    with pytest.raises(StoppedError, match="stopped by SIGINT; 8 of 20 steps is kept"):
        train(Line(), told_at, options(), folder=tmp_path, stop=_Flagged(flag))


def test_gone_on_after_a_lost_checkpoint_too(tmp_path: Path) -> None:
    """Checkpoints after every step; the newest is damaged, and its log line is written again."""
    whole, _ = run(None)
    with pytest.raises(StoppedError):
        run(tmp_path, stop=StopAt(10), checkpoint_every_sec=0.0)
    (tmp_path / "checkpoints" / "00000010.safetensors").write_bytes(b"")
    again, result = run(tmp_path, checkpoint_every_sec=0.0)
    assert torch.equal(whole.net.weight, again.net.weight)
    assert [row["step"] for row in result.history] == [5, 10, 15, 20]
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [5, 10, 15, 20]


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    _, first = run(tmp_path)

    def no_batch(step: int) -> Iterator[torch.Tensor]:
        raise AssertionError(step)
        yield

    again = Line()
    second = train(again, no_batch, options(), folder=tmp_path)
    assert second.history == first.history
    assert (second.steps, second.flops) == (20, first.flops)
    assert second.seconds == pytest.approx(first.seconds, abs=1.0)


def test_a_folder_with_other_options_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    run(tmp_path, log_every=2, checkpoint_every_sec=1.0)  # these change no number
    with pytest.raises(UsageError, match="the folder holds a training with other options"):
        run(tmp_path, lr=0.1)


def test_torn_lines_of_a_log_are_left_out(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        run(tmp_path, stop=StopAt(10))
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 11, "lo')
    _, result = run(tmp_path)
    assert [row["step"] for row in result.history] == [5, 10, 15, 20]


# -- what can go wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize("bad_step", [0, 6, 19])
def test_a_step_that_is_not_finite_stops_and_is_named(tmp_path: Path, bad_step: int) -> None:
    with pytest.raises(EngineError, match=f"step {bad_step + 1}: loss is nan") as error:
        train(
            Line(),
            numbers(bad_step),
            options(checkpoint_every_sec=0.0),
            folder=tmp_path,
        )
    assert error.value.code == 30
    found = sorted((tmp_path / "checkpoints").glob("*.json")) if bad_step else []
    assert not found or int(found[-1].stem) == bad_step  # never the bad step itself


def test_parts_need_an_objective_that_can() -> None:
    with pytest.raises(UsageError, match="Line takes whole batches only"):
        run(None, accumulate=2)


# -- what is written -------------------------------------------------------------------------------


def test_a_line_has_the_losses_the_rate_and_the_speed(tmp_path: Path) -> None:
    _, result = run(tmp_path)
    row = result.history[-1]
    assert set(row) == {"step", "loss", "double", "grad_norm", "lr", "steps_per_sec"}
    assert row["double"] == pytest.approx(2 * row["loss"])
    assert row["lr"] == pytest.approx(0.05 * options().rate(19))
    assert row["loss"] < result.history[0]["loss"]
    assert list((tmp_path / "tensorboard").iterdir())
    assert result.precision in ("fp32", "bf16")


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    run(None)
    assert list(tmp_path.iterdir()) == []


def test_values_become_numbers_in_their_order() -> None:
    assert Values({}).read() == {}
    half = torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True)
    found = Values({"loss": half, "grad_norm": torch.tensor(math.inf)}).read()
    assert list(found.items()) == [("loss", 0.5), ("grad_norm", math.inf)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_values_of_a_step_are_read_while_a_gpu_computes_the_next() -> None:
    values = Values({"loss": torch.ones((), device="cuda")})
    began = time.monotonic()
    torch.cuda._sleep(1_000_000_000)  # half a second of work
    assert values.read() == {"loss": 1.0}
    assert time.monotonic() - began < 0.1
    torch.cuda.synchronize()
    assert time.monotonic() - began > 0.2


# -- arithmetic ------------------------------------------------------------------------------------


def test_a_step_is_counted_once_and_multiplied() -> None:
    """8 rows x 2 x 2 weights x 2 (multiply, add), forward and for the weights' gradient."""
    _, result = run(None)
    assert result.flops == 20 * 8 * 2 * 2 * 2 * 2


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_grouped_convolutions_cost_three_times_their_forward_pass(groups: int) -> None:
    net = torch.nn.Conv2d(8, 8, 3, padding=1, groups=groups, bias=False)
    images = torch.randn(2, 8, 5, 5, requires_grad=True)
    with flops.counted() as count:
        net(images).sum().backward()
    assert count.total == 3 * 2 * (2 * 8 * 25) * (8 // groups) * 9


# -- with real objectives --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip", "mae", "simmim"])
@pytest.mark.long
def test_a_pretraining_objective_goes_on_bit_by_bit(tmp_path: Path, name: str) -> None:
    made = recipe(tmp_path, objective=name)
    values = {"total_steps": 4, "precision": "bf16", "log_every": 1}
    whole, parts, again = (objective(made) for _ in range(3))
    for one in (whole, parts, again):
        one.to(memory_format=torch.channels_last)
    wanted = train(whole, batches(), options(**values), folder=None)
    with pytest.raises(StoppedError):
        train(parts, batches(), options(**values), folder=tmp_path / "run", stop=StopAt(2))
    found = train(again, batches(), options(**values), folder=tmp_path / "run")
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    assert [row["loss"] for row in found.history] == [row["loss"] for row in wanted.history]


@pytest.mark.long
def test_parts_give_the_same_training(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    values = {"total_steps": 3, "precision": "fp32", "log_every": 1}
    results = [
        train(objective(made), batches(), options(**values, accumulate=k), folder=None)
        for k in (1, 4)
    ]
    losses = [[row["loss"] for row in result.history] for result in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "mae"])
def test_compiled_towers_train_alike_and_are_counted_alike(tmp_path: Path, name: str) -> None:
    values = {"total_steps": 3, "precision": "fp32", "log_every": 1}
    results = [
        train(
            objective(recipe(tmp_path, objective=name)),
            batches(),
            options(**values, compile=is_compiled),
            folder=None,
        )
        for is_compiled in (False, True)
    ]
    losses = [[row["loss"] for row in result.history] for result in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert results[0].flops == results[1].flops
