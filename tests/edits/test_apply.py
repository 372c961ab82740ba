"""A version from the edits: exact texts, conservation, one id, shared files, stale edits by name.

Over the small store of tests/kit/store.py; v2 (best) holds these texts:

    a0 two dogs running on a beach (generated)  a1 a man in a red hat     a2 a man riding a bike
    a3 a woman holding a cat                    a4 A plate with 3 apples  a5 a plane in the sky
    b0 Three kids with Anna in Paris (alt)      b1 a red car              b2 (damaged image)
    b3 a sign with the words "a & b"
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curator.core import hashing
from curator.core.errors import ConflictError, DamageError, NotFoundError, StoppedError, UsageError
from curator.core.stopping import StopRequest
from curator.edits import log as edit_log
from curator.edits.history import Draft, Edit, SampleRef
from curator.policy.decider import read_decision
from curator.steps.apply_edits import Applied, apply
from curator.steps.fsck import fsck
from curator.steps.gc import collect
from curator.steps.workspace import Workspace, open_workspace
from curator.store import index
from curator.store.versions import Version
from tests.kit import store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("apply") / "shards"
    store.small_store(folder)
    return folder


@pytest.fixture
def ws(made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(made, tmp_path / "shards")
    return open_workspace(str(tmp_path / "shards"), None)


ROWS = {
    row.key: (shard, number)
    for shard, rows in store.SHARDS.items()
    for number, row in enumerate(rows)
}


def sample(ws: Workspace, key: str) -> SampleRef:
    shard, row = ROWS[key]
    found = index.read(ws.store, shard, ["image_sha256"])["image_sha256"][row]
    return SampleRef(shard=shard, row=row, key=key, image_sha256=found)


def edit(ws: Workspace, key: str, old: str | None, new: str, seen: int | None = None) -> Edit:
    draft = Draft(sample=sample(ws, key), action="edit", base_text=old, new_text=new, seen=seen)
    return edit_log.add(ws.store, draft, who="Anna")


def judge(ws: Workspace, key: str, action: Any, text: str) -> Edit:
    draft = Draft(sample=sample(ws, key), action=action, base_text=text)
    return edit_log.add(ws.store, draft, who="Ben")


def run(ws: Workspace, base: int = 2) -> Applied:
    found = apply(ws.store, ws.store.version(base), who="Anna", stop=StopRequest())
    assert fsck(ws, deep=True).damage == []
    assert found.version.num_samples == 10
    return found


def texts(ws: Workspace, version: Version, key: str) -> list[dict[str, Any]]:
    shard, row = ROWS[key]
    entry = next(entry for entry in version.shards if entry.name == shard)
    return read_decision(ws.store, entry).filter(pl.col("row") == row).to_dicts()


def test_edited_rejected_accepted(ws: Workspace) -> None:
    edit(ws, "a0", "two dogs running on a beach", "two brown dogs on a beach")
    judge(ws, "a1", "reject", "a man in a red hat")
    judge(ws, "a2", "accept", "a man riding a bike")
    found = run(ws)
    assert (found.version.number, found.is_new, found.stale) == (5, True, [])
    assert (found.num_edited, found.num_rejected, found.num_accepted) == (1, 1, 1)
    [a0] = texts(ws, found.version, "a0")
    assert a0 | {"row": 0, "slot": 0} == {
        "row": 0, "key": "a0", "image_sha256": sample(ws, "a0").image_sha256,
        "action": "captioned", "slot": 0, "text": "two brown dogs on a beach",
        "text_sha256": hashing.text_sha256("two brown dogs on a beach"), "source": "human",
        "weight": 1.0, "score": None, "because": "edited by hand",
    }  # fmt: skip
    [a1] = texts(ws, found.version, "a1")
    assert (a1["action"], a1["text"], a1["source"], a1["weight"], a1["because"]) == (
        "dropped", None, None, None, "rejected by hand",
    )  # fmt: skip
    assert texts(ws, found.version, "a2") == texts(ws, ws.store.version(2), "a2")
    # best: captioned 6 (a0 a1 a3 a5 b1? b3) by the base; the reject moves one to dropped
    base = ws.store.version(2).counts
    assert found.version.counts == base | {
        "captioned": base["captioned"] - 1, "dropped": base["dropped"] + 1,
    }  # fmt: skip
    assert found.version.policy["name"] == "top+edits"
    assert found.version.policy["edits_on"] == ws.store.version(2).id
    assert found.version.parent == ws.store.version(4).id


def test_totals_are_those_of_the_new_texts(ws: Workspace) -> None:
    edit(ws, "a0", "two dogs running on a beach", "dogs")
    judge(ws, "b1", "reject", "a red car")
    base, new = ws.store.version(2).totals, run(ws).version.totals
    assert new["num_texts"] == base["num_texts"] - 1
    assert new["num_words"] == base["num_words"] - 5 - 3  # 6 words became 1, 3 are gone
    assert new["num_scored"] == base["num_scored"] - 2
    assert new["score_sum"] == pytest.approx(base["score_sum"] - 0.32 - 0.33, abs=1e-6)


def test_unchanged_shards_share_their_files(ws: Workspace) -> None:
    edit(ws, "a0", "two dogs running on a beach", "dogs")
    judge(ws, "b1", "accept", "a red car")
    base, new = ws.store.version(2), run(ws).version
    assert [entry.name for entry in new.shards] == ["00000", "00001"]
    assert new.shards[1] == base.shards[1]
    assert new.shards[0].file != base.shards[0].file
    assert new.shards[0].digest == base.shards[0].digest


def test_the_same_edits_on_the_same_base_are_the_same_version(
    ws: Workspace, made: Path, tmp_path: Path
) -> None:
    edit(ws, "a0", "two dogs running on a beach", "dogs")
    first = run(ws)
    again = run(ws)
    assert (again.is_new, again.version) == (False, first.version)
    shutil.copytree(made, tmp_path / "elsewhere")
    other = open_workspace(str(tmp_path / "elsewhere"), None)
    wrong = edit(other, "a1", "a man in a red hat", "a woman")  # another way to the same texts
    edit_log.undo(other.store, wrong.id, who="Cleo")
    edit(other, "a0", "two dogs running on a beach", "dogs")
    assert run(other).version.id == first.version.id


def test_edits_go_on_from_a_version_that_was_made_of_them(ws: Workspace) -> None:
    edit(ws, "a0", "two dogs running on a beach", "dogs")
    run(ws)
    with pytest.raises(UsageError, match="no edit changes a text of v5"):
        run(ws, base=5)
    edit(ws, "a0", "dogs", "cats")  # as a reader of v5 sees it
    found = run(ws, base=5)
    assert texts(ws, found.version, "a0")[0]["text"] == "cats"
    assert found.version.policy["name"] == "top+edits"
    assert texts(ws, run(ws, base=2).version, "a0")[0]["text"] == "cats"  # and through the chain


def test_stale_edits_are_named(ws: Workspace) -> None:
    stale = edit(ws, "a0", "Two dogs run on the beach near Brighton", "dogs")  # v1's text
    edit(ws, "a1", "a man in a red hat", "a woman")
    found = run(ws)
    assert (found.num_edited, found.stale) == (1, [stale])
    assert texts(ws, found.version, "a0")[0]["text"] == "two dogs running on a beach"
    assert texts(ws, run(ws, base=1).version, "a0")[0]["text"] == "dogs"


def test_only_stale_edits_make_no_version(ws: Workspace) -> None:
    with pytest.raises(UsageError, match="no text was edited or rejected") as none:
        run(ws)
    assert none.value.reason == "edits.none"
    edit(ws, "a0", "what no version says", "dogs")
    with pytest.raises(UsageError, match="1 are about other texts") as stale:
        run(ws)
    assert stale.value.reason == "edits.stale"
    assert ws.store.numbers() == [1, 2, 3, 4]


def test_an_edit_of_another_picture_is_stale(ws: Workspace) -> None:
    other = SampleRef(shard="00000", row=0, key="a0", image_sha256="f" * 64)
    draft = Draft(
        sample=other, action="edit", base_text="two dogs running on a beach", new_text="cats"
    )
    stale = edit_log.add(ws.store, draft, who="Anna")
    edit(ws, "a0", "two dogs running on a beach", "dogs")
    found = run(ws)
    assert found.stale == [stale]
    assert texts(ws, found.version, "a0")[0]["text"] == "dogs"


def test_a_shard_that_is_not_in_the_version(ws: Workspace) -> None:
    gone = SampleRef(shard="99999", row=0, key="z", image_sha256=None)
    draft = Draft(sample=gone, action="edit", base_text="x", new_text="y")
    stale = edit_log.add(ws.store, draft, who="Anna")
    edit(ws, "a0", "two dogs running on a beach", "dogs")
    assert run(ws).stale == [stale]


def test_a_sample_with_several_texts(ws: Workspace) -> None:
    """v3 (all): the alt text of a0 with weight .5 and the caption with .5."""
    alt, caption = "Two dogs run on the beach near Brighton", "two dogs running on a beach"
    judge(ws, "a0", "reject", caption)
    edit(ws, "b0", "Three kids with Anna in Paris", "Three kids")
    found = run(ws, base=3)
    [a0] = texts(ws, found.version, "a0")
    assert (a0["text"], a0["weight"], a0["slot"], a0["action"]) == (alt, 1.0, 0, "kept")
    b0 = texts(ws, found.version, "b0")
    assert [row["text"] for row in b0] == ["Three kids", "three children in front of a tower"]
    assert [row["weight"] for row in b0] == [0.5, 0.5]
    judge(ws, "a0", "reject", alt)
    [a0] = texts(ws, run(ws, base=3).version, "a0")
    assert (a0["action"], a0["text"]) == ("dropped", None)


def test_a_text_for_a_sample_that_had_none(ws: Workspace) -> None:
    """v1 (alt): a3 has no alt text and is dropped; b2 has no image and gets no text, ever."""
    edit(ws, "a3", None, "a woman with a cat")
    bad = edit(ws, "b2", None, "a cut image")
    found = run(ws, base=1)
    [a3] = texts(ws, found.version, "a3")
    assert (a3["action"], a3["text"], a3["weight"], a3["source"]) == (
        "captioned", "a woman with a cat", 1.0, "human",
    )  # fmt: skip
    assert found.stale == [bad]
    assert texts(ws, found.version, "b2") == texts(ws, ws.store.version(1), "b2")


def test_a_refusal_of_the_model_can_be_made_good_by_hand(ws: Workspace) -> None:
    version = store.Kit(ws).decide('name = "g"\nsources = ["generated"]\npick = "first"\n')
    [a4] = texts(ws, version, "a4")
    assert (a4["action"], a4["because"]) == ("quarantined", "vlm.refusal")
    edit(ws, "a4", None, "a plate of apples")
    found = run(ws, base=version.number)
    assert texts(ws, found.version, "a4")[0]["text"] == "a plate of apples"
    assert found.version.counts["quarantined"] == version.counts["quarantined"] - 1


def test_a_damaged_log_stops_it_and_fsck_names_it(ws: Workspace) -> None:
    edit(ws, "a0", "two dogs running on a beach", "dogs")
    run(ws)
    path = edit_log.log_path(ws.store, "00000")
    data = path.read_bytes()
    path.write_bytes(data[:40] + b"?" + data[41:])
    with pytest.raises(DamageError, match="the batch at byte 0 is damaged"):
        apply(ws.store, ws.store.version(2), who="Anna", stop=StopRequest())
    assert [finding.where for finding in fsck(ws).damage] == [str(path)]
    path.unlink()
    assert [f.what for f in fsck(ws).damage] == ["the file is missing, but its listing names it"]
    with pytest.raises(DamageError, match="the file is missing"):
        edit_log.history(ws.store, "00000")
    path.write_bytes(data + b"#00000001 ")
    report = fsck(ws)
    assert report.damage == []
    assert "10 bytes of an unfinished edit, never confirmed" in report.notices[0].what


def test_gc_keeps_edits_and_versions_made_of_them(ws: Workspace) -> None:
    edit(ws, "a0", "two dogs running on a beach", "dogs")
    found = run(ws)
    collect(ws.store, grace_days=0)
    assert fsck(ws, deep=True).damage == []
    assert texts(ws, found.version, "a0")[0]["text"] == "dogs"
    assert len(edit_log.history(ws.store, "00000").edits) == 1


def test_it_waits_for_no_collection_of_garbage(ws: Workspace) -> None:
    edit(ws, "a0", "two dogs running on a beach", "dogs")
    with ws.store.collecting(), pytest.raises(ConflictError):
        run(ws)
    assert run(ws).is_new


def test_a_stop_between_two_shards_commits_nothing(ws: Workspace) -> None:
    edit(ws, "a0", "two dogs running on a beach", "dogs")
    stop = StopRequest()
    stop.signum = 2
    with pytest.raises(StoppedError, match="nothing was committed; all edits are kept"):
        apply(ws.store, ws.store.version(2), who="Anna", stop=stop)
    assert ws.store.numbers() == [1, 2, 3, 4]
    assert run(ws).is_new


KEYS = st.sampled_from(["a0", "a1", "a2", "a3", "b0", "b1", "b2"])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(KEYS, st.sampled_from(["edit", "reject", "accept", "undo"]), st.text(max_size=8)),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([1, 2, 3]),
)
@pytest.mark.long
def test_any_edits_conserve_the_samples(
    made: Path,
    tmp_path_factory: pytest.TempPathFactory,
    acts: list[tuple[str, str, str]],
    base: int,
) -> None:
    folder = tmp_path_factory.mktemp("any") / "shards"
    shutil.copytree(made, folder)
    ws = open_workspace(str(folder), None)
    done: list[Edit] = []
    for key, action, new in acts:
        now = texts(ws, ws.store.version(base), key)[0]["text"]
        try:
            if action == "undo":
                edit_log.undo(ws.store, done.pop().id if done else "none#0", who="Anna")
            elif action == "edit":
                done.append(edit(ws, key, now, new))
            else:
                done.append(judge(ws, key, action, now))
        except (UsageError, NotFoundError, ConflictError):
            continue
    try:
        found = apply(ws.store, ws.store.version(base), who="Anna", stop=StopRequest())
    except UsageError:
        return
    assert fsck(ws, deep=True).damage == []
    for entry in found.version.shards:
        weights = (
            read_decision(ws.store, entry).drop_nulls("text").group_by("row").agg(pl.sum("weight"))
        )
        assert weights["weight"].to_list() == pytest.approx([1.0] * len(weights))
