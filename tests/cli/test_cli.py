"""Every verb as it is typed: what it says to people, to machines, and how it ends.

Over the small store of tests/kit/store.py: 10 samples, versions v1 (alt), v2 (best), v3 (all) and
v4 (strict). What the verbs do is tested beside their steps; here it is their surface.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import time
import tomllib
from pathlib import Path

import pytest

from curator.store import fsops
from curator.store.fsops import TEMP_PREFIX
from tests.kit import store, tars
from tests.kit.cli import curator, quarantine, recaption
from tests.kit.paths import ROOT


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "shards"
    store.small_store(folder)
    return folder


@pytest.fixture
def shards(made: Path, tmp_path: Path) -> Path:
    """A copy of the small store that a test may change."""
    return shutil.copytree(made, tmp_path / "shards")


# -- looking at versions ---------------------------------------------------------------------------


def test_log_lists_the_newest_first(made: Path) -> None:
    said = curator("log", made)
    header, *rows = said.out.splitlines()
    assert header.split()[:4] == ["version", "id", "created", "policy"]
    assert [row.split()[0] for row in rows] == ["v4", "v3", "v2", "v1"]
    assert [row.split()[3] for row in rows] == ["strict", "all", "top", "alt"]


def test_log_json(made: Path) -> None:
    newest = curator("log", made, "--json").json[0]
    assert (newest["version"], newest["policy"], newest["tags"]) == ("v4", "strict", "")
    # strict keeps the alt texts with a score of .27 or more: a0, a2, b0 and b1; b2 has no image
    actions = {name: newest[name] for name in ("captioned", "kept", "dropped", "quarantined")}
    assert actions == {"captioned": 0, "kept": 4, "dropped": 5, "quarantined": 1}
    assert newest["mean_score"] == pytest.approx((0.30 + 0.31 + 0.29 + 0.33) / 4)


def test_log_of_a_store_without_versions(tmp_path: Path) -> None:
    store.open_kit(tmp_path / "shards")
    assert "there is no version yet" in curator("log", tmp_path / "shards").out
    assert curator("log", tmp_path / "shards", "--json").json == []


def test_show(made: Path) -> None:
    said = curator("show", f"{made}@v2").out
    assert said.startswith("v2  ")
    assert "policy  top" in said
    assert f"maker   {store.SCORER}" in said
    assert "samples 10 in 2 shards" in said
    version = curator("show", f"{made}@2", "--json").json
    assert (version["number"], len(version["shards"])) == (2, 2)
    assert curator("show", f"{made}@{version['id'][:8]}", "--json").json == version
    assert curator("show", made, "--json").json["number"] == 4  # no @ is the newest


def test_a_version_that_is_not_there(made: Path) -> None:
    said = curator("show", f"{made}@v9", "--json")
    assert (said.code, said.exit_line["error"]) == (10, "version.unknown")
    assert "there is no version 'v9'" in said.err
    assert "allowed: all, alt, strict, top, v1, v2, v3, v4" in said.err


def test_tag_and_move_it(shards: Path) -> None:
    assert curator("tag", f"{shards}@v2", "good").out.startswith("good -> v2 (")
    assert curator("show", f"{shards}@good", "--json").json["number"] == 2
    assert curator("tag", shards, "good", "--json").json["version"] == 4
    assert curator("log", shards, "--json").json[0]["tags"] == "good"
    refused = curator("tag", shards, "v3", "--json")
    assert (refused.code, refused.exit_line["error"]) == (2, "tag.invalid")


@pytest.mark.long
def test_diff(made: Path, tmp_path: Path) -> None:
    pages = ("--html", tmp_path / "diff.html", "--changes", tmp_path / "changes.jsonl")
    said = curator("diff", f"{made}@v1", f"{made}@v2", *pages)
    assert said.code == 0, said.err
    assert "v1" in said.out
    assert (tmp_path / "diff.html").read_text().lstrip().startswith("<!")
    changes = [json.loads(line) for line in (tmp_path / "changes.jsonl").read_text().splitlines()]
    # a1 and a5: the generated caption scores higher than the alt text; a0, b3: likewise
    assert {change["key"] for change in changes} >= {"a0", "a1", "a5", "b3"}
    assert json.loads(curator("diff", f"{made}@v2", "--json").out)


def test_diff_as_a_gate(made: Path) -> None:
    gated = curator("diff", f"{made}@v1", f"{made}@v4", "--max-dropped", 0.0, "--json")
    assert (gated.code, gated.exit_line["code"]) == (5, 5)
    assert curator("diff", f"{made}@v1", f"{made}@v2", "--max-dropped", 1.0).code == 0
    first = curator("diff", f"{made}@v1", "--json")
    assert (first.code, first.exit_line["hint"]) == (2, "name two versions")


def test_query(made: Path) -> None:
    sql = "select action, count(*) as n from captions group by action order by action"
    said = curator("query", f"{made}@v1", sql)
    assert [line.split() for line in said.out.splitlines()] == [
        ["action", "n"], ["dropped", "1"], ["kept", "8"], ["quarantined", "1"],
    ]  # fmt: skip
    rows = curator("query", f"{made}@v1", sql, "--json").out.splitlines()
    assert json.loads(rows[1]) == {"action": "kept", "n": 8}
    cut = curator("query", made, "select * from samples", "--limit", 3, "--json")
    assert len(cut.out.splitlines()) == 3
    assert "only the first 3 rows are shown" in cut.err


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("copy (select 1) to 'x.csv'", "query.refused"),
        ("select * from captons", "query.invalid"),
        ("select 1; select 2", "query.refused"),
    ],
)
def test_query_says_no(made: Path, sql: str, reason: str) -> None:
    said = curator("query", made, sql, "--json")
    assert (said.code, said.exit_line["error"]) == (2, reason)
    assert "captions(" in said.exit_line["hint"], "the views with their columns"


# -- making versions -------------------------------------------------------------------------------


def test_index(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    store.write_shards(folder)
    said = curator("index", folder)
    assert (said.code, said.out) == (0, "9 of 10 samples are usable\n")
    assert "unusable: 1x image.truncated" in said.err
    again = curator("index", folder, "--json", "--workers", 2).json
    assert (again["num_scanned"], again["num_samples"], again["num_unusable"]) == (0, 10, 1)
    assert again["reasons"] == {"image.truncated": 1}


def test_recaption_and_again(tmp_path: Path) -> None:
    (tmp_path / "00000.tar").write_bytes(tars.tar(tars.samples(3)))
    command = ("recaption", tmp_path, "--captioner", "echo", "--policy", "replace")
    said = curator(*command)
    assert said.code == 0, said.err
    assert "captions made: 3" in said.out
    assert "committed v1 (" in said.out
    assert f"next: curator show {tmp_path}@v1\n" in said.out
    again = curator(*command)
    assert "all captions and scores existed already: no model was called" in again.out
    assert "nothing changed: the same decision is already v1 (" in again.out
    machine = curator(*command, "--json").json
    assert (machine["model_calls"], machine["new"], machine["version"]["number"]) == (0, False, 1)


def test_recaption_with_several_candidates(tmp_path: Path) -> None:
    (tmp_path / "00000.tar").write_bytes(tars.tar(tars.samples(3)))
    said = recaption(tmp_path, "--candidates", 3)
    assert said.json["captioned"]["made"] == 9


def test_decide(shards: Path) -> None:
    command = ("decide", shards, "--policy", "as-is", "--max-quarantine", 0.1)
    said = curator(*command, "--json")
    assert (said.code, said.json["new"], said.json["version"]["number"]) == (0, True, 5)
    assert curator(*command, "--json").json["new"] is False
    people = curator(*command).out
    assert "nothing changed: the same decision is already v5" in people


def test_decide_without_the_facts_it_needs(tmp_path: Path) -> None:
    store.write_shards(tmp_path)
    assert curator("index", tmp_path).code == 0
    said = curator("decide", tmp_path, "--policy", "best", "--json")
    assert said.code == 2
    assert "run `curator" in said.exit_line["hint"]


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    store.write_shards(tmp_path)
    for command in (("log",), ("decide", "--policy", "as-is"), ("fsck",), ("gc",)):
        said = curator(command[0], tmp_path, *command[1:], "--json")
        assert (said.code, said.exit_line["error"]) == (10, "store.none"), said.err
        assert "make one with `curator index SHARDS`" in said.err
    assert not (tmp_path / ".curator").exists()


def test_the_store_can_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "00000.tar").write_bytes(tars.tar(tars.samples(2)))
    assert recaption(tmp_path, "--store", tmp_path / "a").code == 0
    monkeypatch.setenv("CURATOR_STORE", str(tmp_path / "b"))
    assert recaption(tmp_path).code == 0
    assert curator("log", tmp_path, "--json").json[0]["version"] == "v1"
    assert (tmp_path / "a" / "versions").is_dir()
    assert (tmp_path / "b" / "versions").is_dir()
    assert not (tmp_path / ".curator").exists()


def test_policy() -> None:
    listed = curator("policy").out
    assert all(name in listed for name in ("best", "replace", "raw-if-good", "filter", "mix"))
    assert 'name = "best"' in curator("policy", "best").out
    said = curator("policy", "bst")
    assert said.code == 2
    assert "did you mean 'best'?" in said.err


def test_pack_and_export(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        (photos / f"{number}.jpg").write_bytes(tars.image_bytes(number))
        (photos / f"{number}.txt").write_text(f"photo {number}")
    packed = curator("pack", photos, tmp_path / "shards", "--json").json
    assert (packed["num_packed"], packed["num_shards"]) == (3, 1)
    assert recaption(tmp_path / "shards").code == 0
    said = curator("export", tmp_path / "shards", tmp_path / "out", "--json").json
    assert (said["num_samples"], said["num_captions"]) == (3, 3)
    with tarfile.open(tmp_path / "out" / "00000.tar") as archive:
        assert len([name for name in archive.getnames() if name.endswith(".jpg")]) == 3
    again = curator("export", tmp_path / "shards", tmp_path / "out")
    assert "(0 new)" in again.out


# -- upkeep ----------------------------------------------------------------------------------------


def test_fsck(made: Path) -> None:
    said = curator("fsck", made, "--deep")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith("4 versions, 8 decision files, 10 samples: 0 damaged\n")
    report = curator("fsck", made, "--json").json
    assert (report["num_versions"], report["num_samples"]) == (4, 10)


def test_fsck_names_the_damage(shards: Path) -> None:
    path = next((shards / ".curator" / "captions").rglob("*.parquet"))
    path.unlink()
    said = curator("fsck", shards)
    assert said.code == 12
    assert f"DAMAGE  {path}: the file is missing, but a version names it" in said.out
    assert "restore the files named above from a backup" in said.err


def test_gc(shards: Path) -> None:
    left = shards / ".curator" / "captions" / f"{TEMP_PREFIX}1-abcd"
    fsops.write_atomic(left, b"half a file")
    assert curator("gc", shards, "--dry-run").out == "0 files, 0 bytes could be removed\n"
    old = ("--grace-days", 0)
    dry = curator("gc", shards, *old, "--dry-run", "--json").json
    assert [(row["path"], row["size_bytes"]) for row in dry] == [(str(left), 11)]
    assert left.exists()
    assert curator("gc", shards, *old).out.endswith("1 files, 11 bytes removed\n")
    assert not left.exists()
    assert curator("fsck", shards, "--deep").code == 0


def test_gc_waits_for_a_decision(shards: Path) -> None:
    decide = ("decide", shards, "--policy", "as-is", "--max-quarantine", 0.1)
    with fsops.locked(shards / ".curator" / "decisions.lock", shared=True):
        said = curator("gc", shards, "--json")
        assert (said.code, said.exit_line["error"]) == (11, "lock.held")
        # decisions do not keep each other waiting
        assert curator(*decide).code == 0
    with fsops.locked(shards / ".curator" / "decisions.lock"):
        assert curator(*decide).code == 11
    assert curator("gc", shards).code == 0


def test_quarantine(shards: Path) -> None:
    assert curator("quarantine", "list", shards, "--json").json == {
        "image.truncated": 1,
        "vlm.refusal": 1,
    }
    listed = curator("quarantine", "list", shards).out
    assert "the model refused" in listed
    shown = curator("quarantine", "show", shards, "--reason", "vlm.refusal", "--json")
    row = json.loads(shown.out)
    assert (row["key"], row["maker"], row["attempts"]) == ("a4", store.GENERATOR, 1)
    assert row["detail"] == "it said no"
    retried = curator("quarantine", "retry", shards, "--reason", "vlm.refusal")
    assert retried.out.startswith("1 failures reopened; run the same recaption")
    assert curator("quarantine", "list", shards, "--json").json == {
        "image.truncated": 1,
        "retry.pending": 1,
    }
    assert curator("fsck", shards, "--deep").code == 0


def test_quarantine_retry_of_what_cannot_end_differently(shards: Path) -> None:
    said = curator("quarantine", "retry", shards, "--reason", "image.truncated", "--json")
    assert (said.code, said.exit_line["error"]) == (2, "quarantine.not_retryable")
    unknown = curator("quarantine", "show", shards, "--reason", "vlm.refuse")
    assert unknown.code == 2
    assert "did you mean 'vlm.refusal'?" in unknown.err


def test_quarantine_of_a_whole_dataset(tmp_path: Path) -> None:
    (tmp_path / "00000.tar").write_bytes(tars.tar(tars.samples(2)))
    recaption(tmp_path)
    assert curator("quarantine", "list", tmp_path).out == "the quarantine is empty\n"
    assert curator("quarantine", "show", tmp_path).out == "the quarantine is empty\n"


def test_doctor(tmp_path: Path) -> None:
    said = curator("doctor", tmp_path)
    rows = [line.split() for line in said.out.splitlines()]
    assert {"python", "torch", "pillow", "device", "disk"} <= {row[1] for row in rows[1:]}
    assert "exclusive creation works" in said.out
    checks = curator("doctor", tmp_path, "--json").json
    told = {check["name"]: check["text"] for check in checks}
    floors = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (floor,) = (line.partition(">=")[2] for line in floors if line.startswith("pyarrow"))
    assert told["pyarrow"].endswith(f"(at least {floor})")
    assert "does not use" not in said.out
    assert {check["status"] for check in checks} <= {"ok", "warn", "fail"}
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"


def test_doctor_fails_for_what_was_named_and_cannot_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {"models": "torch"}
    monkeypatch.setattr("curator.steps.doctor.first_missing", missing.get)
    assert curator("doctor", tmp_path, "--scorer", "text").code == 0
    said = curator("doctor", tmp_path, "--captioner", "local", "--scorer", "nothing")
    assert said.code == 20
    (line,) = said.err.splitlines()
    assert "captioner: local needs torch, which is not installed" in line
    assert "pip install 'caption-curator[models]'" in line
    assert "scorer: unknown scorer 'nothing'" in line, "all failures are named"


# -- how commands end ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lgo",), "No such command 'lgo'"),
        (("log",), "Missing argument 'DATASET'"),
        (("log", "x", "--jsn"), "No such option: --jsn"),
        (("gc", "x", "--grace-days", "soon"), "Invalid value for '--grace-days'"),
        (("quarantine", "retry", "x"), "Missing option '--reason'"),
        (("export", "x", "y", "--to", "zip"), "'zip'"),
    ],
)
def test_usage_errors(arguments: tuple[str, ...], said: str) -> None:
    done = curator(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: ")
    assert said in done.err
    assert "--help`" in done.err
    machine = curator(*arguments, "--json")
    assert (machine.exit_line["code"], machine.exit_line["error"]) == (2, "usage")


def test_an_error_is_one_line_for_people_and_one_for_machines(tmp_path: Path) -> None:
    people = curator("log", tmp_path / "nothing")
    assert (people.code, people.out, people.err.count("\n")) == (10, "", 1)
    said = f"error[input.none_found]: there is no folder 'nothing' in {tmp_path}; name a folder"
    assert people.err.startswith(said)
    machine = curator("log", tmp_path / "nothing", "--json")
    assert machine.err.startswith(people.err)
    assert set(machine.exit_line) == {"type", "code", "error", "what", "path", "did", "hint"}


def test_a_store_in_a_place_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "00000.tar").write_bytes(tars.tar(tars.samples(1)))
    (tmp_path / ".curator").write_text("in the way")
    said = recaption(tmp_path)
    assert (said.code, said.exit_line["error"]) == (20, "storage.not_a_folder")
    assert "use --store FOLDER" in said.err


def test_help_needs_no_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    said = curator("--help")
    assert curator("-h").out == said.out
    assert curator("edits", "undo", "-h").out == curator("edits", "undo", "--help").out != ""
    assert (said.code, said.err) == (0, "")
    assert "recaption" in said.out
    bare = curator()
    assert "Usage: curator" in bare.out + bare.err


def test_a_run_leaves_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    (tmp_path / "00000.tar").write_bytes(tars.tar(tars.samples(2)))
    began = time.time()
    recaption(tmp_path)
    (folder,) = (tmp_path / ".curator" / "runs").iterdir()
    run = json.loads((folder / "run.json").read_text())
    assert (run["verb"], run["status"]) == ("recaption", "done")
    assert began - 1 <= run["started"] <= run["ended"]
    events = [json.loads(line)["event"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {"index", "version"} <= set(events)


def test_a_run_says_what_it_put_into_quarantine(tmp_path: Path) -> None:
    members = [*tars.samples(2), ("000000009.jpg", b"no picture at all"), ("000000009.txt", b"x")]
    (tmp_path / "00000.tar").write_bytes(tars.tar(members))
    recaption(tmp_path)
    (folder,) = (tmp_path / ".curator" / "runs").iterdir()
    assert json.loads((folder / "run.json").read_text())["quarantined"] == quarantine(tmp_path)
    assert sum(quarantine(tmp_path).values()) == 1


def test_a_scorer_of_texts_says_how_many_it_checked_and_what_it_found(tmp_path: Path) -> None:
    files = [
        *tars.sample("a", 1, caption="a red car on a road"),
        *tars.sample("b", 2, caption="I'm sorry, but I can't describe this image."),
        *tars.sample("c", 3, caption="a dog on a beach"),
    ]
    (tmp_path / "00000.tar").write_bytes(tars.tar(files))
    lines = curator("score", tmp_path, "--scorer", "text").out.splitlines()
    assert lines[0] == "texts checked: 3"
    found = dict(line.rsplit(maxsplit=1) for line in lines[1:])
    assert found["flag"] == "alt_text"
    assert (found["no flag"], found["refusal"]) == ("2", "1")
    again = curator("score", tmp_path, "--scorer", "text")
    assert again.out.splitlines()[0] == "all texts were checked already"
    as_json = curator("score", tmp_path, "--scorer", "text", "--json").json
    assert as_json["flags"]["alt_text"]["refusal"] == 1
