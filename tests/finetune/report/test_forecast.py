"""What a study will cost and can show, before it runs; with numbers worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from curator.cli import study as study_command
from curator.cli.output import run_app
from curator.cli.report import report
from finetune.report.build import build_report
from finetune.report.forecast import Forecast, forecast, lines
from finetune.report.stats import smallest_detectable
from finetune.study.files import Json, read_cells
from finetune.study.plan import make_plan
from tests.kit.study import SMALL, FakeRunner, run, study


def planned(
    text: str = SMALL,
    *,
    pilot: Path | None = None,
    records: Mapping[str, Json] | None = None,
    **values: str,
) -> Forecast:
    """The forecast; pretraining roughly takes a minute, a dense run half of one."""
    plan = make_plan(study(text, **values), FakeRunner()).to_json()
    rough = {"pretrain": 60.0, "dense": 30.0, "sweep": 30.0}
    return forecast(plan, records or {}, pilot=pilot, rough=lambda cell: rough[cell["kind"]])


def slowly(folder: Path, seconds: Mapping[str, float]) -> None:
    """Let the finished cells of a study have taken so long, by their kind."""
    for path in (folder / "cells").glob("*.json"):
        record = json.loads(path.read_bytes())
        record["seconds"] = seconds[record["config"]["kind"]]
        record.pop("checksum", None)
        path.write_text(json.dumps(record))


def test_without_a_pilot() -> None:
    # Two arms, four seeds: eight pretrainings of a minute, eight dense runs of half a minute.
    found = planned(seeds="4")
    assert (found.num_cells, found.num_missing, found.num_rough) == (16, 16, 16)
    assert found.seconds == 8 * 60 + 8 * 30
    (depth,) = found.tasks
    assert (depth.sd, depth.least, depth.seeds) == (None, None, 4)
    # Ten seeds halve whatever four can show (tests of decisions); six times 2 * 90 s.
    assert (found.seeds_for_half, found.seconds_for_half) == (10, 6 * 180)
    said = lines(found)
    assert said[0] == "small: 16 runs, 0 of them finished; nothing was started"
    assert said[1] == (
        "16 runs to do: about 12 min; a rough estimate: passes through the tower, on the "
        "machine as busy as it is"
    )
    assert "16 runs to do: about 6 min with 2 jobs" in lines(found, jobs=2)[1]
    assert "a pilot of 3 seeds measures it" in said[2]
    assert said[3] == "half of what 4 seeds show: 10 seeds, 18 min more"
    assert said[4] == "(80 % power, paired, two-sided 5 % over 1 comparison)"


def test_times_and_spread_of_a_pilot(tmp_path: Path) -> None:
    pilot = tmp_path / "pilot"
    # The pilot sees half of the samples, so the same pretraining takes twice as long.
    text = SMALL.replace("samples_seen = 1000", "samples_seen = 500")
    run(study(text, seeds="3"), pilot)
    slowly(pilot, {"pretrain": 100.0, "dense": 10.0})
    found = planned(pilot=pilot, seeds="4")
    assert found.seconds == pytest.approx(8 * 200 + 8 * 10)
    assert found.num_rough == 0
    (depth,) = found.tasks
    (compared,) = build_report(pilot).tasks[0].comparisons
    assert compared.difference is not None
    assert compared.difference.sd is not None
    assert (depth.sd, depth.degrees) == (pytest.approx(compared.difference.sd), 2)
    # Four pairs see 2.12795 sd. With two degrees of freedom the sd is known to a factor of
    # sqrt(2 / 7.3778) = 0.5207 and sqrt(2 / 0.050636) = 6.285 only.
    assert depth.least == pytest.approx(2.12795 * compared.difference.sd, rel=1e-4)
    assert depth.low == pytest.approx(0.5207 * depth.least, rel=1e-3)
    assert depth.high == pytest.approx(6.285 * depth.least, rel=1e-3)
    assert lines(found)[2].startswith("depth: 4 seeds show 0.0")
    assert f"by the times of {pilot}" in lines(found)[1]


def test_what_is_finished_costs_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study(SMALL, seeds="3"), out)
    slowly(out, {"pretrain": 100.0, "dense": 10.0})
    found = planned(pilot=out, records=read_cells(out), seeds="4")
    assert (found.num_cells, found.num_missing) == (16, 4)
    assert found.seconds == pytest.approx(2 * 100 + 2 * 10)


def test_several_tasks_and_candidates(tmp_path: Path) -> None:
    from tests.kit.study import STUDY

    pilot = tmp_path / "pilot"
    run(study(seeds="3"), pilot)
    one = planned(STUDY, pilot=pilot, seeds="4")
    assert (one.num_compared, one.fewest) == (2, 3)
    segmentation, depth = one.tasks
    assert (segmentation.metric, depth.metric) == ("mIoU", "RMSE")
    assert segmentation.sd is not None
    # Two comparisons: each at 2.5 %.
    by_hand = smallest_detectable(segmentation.sd, 4, alpha=0.025)
    assert segmentation.least == pytest.approx(by_hand)
    # All five others are candidates without `verdict`: 10 comparisons, four seeds at the least.
    every = planned(STUDY.replace('verdict = ["recaptioned"]\n', ""), pilot=pilot, seeds="3")
    assert (every.num_compared, every.fewest) == (10, 4)
    assert every.tasks[0].least is None
    assert lines(every)[-2] == ("3 seeds can name no winner among 10 comparisons; 4 are the least")
    # A candidate with fewer seeds of its own.
    text = STUDY.replace('name = "recaptioned"', 'name = "recaptioned"\nseeds = 2')
    assert planned(text, pilot=pilot).seeds == 2


def test_a_pilot_with_other_arms(tmp_path: Path) -> None:
    pilot = tmp_path / "pilot"
    run(study(SMALL, seeds="3"), pilot)
    text = SMALL.replace('name = "b"', 'name = "new"')
    assert planned(text, pilot=pilot).tasks == planned(pilot=pilot).tasks
    other = planned(SMALL.replace('task = "depth"', 'task = "segmentation"'), pilot=pilot)
    assert other.tasks[0].sd is None
    assert other.num_rough == 4  # the dense runs of two seeds


def test_lines_of_a_rough_part() -> None:
    part = replace(planned(seeds="4"), num_rough=8)
    assert "a rough estimate for 8 of them" in lines(part)[1]


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    made = typer.Typer(pretty_exceptions_enable=False)
    made.command()(study_command.study)
    made.command()(report)  # with one command alone typer would take no name
    monkeypatch.setattr("finetune.study.runner.ModelRunner", lambda _store, _device: FakeRunner())
    return made


def test_plan_writes_nothing(
    app: typer.Typer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(SMALL)
    assert run_app(app, ["study", "small.toml", "--plan", "--set", "seeds=4"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("small: 16 runs, 0 of them finished; nothing was started\n")
    assert said.endswith("next: curator study small.toml --out small --jobs 1 --set seeds=4\n")
    assert [path.name for path in tmp_path.iterdir()] == ["small.toml"]
    # A folder with finished runs is its own pilot, and stays as it is.
    run(study(SMALL, seeds="3"), tmp_path / "small")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "small").rglob("*")}
    assert run_app(app, ["study", "small.toml", "--plan", "--set", "seeds=4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["num_missing"], told["pilot"]) == (4, "small")
    assert told["tasks"][0]["least"] > 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "small").rglob("*")} == before
    assert run_app(app, ["study", "small.toml", "--plan", "--pretrain-only", "--out", "new"]) == 0
    assert "4 runs to do: about 4 min" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--from", "."], "--from goes with --plan"),
        (["--plan", "--from", "nowhere"], "no study here in nowhere"),
        (["--plan", "--out", "."], "the folder holds files that are not a study"),
    ],
)
def test_mistakes(
    app: typer.Typer,
    argv: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(SMALL)
    assert run_app(app, ["study", "small.toml", *argv]) == 2
    assert said in capsys.readouterr().err
