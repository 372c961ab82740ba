"""A shard that is gone, and a version that is not there, are said wherever a version is shown."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from curator.core.errors import UsageError
from curator.steps.fsck import fsck
from curator.steps.workspace import open_workspace
from pretrain.data.opening import open_source
from tests.kit.cli import curator
from tests.kit.pages import opener, shown
from tests.kit.paths import ROOT
from tests.kit.store import Kit, small_store

SAID = "1 of 2 shards of v1 are not in the dataset {}, first '00001'"


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    """Two versions of two shards, and the second shard is removed."""
    kit = small_store(tmp_path / "shards", ["alt", "best"])
    (tmp_path / "shards" / "00001.tar").unlink()
    return kit


def spec(kit: Kit, version: str = "") -> str:
    return f"{kit.ws.spec}{version}"


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        (["show"], []),
        (["diff"], ["{}@v2"]),
        (["query"], ["select count(*) from captions"]),
        (["query"], ["SELECT count(*) FROM all_Captions"]),
        (["tag"], ["mine"]),
        (["edits", "replace"], ["dog", "cat"]),
        (["edits", "replace"], ["dog", "cat", "--yes", "--who", "me"]),
    ],
)
def test_commands_about_a_version_say_what_is_gone(
    kit: Kit, verb: list[str], more: list[str]
) -> None:
    done = curator(*verb, spec(kit, "@v1"), *(word.format(kit.ws.spec) for word in more))
    assert done.code == 0, done.err
    assert SAID.format(kit.ws.spec) in done.err


def test_log_and_fsck_say_it_of_every_version(kit: Kit) -> None:
    done = curator("log", spec(kit))
    for name in ("v1", "v2"):
        assert SAID.format(kit.ws.spec).replace("v1", name) in done.err
    assert curator("log", spec(kit), "--json").code == 0
    for deep in ([], ["--deep"]):
        found = curator("fsck", spec(kit), *deep)
        assert found.code == 0, "nothing that the store holds is damaged"
        for name in ("v1", "v2"):
            assert SAID.format(kit.ws.spec).replace("v1", name) in found.out


def test_what_needs_the_pictures_refuses(kit: Kit, tmp_path: Path) -> None:
    done = curator("export", spec(kit, "@v1"), tmp_path / "out")
    assert (done.code, "error[shard.unknown]" in done.err) == (2, True)
    assert "1 of 2 shards of v1" in done.err
    with pytest.raises(UsageError) as caught:
        open_source(spec(kit, "@v1"))
    assert caught.value.reason == "shard.unknown"


def test_applying_edits_says_it(kit: Kit) -> None:
    assert (
        curator("edits", "replace", spec(kit, "@v1"), "bike", "car", "--yes", "--who", "me").code
        == 0
    )
    done = curator("edits", "apply", spec(kit, "@v1"), "--who", "me")
    assert done.code == 0, done.err
    assert SAID.format(kit.ws.spec) in done.err


def test_a_new_version_of_fewer_shards_says_it(kit: Kit) -> None:
    done = curator("decide", spec(kit), "--policy", "as-is")
    assert done.code == 0, done.err
    said = SAID.format(kit.ws.spec).replace("v1", "v2")
    assert f"note: {said}: their samples are not in the new version" in done.err


def test_index_says_it_of_the_newest_version(kit: Kit) -> None:
    done = curator("index", spec(kit))
    assert done.code == 0, done.err
    assert f"note: {SAID.format(kit.ws.spec).replace('v1', 'v2')}" in done.err


@pytest.mark.long
def test_nothing_is_said_when_all_are_there(tmp_path: Path) -> None:
    kit = small_store(tmp_path / "shards", ["alt", "best"])
    for command in (["show"], ["log"], ["diff"], ["fsck"], ["decide", "--policy", "as-is"]):
        done = curator(command[0], spec(kit), *command[1:])
        assert "not in the dataset" not in done.out + done.err
    assert "not in the dataset" not in curator("query", spec(kit), "select 1").err


def test_a_part_of_the_dataset_is_named_as_such(tmp_path: Path) -> None:
    kit = small_store(tmp_path / "shards", ["alt"])
    part = f"{kit.ws.spec}/0000{{0..0}}.tar"
    done = curator("query", f"{part}@v1", "select count(*) as n from captions", "--json")
    assert done.json == {"n": 6}
    assert f"are not in the dataset {part}, first '00001'" in done.err


def test_a_shard_that_braces_name_and_that_is_gone(kit: Kit) -> None:
    ws = open_workspace(f"{kit.ws.spec}/0000{{0..1}}.tar", None)
    assert ws.missing(kit.versions["alt"]) == ["00001"]
    assert any("'00001'" in notice.what for notice in fsck(ws).notices)


def test_the_dashboard_says_it(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    with opener(monkeypatch, "overview") as open_page:
        app = open_page(kit, v="v1")
        assert "1 of 2 shards of v1 are not in the dataset" in shown(app)


def test_the_dashboard_does_not_swallow_a_version(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opener(monkeypatch, "overview") as open_page:
        assert "there is no version &#x27;v99&#x27;; showing v2" in shown(open_page(kit, v="v99"))


# -- a version that is not there ------------------------------------------------------------------

WHOLE = (
    ["index"], ["score", "--scorer", "text"], ["decide", "--policy", "as-is"],
    ["recaption", "--captioner", "echo", "--policy", "replace"], ["log"], ["fsck"], ["gc"],
    ["gc", "--dry-run"], ["quarantine", "list"], ["quarantine", "show"],
    ["quarantine", "retry", "--reason", "vlm.refusal"], ["edits", "list"],
    ["edits", "undo", "00000#0"], ["ui", "--port", "0"],
)  # fmt: skip


@pytest.mark.parametrize("version", ["v1", "v99", "no-such-tag", ""])
@pytest.mark.long
def test_commands_about_the_whole_dataset_refuse_a_version(tmp_path: Path, version: str) -> None:
    kit = small_store(tmp_path / "shards", ["alt"])
    before = sorted(tmp_path.rglob("*"))
    for command in WHOLE:
        words = 2 if command[0] in ("quarantine", "edits") else 1
        done = curator(*command[:words], spec(kit, f"@{version}"), *command[words:])
        assert (done.code, "error[version.not_taken]" in done.err) == (2, True), (command, done)
    assert sorted(tmp_path.rglob("*")) == before, "refused before anything is written"


@pytest.mark.parametrize("version", ["v99", "no-such-tag", ""])
@pytest.mark.long
def test_commands_about_a_version_refuse_one_that_is_not_there(
    tmp_path: Path, version: str
) -> None:
    kit = small_store(tmp_path / "shards", ["alt", "best"])
    named = spec(kit, f"@{version}")
    for command in (
        ["show", named],
        ["diff", named],
        ["diff", spec(kit, "@v1"), named],
        ["diff", named, spec(kit, "@v1")],
        ["query", named, "select 1"],
        ["tag", named, "x"],
        ["export", named, str(tmp_path / "out")],
        ["edits", "apply", named],
        ["edits", "replace", named, "a", "b"],
        ["report", named, spec(kit, "@v1")],
        ["pretrain", named, "--out", str(tmp_path / "run")],
        ["pretrain", spec(kit), "--reference", named, "--out", str(tmp_path / "run")],
    ):
        done = curator(*command)
        assert done.code in (2, 10), (command, done)
    assert not (tmp_path / "out").exists()
    assert kit.ws.store.tags() == {}


def test_two_versions_of_two_datasets_are_not_compared(tmp_path: Path) -> None:
    one = small_store(tmp_path / "one", ["alt", "best"])
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    done = curator("diff", spec(one, "@v1"), f"{tmp_path}/two@v2")
    assert (done.code, "have different stores" in done.err) == (2, True)


def test_the_name_of_a_policy_is_its_newest_version(tmp_path: Path) -> None:
    kit = small_store(tmp_path / "shards", ["best", "alt"])
    kit.decide('name = "top"\nsources = ["generated"]\npick = "best"\n')
    kit.decide("all")
    store = kit.ws.store
    assert [store.resolve(name).number for name in ("alt", "top", "all")] == [2, 3, 4]
    store.tag("alt", store.version(4))
    assert store.resolve("alt").number == 4, "a tag comes first"
    done = curator("show", spec(kit, "@nobody"))
    assert done.code == 10
    assert "allowed: all, alt, top, v1, v2, v3, v4" in done.err


def test_the_example_of_docs_study_names_versions_that_its_commands_make(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "reference" / "study.md").read_text()
    specs = re.findall(r'^data = "shards@(\S+)"', text, re.MULTILINE)
    assert set(specs) == {"as-is", "best"}
    kit = small_store(tmp_path / "shards", [])
    more = ["--policy", "as-is", "--max-quarantine", 1]
    assert curator("decide", kit.ws.spec, *more).code == 0
    assert curator("score", kit.ws.spec, "--scorer", "text").code == 0
    more = ["--policy", "best", "--max-quarantine", 1]
    assert curator("decide", kit.ws.spec, *more).code == 0
    for policy in specs:
        found = curator("show", f"{kit.ws.spec}@{policy}", "--json").json
        assert found["policy"]["name"] == policy
