"""`curator study` and `curator report`: what they print, write and exit with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from curator.cli.output import run_app
from curator.cli.report import report
from curator.cli.study import study as study_command
from tests.kit import store
from tests.kit.study import SMALL, FakeRunner, run, study


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer(pretty_exceptions_enable=False)
    made.command()(study_command)
    made.command()(report)
    return made


def with_runner(monkeypatch: pytest.MonkeyPatch, runner: FakeRunner) -> None:
    """The real runner needs models; everything else is as in a shell."""
    monkeypatch.setattr("finetune.study.runner.ModelRunner", lambda _store, _device: runner)


def test_study_then_report(
    app: typer.Typer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(SMALL)
    with_runner(monkeypatch, FakeRunner())
    command = ["study", "small.toml", "--set", "seeds=3"]
    assert run_app(app, [*command, "--pretrain-only", "--out", "first"]) == 0
    out = capsys.readouterr().out
    assert "6 of 12 runs are finished in first\nDo not decide yet: no dense run is" in out
    assert "\nnext: curator study small.toml --out first" in out
    assert run_app(app, command) == 0
    said = capsys.readouterr()
    assert "12 of 12 runs are finished in small\nUse b: 0.0" in said.out
    assert "[1/12] pretraining, a, seed 0, 1,000 samples: 20" in said.err
    assert run_app(app, ["report", "small"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Use b: 0.0")
    assert "depth: b beats a by" in out
    assert "note: 3 seeds: intervals are wide" in out
    assert (tmp_path / "small/report.html").is_file()
    assert (tmp_path / "small/report.md").is_file()
    assert run_app(app, ["report", "small", "--json", "--out", "there/study.html"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"][0]["verdict"].startswith("b beats a")
    assert (told["decision"]["choice"], told["decision"]["arms"]) == ("use", ["b"])
    assert told["decision"]["sentence"].startswith("Use b: ")
    assert Path(told["html"]).is_file()
    assert Path(told["markdown"]).is_file()


def test_failed_runs_are_an_exit_code(
    app: typer.Typer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    with_runner(monkeypatch, FakeRunner(fails=("pretraining, b, seed 1",)))
    command = ["study", str(tmp_path / "small.toml"), "--out", str(tmp_path / "out")]
    assert run_app(app, [*command, "--json"]) == 30
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert (told["num_done"], told["num_failed"], told["num_blocked"]) == (6, 1, 1)
    assert told["decision"]["sentence"].startswith("Do not decide on this: 1 seed cannot tell")
    assert "error[study.cells_failed]: 1 of 8 runs failed" in said.err
    with_runner(monkeypatch, FakeRunner())
    assert run_app(app, command) == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["study", "demoo"], "did you mean 'demo'"),
        (["study", "demo", "--set", "seeds"], "write --set NAME=VALUE"),
        (["study", "demo", "--set", "sedes=1"], "did you mean 'seeds'"),
        (["report", "nowhere"], "`curator study STUDY.toml` makes one"),
    ],
)
def test_mistakes(
    app: typer.Typer, argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(app, argv) == 2
    assert said in capsys.readouterr().err


def test_two_versions(app: typer.Typer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.small_store(tmp_path / "shards")
    page = tmp_path / "page.html"
    old, new = f"{tmp_path / 'shards'}@v1", f"{tmp_path / 'shards'}@v2"
    assert run_app(app, ["report", old, new, "--out", str(page)]) == 0
    assert "Captions of two versions compared" in page.read_text()
    assert "→" in capsys.readouterr().out


def test_a_report_of_a_study_that_runs(tmp_path: Path, app: typer.Typer) -> None:
    run(study(SMALL, seeds="1"), tmp_path / "out")
    assert run_app(app, ["report", str(tmp_path / "out")]) == 0
