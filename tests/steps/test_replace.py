"""Find and replace, and the commands of `curator edits`, over v2 (best) of the small store."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.core.errors import UsageError
from curator.core.stopping import StopRequest
from curator.edits import log as edit_log
from curator.edits.history import Draft, SampleRef
from curator.policy.decider import read_decision
from curator.steps.replace import Replacement, preview, replace_all, whole_shards
from curator.steps.workspace import Workspace, open_workspace
from tests.kit import store
from tests.kit.cli import check_whole, curator


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replace") / "shards"
    store.small_store(folder)
    return folder


@pytest.fixture
def shards(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "shards"))


@pytest.fixture
def ws(shards: Path) -> Workspace:
    return open_workspace(str(shards), None)


def changes(ws: Workspace, asked: Replacement) -> dict[str, str | None]:
    found = preview(ws.store, ws.store.version(2), asked)
    assert found.num_searched == 9
    assert found.num_texts == len(found.examples)
    return {draft.sample.key: draft.new_text for draft in found.examples}


def edit(ws: Workspace, key: str, row: int, old: str, new: str | None) -> None:
    entry = ws.store.version(2).shards[0]
    image = read_decision(ws.store, entry).filter(pl.col("row") == row)["image_sha256"][0]
    sample = SampleRef(shard="00000", row=row, key=key, image_sha256=image)
    action = "edit" if new else "reject"
    draft = Draft(sample=sample, action=action, base_text=old, new_text=new)  # type: ignore[arg-type]  # one of the two
    edit_log.add(ws.store, draft, who="Anna")


def expression(find: str, put: str) -> Replacement:
    return Replacement(find=find, put=put, is_regex=True)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (
            Replacement(find="a man", put="someone"),
            {"a1": "someone in a red hat", "a2": "someone riding a bike"},
        ),
        (
            Replacement(find="A", put="The"),
            {"a4": "The plate with 3 apples", "b0": "Three kids with Thenna in Paris"},
        ),
        (
            expression(r"^a (\w+) in", "one $1 within"),
            {"a1": "one man within a red hat", "a5": "one plane within the sky"},
        ),
        (expression(r"(?P<n>\d)", "${n}0"), {"a4": "A plate with 30 apples"}),
        (
            Replacement(find="PARIS", put="Rome", ignore_case=True),
            {"b0": "Three kids with Anna in Rome"},
        ),
        (
            Replacement(find=" & ", put=" $1 & $$ "),  # no groups outside of expressions
            {"b3": 'a sign with the words "a $1 & $$ b"'},
        ),
        (Replacement(find=".", put="x"), {}),
    ],
)
def test_what_a_replacement_changes(
    ws: Workspace, asked: Replacement, expected: dict[str, str]
) -> None:
    assert changes(ws, asked) == expected
    assert edit_log.edited_shards(ws.store) == [], "a preview writes nothing"


def test_a_text_that_would_be_empty_stays_and_is_counted(ws: Workspace) -> None:
    found = preview(ws.store, ws.store.version(2), Replacement(find="a red car", put=""))
    assert (found.num_texts, found.num_refused) == (0, 1)


def test_it_works_on_the_texts_as_reviewers_left_them(ws: Workspace) -> None:
    edit(ws, "a1", 1, "a man in a red hat", "a woman in a red hat")
    edit(ws, "a5", 5, "a plane in the sky", None)  # rejected
    assert changes_of(ws, "red") == {"a1": "a woman in a blue hat", "b1": "a blue car"}
    assert changes_of(ws, "plane") == {}
    done = replace_all(
        ws.store, ws.store.version(2), Replacement(find="red", put="blue"), who="Ben",
        stop=StopRequest(),
    )  # fmt: skip
    assert (done.num_edited, done.refused) == (2, [])
    made = [edit for edit in edit_log.everything(ws.store) if edit.batch == done.batch]
    assert {(edit.key, edit.base_text, edit.who) for edit in made} == {
        ("a1", "a woman in a red hat", "Ben"), ("b1", "a red car", "Ben"),
    }  # fmt: skip
    with pytest.raises(UsageError, match="'red' changes no text of v2"):
        replace_all(
            ws.store, ws.store.version(2), Replacement(find="red", put="blue"), who="Ben",
            stop=StopRequest(),
        )  # fmt: skip
    assert len(edit_log.undo_batch(ws.store, done.batch, who="Ben")[0]) == 2
    assert changes_of(ws, "red") == {"a1": "a woman in a blue hat", "b1": "a blue car"}


def changes_of(ws: Workspace, word: str) -> dict[str, str]:
    found = preview(ws.store, ws.store.version(2), Replacement(find=word, put="blue"))
    return {draft.sample.key: draft.new_text or "" for draft in found.examples}


def test_it_goes_no_further_than_it_is_told(ws: Workspace) -> None:
    """v3 (all): the alt text of a0 in slot 0, the caption of a model in slot 1; b0 likewise."""
    version, dogs = ws.store.version(3), Replacement(find="o", put="0")
    slots = pl.DataFrame({"row": [0, 2], "slot": [1, 0]}, {"row": pl.Int32, "slot": pl.Int16})
    where = {"00000": slots}
    found = preview(ws.store, version, dogs, where=where)
    assert (found.num_samples, found.num_searched, found.num_texts) == (2, 2, 1)
    assert [draft.new_text for draft in found.examples] == ["tw0 d0gs running 0n a beach"]
    everywhere = preview(ws.store, version, dogs)
    # 9 usable samples; a3 has no alt text, a4 no caption, and both of b1 are one text
    assert (everywhere.num_samples, everywhere.num_searched) == (9, 2 * 9 - 3)
    done = replace_all(ws.store, version, dogs, who="Ben", stop=StopRequest(), where=where)
    assert done.num_edited == 1
    assert [made.new_text for made in edit_log.everything(ws.store)] == [
        "tw0 d0gs running 0n a beach"
    ]
    with pytest.raises(UsageError, match="'dogs' changes no text of v3 among the 0 searched"):
        replace_all(
            ws.store, version, Replacement(find="dogs", put="cats"), who="Ben",
            stop=StopRequest(), where={},
        )  # fmt: skip


def test_shards_by_name_or_pattern(ws: Workspace) -> None:
    version, both = ws.store.version(2), ["00000", "00001"]
    assert list(whole_shards(version, among=both)) == both
    assert list(whole_shards(version, ["00001"], among=both)) == ["00001"]
    assert list(whole_shards(version, ["*1", "0*0", "00001"], among=both)) == both
    assert list(whole_shards(version, ["0000[1-9]"], among=both)) == ["00001"]
    with pytest.raises(
        UsageError, match="no shard of v2 in this dataset matches '0001'"
    ) as unknown:
        whole_shards(version, ["00001", "0001"], among=both)
    assert unknown.value.hint == "its 2 shards: 00000, 00001"
    with pytest.raises(UsageError, match="matches '00001'"):
        whole_shards(version, ["00001"], among=["00000"])


@pytest.mark.parametrize(
    ("find", "what"),
    [
        ("(", "unclosed group"),
        (r"(a)\1", "backreferences are not supported"),
        ("(?=a)", "look-around"),
        (r"(\w{100}){100}", "exceeds size limit"),
        ("x" * 1001, "find has 1,001 characters"),
        ("", "find has 0 characters"),
    ],
)
def test_an_expression_that_cannot_be_used_is_named(find: str, what: str) -> None:
    with pytest.raises(UsageError) as error:
        Replacement(find=find, put="", is_regex=True)
    assert what in str(error.value)


@pytest.mark.parametrize("find", [r"(a*)*b", r"(\w+\s*)+$", r"(x+x+)+y", r"(?:.{0,60}){60}"])
def test_patterns_that_hang_backtracking_engines_are_fast(find: str) -> None:
    texts = pl.Series(["x" * 2000, "a photo of " * 100] * 20)
    assert len(Replacement(find=find, put="-", is_regex=True).replaced(texts)) == 40


def test_finding_has_a_time_limit_and_writes_nothing_then(ws: Workspace) -> None:
    with pytest.raises(UsageError, match="took longer than 0 s; nothing was changed"):
        replace_all(
            ws.store, ws.store.version(2), Replacement(find="a", put="b"), who="Ben",
            stop=StopRequest(), timeout_sec=0.0,
        )  # fmt: skip
    assert edit_log.edited_shards(ws.store) == []


@given(st.text(min_size=1, max_size=8), st.text(max_size=8), st.text(max_size=40))
def test_literally_means_literally(find: str, put: str, text: str) -> None:
    asked = Replacement(find=find, put=put)
    assert asked.replaced(pl.Series([text])).to_list() == [text.replace(find, put)]


# -- the commands ----------------------------------------------------------------------------------


def test_replace_list_apply_undo_as_they_are_typed(shards: Path) -> None:
    assert curator("edits", "list", shards).out == "there are no edits yet\n"
    shown = curator("edits", "replace", f"{shards}@v2", "a man", "someone").out
    assert "  - a man in a red hat\n  + someone in a red hat\n" in shown
    assert "2 of 9 texts of 9 samples would change\nnothing has changed; add --yes" in shown
    done = curator(
        "edits", "replace", f"{shards}@v2", "a man", "someone", "--yes", "--who", "Anna", "--json"
    ).json
    assert (done["edited"], done["refused"]) == (2, [])
    rows = curator("edits", "list", shards).out.splitlines()
    assert rows[0].split() == ["id", "when", "who", "action", "key", "before", "after"]
    assert len(rows) == 3
    made = curator("edits", "apply", f"{shards}@v2", "--who", "Anna")
    assert "2 texts edited, 0 rejected, 0 accepted, 0 edits stale" in made.out
    assert "committed v5" in made.out
    assert check_whole(shards)["policy"]["name"] == "top+edits"
    again = curator("edits", "apply", f"{shards}@v2", "--json").json
    assert (again["new"], again["version"]["number"], again["stale"]) == (False, 5, [])
    strict = curator("edits", "apply", f"{shards}@v4")  # it has no text for a1
    assert "stale   00000#0 of 'Anna' at 20" in strict.out
    assert "1 texts edited, 0 rejected, 0 accepted, 1 edits stale" in strict.out
    assert curator("edits", "apply", f"{shards}@v5", "--json").exit_line["error"] == "edits.none"
    one = curator("edits", "undo", shards, "00000#0", "--who", "Ben")
    assert one.out == "1 edits undone\n"
    rest = curator("edits", "undo", shards, done["batch"], "--who", "Ben")
    assert "was already undone by 'Ben'" in rest.out
    assert rest.out.endswith("1 edits undone\n")
    assert curator("edits", "list", shards).out == "there are no edits yet\n"
    assert len(curator("edits", "list", shards, "--all", "--json").out.splitlines()) == 4
    limited = curator("edits", "list", shards, "--all", "--limit", 1)
    assert "3 older edits not shown" in limited.err


def test_replace_in_some_shards(shards: Path) -> None:
    words = ("edits", "replace", f"{shards}@v2", "red", "blue")  # a1 in 00000, b1 in 00001
    some = curator(*words, "--shard", "00001")
    assert "1 of 3 texts of 3 samples would change" in some.out
    assert curator(*words, "--shard", "0000?", "--json").json["samples"] == 9
    tars = curator("edits", "replace", f"{shards}/00001.tar@v2", "red", "blue", "--json").json
    assert (tars["samples"], tars["would_change"]) == (3, 1)
    done = curator(*words, "--shard", "00001", "--yes", "--who", "Anna", "--json").json
    assert done["edited"] == 1
    assert [path.name for path in (shards / ".curator" / "edits").iterdir()] == ["00001.log"]
    unknown = curator(*words, "--shard", "00007", "--json")
    assert (unknown.code, unknown.exit_line["error"]) == (2, "shard.unknown")


def test_what_the_commands_refuse(shards: Path) -> None:
    none = curator("edits", "apply", shards, "--json")
    assert (none.code, none.exit_line["error"]) == (2, "edits.none")
    unknown = curator("edits", "undo", shards, "00000#3", "--json")
    assert (unknown.code, unknown.exit_line["error"]) == (10, "edits.unknown")
    bad = curator("edits", "replace", shards, "(", "x", "--regex", "--json")
    assert (bad.code, bad.exit_line["error"]) == (2, "replace.pattern")
    shown = curator("edits", "replace", f"{shards}@v2", "a man", "someone", "--json").json
    assert (shown["would_change"], shown["searched"]) == (2, 9)


@pytest.mark.parametrize("place", ["FIND", "PUT", "--who"])
def test_what_is_typed_in_bytes_that_are_no_text_is_refused(shards: Path, place: str) -> None:
    """0xE9 is an e-acute in Latin-1 and nothing in UTF-8; Python hands it over as U+DCE9."""
    typed = {"FIND": "a", "PUT": "b", "--who": "Anna", place: "caf\udce9"}
    said = curator(
        "edits", "replace", shards, typed["FIND"], typed["PUT"], "--yes", "--who", typed["--who"]
    )
    assert (said.code, f"{place} is not UTF-8" in said.err) == (2, True)
    assert curator("edits", "list", shards, "--json").out.strip() in ("", "[]")


def test_what_is_typed_in_bytes_that_the_locale_has_not_is_found(shards: Path) -> None:
    typed = "\u00e9".encode().decode("ascii", "surrogateescape")
    said = curator("edits", "replace", shards, typed, "e")
    assert said.code == 0, said.err
