"""Scores of edited texts: `score` sees what people wrote, `edits apply` puts in what is known.

Over the small store of tests/kit/store.py, on v2 (best). The scorer of its facts is stood in for by
one that gives a tenth a word, and notes what it was asked.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import polars as pl
import pytest

from curator.browse.catalog import Catalog
from curator.browse.filters import Filter
from curator.compare import diff as compare
from curator.core import hashing
from curator.core.errors import DamageError
from curator.core.registry import Registry
from curator.core.run_options import RunOptions
from curator.core.stopping import StopRequest
from curator.edits import log as edit_log
from curator.edits.history import Action, Draft, Edit, SampleRef
from curator.engine import worker
from curator.engine.facts_loop import Tally
from curator.engine.makers import Maker, captioner_maker, checker_maker
from curator.policy.decider import read_decision
from curator.policy.model import parse_policy
from curator.scorers import SCORERS as TABLE
from curator.scorers import Score, ScorerSpec
from curator.steps.apply_edits import Applied, apply, how_to_score
from curator.steps.fsck import fsck
from curator.steps.recaption import Recaption, recaption
from curator.steps.score import score, score_all, summarize
from curator.steps.workspace import Workspace, open_workspace
from curator.store import index
from curator.store.facts import SCORES, Facts
from curator.store.versions import Version
from tests.kit import store
from tests.kit.cli import curator

KNOWN = {
    "clip": ScorerSpec(f"{__name__}:WordScorer", in_process=True),
    "text": TABLE.spec("text"),
}
MAKER = Maker(
    name=store.SCORER, row="clip", spec=KNOWN["clip"], recipe=store.SCORER_RECIPE, options={}
)
ROWS = {
    row.key: (shard, number)
    for shard, rows in store.SHARDS.items()
    for number, row in enumerate(rows)
}
DOGS, HAT, BIKE = "two dogs running on a beach", "a man in a red hat", "a man riding a bike"


class WordScorer:
    """A tenth for each word."""

    asked: ClassVar[list[tuple[bytes, str]]] = []

    def score(self, pairs: Sequence[tuple[bytes, str]]) -> list[Score]:
        self.asked.extend(pairs)
        return [Score(score=len(text.split()) / 10) for _, text in pairs]


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[bytes, str]]]:
    """What the scorer was asked."""
    monkeypatch.setattr(worker, "SCORERS", Registry("scorer", KNOWN))
    WordScorer.asked.clear()
    yield WordScorer.asked
    WordScorer.asked.clear()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scores") / "shards"
    store.small_store(folder, ("alt", "best"))
    return folder


@pytest.fixture
def ws(made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(made, tmp_path / "shards")
    return open_workspace(str(tmp_path / "shards"), None)


def sample(ws: Workspace, key: str) -> SampleRef:
    shard, row = ROWS[key]
    found = index.read(ws.store, shard, ["image_sha256"])["image_sha256"][row]
    return SampleRef(shard=shard, row=row, key=key, image_sha256=found)


def record(
    ws: Workspace,
    key: str,
    action: Action,
    old: str | None,
    new: str | None = None,
    seen: int | None = None,
) -> Edit:
    draft = Draft(sample=sample(ws, key), action=action, base_text=old, new_text=new, seen=seen)
    return edit_log.add(ws.store, draft, who="Anna")


def edit(ws: Workspace, key: str, old: str | None, new: str, seen: int | None = None) -> Edit:
    return record(ws, key, "edit", old, new, seen)


def run_score(ws: Workspace) -> Tally:
    return score(ws, MAKER, stop=StopRequest())


def run_apply(ws: Workspace, base: int = 2) -> Applied:
    found = apply(ws.store, ws.store.version(base), who="Anna", stop=StopRequest())
    assert fsck(ws, deep=True).damage == []
    return found


def scores(ws: Workspace, version: Version) -> dict[str, float | None]:
    """The scores of the texts that people wrote, by key."""
    frames = [read_decision(ws.store, entry) for entry in version.shards]
    rows = pl.concat(frames).filter(pl.col("source") == "human").select("key", "score")
    return {key: None if value is None else round(value, 6) for key, value in rows.iter_rows()}


# -- score -----------------------------------------------------------------------------------------


def test_what_people_wrote_is_scored_once(ws: Workspace, asked: list[tuple[bytes, str]]) -> None:
    edit(ws, "a0", DOGS, "dogs")
    one = edit(ws, "a1", HAT, "a man")
    edit(ws, "a1", "a man", "a tall man", one.number)  # only the end of the chain is of use
    taken_back = edit(ws, "a2", BIKE, "a bike")
    edit_log.undo(ws.store, taken_back.id, who="Ben")
    out = edit(ws, "a5", "a plane in the sky", "a bird")
    record(ws, "a5", "reject", "a bird", seen=out.number)
    record(ws, "b1", "accept", "a red car")  # a text of a model
    kept = edit(ws, "b3", 'a sign with the words "a & b"', "a road sign")
    record(ws, "b3", "accept", "a road sign", seen=kept.number)
    tally = run_score(ws)
    assert asked == [
        (store.image("a0"), "dogs"),
        (store.image("a1"), "a tall man"),
        (store.image("b3"), "a road sign"),
    ]
    assert (tally.made, tally.failures) == (3, {})
    assert run_score(ws).made == 0
    assert len(asked) == 3, "a second run asks no model"
    [human] = [found for found in summarize(ws, store.SCORER, ()) if found.source == "human"]
    assert (human.num_texts, human.mean) == (3, pytest.approx((0.1 + 0.3 + 0.3) / 3))


def test_a_text_of_no_usable_picture_is_not_scored(
    ws: Workspace, asked: list[tuple[bytes, str]]
) -> None:
    edit(ws, "b2", None, "a cut image")  # the image is damaged
    gone = replace(sample(ws, "a0"), image_sha256="f" * 64)  # another picture lay there once
    draft = Draft(sample=gone, action="edit", base_text=DOGS, new_text="dogs")
    edit_log.add(ws.store, draft, who="Anna")
    assert run_score(ws).made == 0
    assert asked == []


def test_the_health_of_edited_texts_is_checked_as_well(ws: Workspace) -> None:
    edit(ws, "a0", DOGS, "dogs dogs dogs dogs dogs dogs")
    score_all(ws, [checker_maker("en")], stop=StopRequest())
    pair = pl.DataFrame(
        {
            "image_sha256": [""],
            "text_sha256": [hashing.text_sha256("dogs dogs dogs dogs dogs dogs")],
        }
    )
    facts = Facts(ws.store, SCORES, checker_maker("en").name)
    assert len(facts.read(pair)) == 1


def test_recaption_scores_edited_texts(ws: Workspace, asked: list[tuple[bytes, str]]) -> None:
    edit(ws, "a0", DOGS, "dogs")
    wanted = Recaption(
        captioners=(captioner_maker("echo"),),
        scorer=MAKER,
        checker=checker_maker("en"),
        policy=parse_policy(store.POLICIES["best"], where="test"),
    )
    run_options = RunOptions(max_quarantine=1.0)
    report = recaption(ws, wanted, run_options, stop=StopRequest())
    assert asked.count((store.image("a0"), "dogs")) == 1
    assert "human" in {found.source for found in report.scores}
    assert recaption(ws, wanted, run_options, stop=StopRequest()).num_calls == 0


def test_a_damaged_log_stops_the_scoring_by_name(ws: Workspace) -> None:
    edit(ws, "a0", DOGS, "dogs")
    path = edit_log.log_path(ws.store, "00000")
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with pytest.raises(DamageError, match="the batch at byte 0 is damaged"):
        run_score(ws)


# -- apply -----------------------------------------------------------------------------------------


def test_scores_go_into_the_version_once_they_are_there(ws: Workspace) -> None:
    edit(ws, "a0", DOGS, "dogs")
    edit(ws, "a2", BIKE, "a red bike")
    before = run_apply(ws)
    assert (before.num_edited, before.num_unscored) == (2, 2)
    assert scores(ws, before.version) == {"a0": None, "a2": None}
    run_score(ws)
    after = run_apply(ws)
    assert (after.is_new, after.num_edited, after.num_unscored) == (True, 2, 0)
    assert scores(ws, after.version) == {"a0": 0.1, "a2": 0.3}
    base, totals = ws.store.version(2).totals, after.version.totals
    assert before.version.totals["num_scored"] == base["num_scored"] - 2
    assert totals["num_scored"] == base["num_scored"]
    # the base has .32 for a0 and .31 for a2
    assert totals["score_sum"] == pytest.approx(base["score_sum"] - 0.32 - 0.31 + 0.1 + 0.3)
    again = run_apply(ws)
    assert (again.is_new, again.version) == (False, after.version)


def test_the_same_edits_and_scores_are_the_same_version(
    ws: Workspace, made: Path, tmp_path: Path
) -> None:
    shutil.copytree(made, tmp_path / "elsewhere")
    other = open_workspace(str(tmp_path / "elsewhere"), None)
    ids = []
    for one in (ws, other):
        edit(one, "a0", DOGS, "dogs")
        run_score(one)
        ids.append(run_apply(one).version.id)
    assert ids[0] == ids[1]


def test_a_version_made_of_edits_gets_its_scores_too(ws: Workspace) -> None:
    edit(ws, "a0", DOGS, "dogs")
    first = run_apply(ws).version
    run_score(ws)
    found = run_apply(ws, base=first.number)
    assert (found.is_new, found.num_edited, found.num_unscored) == (True, 0, 0)
    assert scores(ws, found.version) == {"a0": 0.1}
    assert found.version.policy["edits_on"] == first.id


def test_a_text_that_was_scored_before_has_its_score_at_once(ws: Workspace) -> None:
    edit(ws, "a2", BIKE, "a man on a bicycle")  # a model wrote it, and it has .29
    found = run_apply(ws)
    assert (found.num_unscored, scores(ws, found.version)) == (0, {"a2": 0.29})


def test_what_cannot_be_scored_is_not_asked_for_again(ws: Workspace) -> None:
    edit(ws, "a0", DOGS, "dogs")
    failed = store.score_fact(store.image("a0"), "dogs", None)
    store.add_facts(Facts(ws.store, SCORES, store.SCORER), "00000", [failed])
    found = run_apply(ws)
    assert (found.num_unscored, scores(ws, found.version)) == (0, {"a0": None})


def test_a_text_taken_back_that_the_base_still_holds_is_not_asked_for(ws: Workspace) -> None:
    """`score` would not score it, so it must not be said that it does."""
    wrong = edit(ws, "a0", DOGS, "dogs")
    first = run_apply(ws).version
    edit_log.undo(ws.store, wrong.id, who="Anna")
    edit(ws, "a2", BIKE, "a red bike")
    found = run_apply(ws, base=first.number)
    assert scores(ws, found.version) == {"a0": None, "a2": None}
    assert found.num_unscored == 1
    run_score(ws)
    assert run_apply(ws, base=first.number).num_unscored == 0


def test_where_no_text_has_a_score_none_is_missing(ws: Workspace) -> None:
    edit(ws, "a0", DOGS, "dogs")
    run_score(ws)
    base = ws.store.version(2)
    policy = {**base.policy, "scores_by": None}
    found = apply(ws.store, replace(base, policy=policy), who="Anna", stop=StopRequest())
    assert (found.num_unscored, scores(ws, found.version)) == (0, {"a0": None})


def test_filters_and_comparisons_see_the_scores(ws: Workspace) -> None:
    edit(ws, "a0", DOGS, "dogs")
    run_score(ws)
    version = run_apply(ws).version
    catalog = Catalog(ws.store, version)
    page = catalog.page(Filter(score_max=0.15), "score")
    assert page.rows["key"].to_list() == ["a0"]
    [change] = compare.changes(ws.store, ws.store.version(2), version)
    assert (change.key, change.gain) == ("a0", pytest.approx(0.1 - 0.32))


# -- what is said ----------------------------------------------------------------------------------


def test_the_commands_that_help(ws: Workspace) -> None:
    base = ws.store.version(2)
    assert how_to_score(base, "my shards", Path("/store")) == (
        "curator score 'my shards' --scorer PATH/tiny-clip --store /store",
        "curator edits apply 'my shards@v2' --store /store",
    )
    recipe = {**store.SCORER_RECIPE, "model": "org/name", "revision": "0" * 40, "dtype": "bf16"}
    hub = replace(base, makers={store.SCORER: recipe})
    assert how_to_score(hub, "shards/") == (
        "curator score shards/ --scorer org/name --dtype bf16",
        "curator edits apply shards/@v2",
    )


@pytest.mark.long
def test_edits_apply_says_what_is_missing(ws: Workspace) -> None:
    edit(ws, "a0", DOGS, "dogs")
    said = curator("edits", "apply", f"{ws.spec}@v2", "--who", "Anna")
    score_it, apply_it = how_to_score(ws.store.version(2), ws.spec)
    assert (
        "1 edited texts have no score yet; to score them and commit again:\n"
        f"  {score_it}\n  {apply_it}\n"
    ) in said.out
    assert curator("edits", "apply", f"{ws.spec}@v2", "--json").json["unscored"] == 1
    run_score(ws)
    assert "no score" not in curator("edits", "apply", f"{ws.spec}@v2").out
