"""Several prompts in one run: captions out of earlier captions, with and without the image."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import tars
from tests.kit.cli import curator
from tests.kit.paths import STUB_SERVER
from tests.kit.stub_server import answer

NUM = 3


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[list[object]]:
    """Start a server that logs to `tmp_path/log.jsonl`; gives the command that captions by it."""
    data = tars.tar(
        [f for i in range(NUM) for f in tars.sample(f"{i:03}", i, caption=f"see Rex 9{i} here")]
    )
    (tmp_path / "shards").mkdir()
    tars.write(tmp_path / "shards", data)
    command = [sys.executable, str(STUB_SERVER), f"--log={tmp_path / 'log.jsonl'}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        policy = tmp_path / "made.toml"
        policy.write_text('name = "made"\nsources = ["generated"]\npick = "first"\n')
        by = ["--captioner", "server", "--url", url, "--model", "tiny", "--policy", policy]
        yield ["recaption", tmp_path / "shards", *by]
        process.kill()


def requests(tmp_path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]


def rows(tmp_path: Path, sql: str) -> list[dict[str, object]]:
    said = curator("query", tmp_path / "shards", sql, "--json").out
    return [json.loads(line) for line in said.splitlines()]


def test_a_second_prompt_builds_on_the_captions_of_the_first(tmp_path, asking):
    said = curator(
        *asking, "--prompt", "short", "--prompt", "fuse", "--text-only", "--system", "Be kind."
    )
    posts = [entry for entry in requests(tmp_path) if entry["method"] == "POST"]
    first, second = posts[:NUM], posts[NUM:]
    assert len(second) == NUM
    assert all(entry["mime"] for entry in first), "the first round shows the image"
    assert not any(entry["mime"] for entry in second), "the second does not"
    assert all(entry["system"] == ["Be kind."] for entry in posts)
    captions = {answer(entry["sha256"]) for entry in first}
    for entry in second:
        quoted = entry["prompt"].split('"')[1::2]
        assert quoted[0] in captions
        assert quoted[1].startswith("see Rex ")
    # The fused captions are preferred to those that they were made of, which stay as facts.
    fused = {answer(entry["sha256"]) for entry in second}
    assert {row["text"] for row in rows(tmp_path, "select text from captions")} == fused
    assert len(rows(tmp_path, "select distinct generator from generated")) == 2
    assert "captions made: 6" in said.out
    # Run again: nothing is asked for.
    curator(*asking, "--prompt", "short", "--prompt", "fuse", "--text-only", "--system", "Be kind.")
    assert len([entry for entry in requests(tmp_path) if entry["method"] == "POST"]) == 2 * NUM


def test_captions_of_an_earlier_run_are_named(tmp_path, asking):
    curator(*asking, "--prompt", "short")
    (found,) = rows(tmp_path, "select distinct generator from generated")
    name = found["generator"]
    said = curator(*asking, "--prompt", "Say {caption} again.", "--caption-from", f"{name}x")
    assert said.code == 2
    assert f"did you mean '{name}'" in said.err
    said = curator(*asking, "--prompt", "Say {caption} again.", "--caption-from", name)
    assert said.code == 0
    entry = requests(tmp_path)[-1]
    assert entry["mime"], "the image is shown as well"
    assert entry["prompt"].startswith('Say "A picture of number ')


def test_samples_without_an_earlier_caption_are_left_out_and_counted(tmp_path, asking):
    curator(*asking, "--prompt", "short")
    (found,) = rows(tmp_path, "select distinct generator from generated")
    more = tars.tar(tars.sample("100", 100, caption="new here"))
    tars.write(tmp_path / "shards", more, name="00001")
    fuse = ["--prompt", "fuse", "--caption-from", found["generator"], "--max-quarantine", 1]
    said = curator(*asking, *fuse)
    assert f"1 of 4 samples have no caption by {found['generator']}" in said.err
    assert "captions made: 3" in said.out


def test_several_prompts_make_captions_of_each(tmp_path, asking):
    curator(*asking, "--prompt", "short", "--prompt", "detailed")
    counted = rows(tmp_path, "select generator, count(*) as n from generated group by generator")
    assert sorted(row["n"] for row in counted) == [NUM, NUM]
    chosen = rows(tmp_path, "select distinct source from captions")
    assert "short" in chosen[0]["source"], "the first prompt is preferred"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", "fuse"], "it is not said whose captions"),
        (["--caption-from", "x"], "no --prompt has it"),
        (["--text-only"], "no --prompt has it"),
        (["--forbid", "a", "--require", "A"], "both in --forbid and in --require"),
        (["--prompt", "short", "--prompt", "shrot"], "did you mean 'short'"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_read(
    tmp_path, asking, options, message
):
    said = curator(*asking, *options)
    assert said.code == 2
    assert message in said.err
    assert not (tmp_path / "shards" / ".curator").exists()


def test_a_captioner_without_these_options_says_which_has_them(tmp_path, asking):
    options = ["--captioner", "echo", "--prompt", "short", "--prompt", "fuse"]
    said = curator("recaption", asking[1], *options, "--text-only")
    assert said.code == 2
    assert "--captioner echo has no --text-only" in said.err
    assert "--captioner server" in said.err
    said = curator("recaption", asking[1], "--captioner", "echo", "--system", "Be kind.")
    assert "--captioner echo has no --system" in said.err


def test_examples_are_shown_before_each_request(tmp_path, asking):
    (tmp_path / "dog.png").write_bytes(tars.image_bytes(7))
    good = {"image": "dog.png", "alt_text": "Rex", "caption": "Rex, a dog."}
    file = tmp_path / "examples.jsonl"
    file.write_text(json.dumps(good) + "\n")
    assert curator(*asking, "--prompt", "grounded", "--examples", file).code == 0
    assert {json.dumps(entry["heads"]) for entry in requests(tmp_path) if "heads" in entry} == {
        '[["user", true], ["assistant", false]]'
    }
    assert len(rows(tmp_path, "select distinct text from generated")) == NUM, "not the example's"
    for line, message in (
        ('{"image": "dog.png"}', "has no 'caption'"),
        ('{"image": "cat.png", "caption": "a cat"}', "an image that cannot be read"),
        ('{"caption": "a cat", "imge": "x"}', "has 'imge'"),
        ("[]", "is not an object of strings"),
        ("", "has 0 lines"),
    ):
        file.write_text(line)
        said = curator(*asking, "--prompt", "grounded", "--examples", file)
        assert (said.code, message in said.err) == (2, True), said.err


def test_lost_names_are_asked_for_and_noted(tmp_path, asking):
    curator(*asking, "--keep-names")
    posts = [entry for entry in requests(tmp_path) if entry["method"] == "POST"]
    assert len(posts) == 2 * NUM, "no answer has the name, so each is asked for again"
    # In any order: the second request of one image does not wait for the first of another.
    assert sum('must contain: "Rex", "' in entry["prompt"] for entry in posts) == NUM
    notes = rows(tmp_path, "select detail from generated")
    assert all(str(row["detail"]).startswith("names lost: Rex") for row in notes)
