"""Captions that are longer than what the text tower reads: counted, told, and kept over stops."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curator.cli.app import app
from curator.cli.output import run_app
from curator.core.errors import StoppedError
from pretrain.data.cuts import Cuts, percent
from pretrain.data.loader import Pipeline, open_source
from pretrain.data.options import DataOptions
from pretrain.run import pretrain
from pretrain.run_files import RunSummary, read_summary
from pretrain.towers.tokens import tokenizer
from tests.kit import tars
from tests.kit.train import CONTEXT, recipe
from tests.pretrain.loop.test_loop import StopAt

LONG, SHORT = " ".join(["cat"] * 20), "two small dogs"
"""22 tokens with start and end, six more than are read; and five."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures; every second one has the long text, the others the short one."""
    folder = tmp_path_factory.mktemp("cuts")
    files = [
        file
        for number in range(40)
        for file in tars.sample(f"{number:09d}", number, caption=[LONG, SHORT][number % 2])
    ]
    tars.write(folder, tars.tar(files))
    return folder


def run(shards: Path, out: Path, **options: Any) -> RunSummary:
    # Ten steps of eight are two rounds through all forty.
    made = recipe(out.parent, samples_seen=80)
    return pretrain(str(shards), made, out, device="cpu", **{"held_out": 0} | options)


WANTED = {
    "context": CONTEXT,
    "num_texts": 80,
    "num_cut": 40,
    "num_tokens": 40 * 20 + 40 * 3,
    "num_tokens_cut": 40 * 6,
}
TOLD = (
    "50 % of 80 captions are longer than the 16 tokens that the text tower reads; 26 % of all "
    "their tokens are cut off"
)


def test_a_tokenizer_says_how_long_the_whole_text_is() -> None:
    found = tokenizer(CONTEXT).encoded([LONG, SHORT, "", " ".join(["cat"] * 14)])
    assert found.lengths_N.tolist() == [22, 5, 2, 16]
    assert found.tokens_NL[0, -1] == found.tokens_NL[3, -1] == 49407  # cut or not: the same row end
    assert torch.equal(
        found.tokens_NL, tokenizer(CONTEXT)([LONG, SHORT, "", " ".join(["cat"] * 14)])
    )


def test_cuts_by_hand() -> None:
    # A context of 16 with two special tokens: 16 fits, 22 loses 6 of its 20.
    found = Cuts.of([22, 5, 2, 16], 16)
    assert found.counts() == {"num_texts": 4, "num_cut": 1, "num_tokens": 37, "num_tokens_cut": 6}
    assert (found + found).counts()["num_tokens_cut"] == 12
    assert Cuts(**found.to_json()) == found
    assert found.sentence() == (
        "25 % of 4 captions are longer than the 16 tokens that the text tower reads; 16 % of all "
        "their tokens are cut off"
    )


@given(st.floats(0, 1))
def test_a_share_is_never_shown_as_none_or_all(share: float) -> None:
    shown = percent(share)
    assert (shown == "0 %") == (share == 0)
    assert (shown == "100 %") == (share == 1)
    number = float(re.findall(r"[0-9.]+", shown)[0]) / 100
    assert abs(number - share) <= 0.00501


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_carry_the_lengths(shards: Path, workers: int) -> None:
    options = DataOptions(image_px=16, batch_size=40, num_workers=workers)
    made = Pipeline(open_source(str(shards)), options, tokenize=tokenizer(CONTEXT)).batches()
    batch = next(made)
    made.close()
    assert sorted(batch.lengths.tolist()) == [5] * 20 + [22] * 20
    assert batch.lengths.tolist() == [5 if s % 2 else 22 for s in batch.samples.tolist()]


def test_a_run_counts_what_it_trains_on(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run(shards, tmp_path / "run")
    said = capsys.readouterr().err
    assert summary.texts == WANTED
    assert json.loads((tmp_path / "run/summary.json").read_bytes())["texts"] == WANTED
    early, late = (line for line in said.splitlines() if line.startswith("warning: "))
    # As soon as there is one, which is the first batch here; and the exact share at the end.
    assert re.fullmatch(
        r"warning: \d+ % of 8 captions are longer than the 16 .*summary.json\)", early
    )
    assert late == f"warning: {TOLD}"


def test_several_texts_and_sentences_count_as_drawn(shards: Path, tmp_path: Path) -> None:
    made = recipe(tmp_path, samples_seen=80, captions="all", max_captions=2)
    summary = pretrain(str(shards), made, tmp_path / "all", device="cpu", held_out=0)
    assert summary.texts == WANTED


def test_a_stopped_run_counts_the_same(shards: Path, tmp_path: Path) -> None:
    for at in (3, 4):
        with pytest.raises(StoppedError):
            run(shards, tmp_path / "run", stop=StopAt(at))
    assert run(shards, tmp_path / "run").texts == WANTED


def test_a_run_that_only_misses_its_summary_counts_the_same(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run")
    (tmp_path / "run/summary.json").unlink()
    assert run(shards, tmp_path / "run").texts == WANTED


def test_held_out_texts_are_counted_too(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(shards, tmp_path / "run", held_out=10).held_out_texts
    assert found["num_texts"] == 10
    assert found["num_tokens_cut"] == 6 * found["num_cut"]
    assert found["num_tokens"] == 20 * found["num_cut"] + 3 * (10 - found["num_cut"])
    assert f"warning: held-out pairs: {Cuts(**found).sentence()}" in capsys.readouterr().err


def test_without_text_there_is_nothing_to_count(shards: Path, tmp_path: Path) -> None:
    made = recipe(tmp_path, samples_seen=16, objective="mae")
    summary = pretrain(str(shards), made, tmp_path / "run", device="cpu")
    assert summary.texts == summary.held_out_texts == {}


def test_a_summary_of_an_earlier_version_is_read(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run")
    path = tmp_path / "run/summary.json"
    found = json.loads(path.read_bytes())
    del found["texts"], found["held_out_texts"], found["checksum"]
    path.write_text(json.dumps(found))
    assert read_summary(tmp_path / "run").texts == {}


def test_the_command_tells_it(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = recipe(tmp_path, samples_seen=80)
    lines = [
        f"{name} = {json.dumps(value)}"
        for name, value in made.model_dump().items()
        if value is not None
    ]
    (tmp_path / "tiny.toml").write_text("\n".join(lines))
    typed = ["pretrain", str(shards), "--recipe", str(tmp_path / "tiny.toml"), "--device", "cpu"]
    assert run_app(app, [*typed, "--held-out", "0", "--out", str(tmp_path / "run")]) == 0
    assert f"\n  {TOLD}\n" in capsys.readouterr().out
