"""Slices of a dataset, each in a store of its own, and the merge of these stores."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from curator.core.errors import UsageError
from curator.core.stopping import StopRequest
from curator.edits import log as edit_log
from curator.edits.history import EDIT, Draft, SampleRef
from curator.ratings import log as rating_log
from curator.ratings.log import Answer, ShownPair
from curator.shards.dataset import Dataset, ShardRef
from curator.steps.merge import merge
from curator.steps.workspace import open_workspace, slice_of
from curator.store.facts import CAPTIONS, Facts
from curator.store.store import Store
from curator.store.union import united
from tests.kit import tars
from tests.kit.cli import Said, curator, recaption
from tests.kit.crash_worker import tree

NUM_SHARDS = 5
PARTS = ("0/3", "1/3", "2/3")


@pytest.fixture(autouse=True)
def _fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`shards`, the store `whole` of one undisturbed process, and a store for each slice."""
    os.environ["SOURCE_DATE_EPOCH"] = "1700000000"
    root = tmp_path_factory.mktemp("slices")
    (root / "shards").mkdir()
    for shard in range(NUM_SHARDS):
        data = tars.tar(tars.samples(4, first=4 * shard))
        (root / "shards" / f"{shard:05d}.tar").write_bytes(data)
    assert recaption(root / "shards", "--store", root / "whole").code == 0
    for part in PARTS:
        said = recaption(root / "shards", "--store", store_of(root, part), "--shard-slice", part)
        assert said.code == 0, said.err
        assert said.json["version"] is None
    del os.environ["SOURCE_DATE_EPOCH"]
    return root


def store_of(root: Path, part: str) -> Path:
    return root / f"slice{part[0]}"


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change; the shards are the same files."""
    for name in ("whole", *(store_of(made, part).name for part in PARTS)):
        shutil.copytree(made / name, tmp_path / name)
    (tmp_path / "shards").symlink_to(made / "shards")
    return tmp_path


def merged(root: Path, *stores: Path, into: str = "merged") -> Said:
    return curator("merge", root / "shards", *stores, "--store", root / into, "--json")


def all_slices(root: Path) -> list[Path]:
    return [store_of(root, part) for part in PARTS]


# -- slices ----------------------------------------------------------------------------------------


def dataset(num_shards: int) -> Dataset:
    names = [f"{number:05d}" for number in range(num_shards)]
    return Dataset(Path(), tuple(ShardRef(name, Path(f"{name}.tar")) for name in names))


def test_slices_deal_out_the_shards_by_name() -> None:
    names = [[ref.name for ref in slice_of(dataset(5), part).shards] for part in PARTS]
    assert names == [["00000", "00003"], ["00001", "00004"], ["00002"]]


@pytest.mark.parametrize(
    ("part", "hint"),
    [
        ("3/3", "the last of 3 is 2/3; a Slurm array for it is --array=0-2"),
        ("4/3", "write I/N, counted from 0"),
        ("0/0", "write I/N"),
        ("-1/3", "write I/N"),
        ("1", "write I/N"),
        ("", "write I/N"),
    ],
)
def test_what_is_no_slice_is_refused(part: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        slice_of(dataset(5), part)
    assert repr(part) in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize("verb", [["index"], ["score", "--scorer", "text"], ["recaption"]])
def test_a_slice_without_shards_does_nothing_and_says_so(
    made: Path, tmp_path: Path, verb: list[str]
) -> None:
    more = ["--captioner", "echo", "--policy", "replace"] if verb == ["recaption"] else verb[1:]
    done = curator(
        verb[0], made / "shards", *more, "--shard-slice", "7/8", "--store", tmp_path / "store"
    )
    assert done.code == 0, done.err
    assert "slice 7/8 has no shard, since the dataset has only 5" in done.err


def test_only_is_refused_with_a_slice(made: Path, tmp_path: Path) -> None:
    done = recaption(made / "shards", "--only", "worst 30%", "--shard-slice", "0/2",
                     "--store", tmp_path / "store")  # fmt: skip
    assert done.code == 2
    assert "a slice has only its own" in done.err


# -- the same store --------------------------------------------------------------------------------


def test_the_merge_of_all_slices_is_the_store_of_one_process(root: Path) -> None:
    stores = all_slices(root)
    assert merged(root, *stores).json["num_shards"] == NUM_SHARDS
    assert merged(root, *stores[::-1], into="backwards").code == 0
    assert tree(root / "merged") == tree(root / "backwards")
    before = tree(root / "merged")
    again = merged(root, *stores).json  # nothing new
    assert (again["num_shards"], again["num_fact_files"], again["num_runs"]) == (0, 0, 0)
    assert tree(root / "merged") == before
    done = curator("decide", root / "shards", "--policy", "replace", "--store", root / "merged")
    assert done.code == 0, done.err
    assert tree(root / "merged") == tree(root / "whole")
    check = curator("fsck", root / "shards", "--deep", "--store", root / "merged", "--json")
    assert (check.code, check.json["damage"]) == (0, [])
    quarantined = recaption(root / "shards", "--store", root / "merged").json
    assert quarantined["model_calls"] == 0


def test_what_no_slice_did_is_named(root: Path) -> None:
    said = merged(root, *all_slices(root)[:2])
    assert (said.json["num_not_indexed"], said.json["not_indexed"]) == (1, ["00002"])


def test_slices_in_one_store(made: Path, tmp_path: Path) -> None:
    """Several machines on one shared file system: nothing to merge."""
    for part in PARTS:
        done = recaption(made / "shards", "--store", tmp_path / "store", "--shard-slice", part)
        assert done.code == 0, done.err
    done = curator("decide", made / "shards", "--policy", "replace", "--store", tmp_path / "store")
    assert done.code == 0, done.err
    assert tree(tmp_path / "store") == tree(made / "whole")


def test_facts_of_an_unfinished_slice_are_merged_and_its_rest_later(root: Path) -> None:
    store = Store.open(store_of(root, "2/3"))
    (maker,) = store.makers(CAPTIONS)
    writer = Facts(store, CAPTIONS, maker).writer("00002")
    record = {"image_sha256": "f" * 64, "candidate": 0, "text": "late", "attempt": 0, "created": 1}
    writer.add([record])
    said = merged(root, *all_slices(root)).json
    assert said["num_unfinished"] == 1
    writer.finish()
    again = merged(root, *all_slices(root)).json
    assert (again["num_unfinished"], again["num_fact_files"]) == (0, 0)  # the same file, in fact
    facts = Facts(Store.open(root / "merged"), CAPTIONS, maker)
    assert sum(len(facts.rows_of(path, ["text"])) for path in facts.files()) == 21


# -- what is refused -------------------------------------------------------------------------------


def refused(root: Path, *stores: Path) -> Said:
    """The error of a merge, which changes nothing."""
    shutil.copytree(root / "whole", root / "kept")
    before = tree(root / "kept")
    said = merged(root, *stores, into="kept")
    assert tree(root / "kept") == before
    assert said.code != 0
    return said


def test_a_store_of_another_dataset_is_refused(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name, first in (("00000", 50), ("00009", 60)):
        (other / f"{name}.tar").write_bytes(tars.tar(tars.samples(4, first=first)))
    for number, pattern in enumerate(["*", "00009"]):  # a name in common, none in common
        place = tmp_path / f"foreign{number}"
        assert curator("index", other / f"{pattern}.tar", "--store", place).code == 0
        said = refused(root, *all_slices(root), place)
        assert (said.code, said.exit_line["error"]) == (2, "store.other_dataset")
        assert str(place) in said.err
        assert "nothing was merged" in said.err
        shutil.rmtree(root / "kept")


def damaged(root: Path) -> Iterator[tuple[str, Path, int]]:
    """Ways in which a store is not whole: its name, the store, the exit code."""
    store = store_of(root, "1/3")
    yield "no store.json", store / "store.json", 10
    for pattern in ("facts/captions/*/*.parquet", "facts/captions/*/maker.json"):
        yield "missing", next(store.glob(pattern)), 12
    yield "flipped", next(store.glob("listings/captions/*.log")), 12
    yield "flipped", next(store.glob("runs/*/run.json")), 12


@pytest.mark.parametrize("number", range(5))
def test_a_damaged_store_is_refused_by_name(root: Path, number: int) -> None:
    what, path, code = list(damaged(root))[number]
    if what == "flipped":
        data = path.read_bytes()
        path.write_bytes(tars.flip(data, len(data) // 2))
    else:
        path.unlink()
    said = refused(root, *all_slices(root))
    assert said.code == code, said.err
    assert str(store_of(root, "1/3")) in said.err


def test_a_damaged_fact_file_stops_the_merge_and_is_not_copied(root: Path) -> None:
    path = next(store_of(root, "1/3").glob("facts/captions/*/*.parquet"))
    data = path.read_bytes()
    path.write_bytes(tars.flip(data, len(data) // 2))
    said = merged(root, *all_slices(root))
    assert said.code == 12
    assert str(path) in said.err
    path.write_bytes(data)
    assert merged(root, *all_slices(root)).code == 0
    check = curator("fsck", root / "shards", "--deep", "--store", root / "merged", "--json")
    assert check.json["damage"] == []


def test_a_store_of_a_newer_tool_and_no_store(root: Path) -> None:
    path = store_of(root, "0/3") / "store.json"
    path.write_text(json.dumps({"format": 99}))
    said = refused(root, *all_slices(root), root / "without")
    assert said.code == 13
    assert "there is no store" in said.err  # both are named
    assert "without" in said.err


def test_other_options_are_refused(root: Path) -> None:
    for folder in ("a", "b"):
        more = ["--caption-field", ".txt"] if folder == "b" else []
        assert curator("index", root / "shards", *more, "--store", root / folder).code == 0
    said = merged(root, root / "a", root / "b")
    assert (said.code, said.exit_line["error"]) == (2, "merge.options")
    assert "caption_field" in said.err


# -- what people did -------------------------------------------------------------------------------


def edit(store: Path, row: int, old: str | None, new: str, *, seen: int | None = None) -> None:
    sample = SampleRef(shard="00000", row=row, key=f"k{row}", image_sha256="a" * 64)
    draft = Draft(sample=sample, action=EDIT, base_text=old, new_text=new, seen=seen)
    edit_log.add(Store.open(store), draft, who="Ann")


def at(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(1700000000 + seconds))


def edits(store: Path) -> list[tuple[int, str | None, int | None]]:
    found = edit_log.history(Store.open(store), "00000").edits
    assert [one.number for one in found] == list(range(len(found)))
    return [(one.row, one.new_text, one.undoes) for one in found]


def test_edits_of_two_stores_are_in_the_order_they_were_made(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = all_slices(root)[:2]
    at(monkeypatch, 1)
    edit(one, 0, "old", "first")
    at(monkeypatch, 2)
    edit(two, 1, "old", "second")
    edit(two, 0, "old", "rival")
    at(monkeypatch, 3)
    edit(one, 0, "first", "third", seen=0)
    edit_log.undo(Store.open(one), "00000#1", who="Ann")
    said = merged(root, one, two).json
    assert (said["num_edits"], said["num_rival_edits"]) == (5, 1)
    found = edits(root / "merged")
    assert found[0] == (0, "first", None)
    assert sorted(found[1:3]) == [(0, "rival", None), (1, "second", None)]
    assert found[3] == (0, "third", None)
    assert found[4][2] == 3  # the undo follows its edit to its new number
    assert merged(root, two, one, into="again").code == 0
    assert edits(root / "again") == found
    at(monkeypatch, 4)
    edit(two, 1, "second", "fourth", seen=0)
    assert merged(root, one, two).json["num_edits"] == 1  # only what is new, behind the others
    assert edits(root / "merged") == [*found, (1, "fourth", None)]


def test_edits_of_the_store_itself_keep_their_numbers(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = all_slices(root)[:2]
    at(monkeypatch, 1)
    edit(two, 0, "old", "earlier")
    at(monkeypatch, 2)
    edit(one, 1, "old", "later")
    assert merged(root, two, into=one.name).json["num_edits"] == 1
    assert edits(one) == [(1, "later", None), (0, "earlier", None)]


def rate(store: Path, answer: Answer) -> None:
    shown = ShownPair(image_sha256="a" * 64, left="x", right="y", shard="00000", key=None)
    rating_log.add(Store.open(store), shown, answer, "Ann")


def test_the_latest_answer_of_a_rater_counts_whoever_is_merged_into_whom(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = all_slices(root)[:2]
    at(monkeypatch, 1)
    rate(one, "left")
    at(monkeypatch, 2)
    rate(two, "right")
    at(monkeypatch, 3)
    rate(one, "equal")
    assert merged(root, one, two).json["num_ratings"] == 3
    assert merged(root, one, into=two.name).json["num_ratings"] == 2
    assert merged(root, two, into=one.name).json["num_ratings"] == 1
    for store in (root / "merged", one, two):
        (latest,) = rating_log.read(Store.open(store))
        assert (latest.answer, latest.nth) == ("equal", 2)
    assert merged(root, one, two).json["num_ratings"] == 0


# -- versions and tags -----------------------------------------------------------------------------


def decide(root: Path, store: Path, policy: str, shards: str = "*") -> str:
    pattern = root / "shards" / f"{shards}.tar"
    done = curator("decide", pattern, "--policy", policy, "--store", store, "--json")
    assert done.code == 0, done.err
    found: str = done.json["version"]["id"]
    return found


def test_versions_and_tags_are_united(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = all_slices(root)[:2]
    at(monkeypatch, 1)
    first = decide(root, one, "as-is", "{00000,00003}")
    at(monkeypatch, 2)
    second = decide(root, two, "as-is", "{00001,00004}")
    at(monkeypatch, 3)
    third = decide(root, one, "replace", "{00000,00003}")
    assert curator("tag", f"{root / 'shards'}@v2", "good", "--store", one).code == 0
    said = merged(root, two, one).json
    assert said["versions"] == {f"{one} v1": "v1", f"{two} v1": "v2", f"{one} v2": "v3"}
    store = Store.open(root / "merged")
    assert [version.id for version in store.versions()] == [first, second, third]
    assert store.tagged("good").id == third
    check = curator("fsck", root / "shards", "--deep", "--store", store.root, "--json")
    assert check.json["damage"] == []
    before = tree(store.root)
    assert merged(root, one, two).code == 0
    assert tree(store.root) == before


def test_a_tag_with_two_meanings_is_refused(root: Path) -> None:
    one, two = all_slices(root)[:2]
    for store, shards in ((one, "{00000,00003}"), (two, "{00001,00004}")):
        decide(root, store, "as-is", shards)
        assert curator("tag", root / "shards" / f"{shards}.tar", "good", "--store", store).code == 0
    said = refused(root, one, two)
    assert (said.code, said.exit_line["error"]) == (2, "merge.tag")


# -- sequences -------------------------------------------------------------------------------------


def union(*sequences: Sequence[str]) -> str:
    return "".join(united(sequences, key=lambda item: item, order=lambda item: item))


def test_united_sequences_keep_every_order() -> None:
    assert union("ac", "b") == "abc"
    assert union("b", "ac") == "abc"
    assert union("ca", "b") == "bca"  # c before a, whatever their order alone
    assert union("bca", "ca") == "bca"
    assert union() == ""
    with pytest.raises(ValueError, match="contradicting"):
        union("ab", "ba")


# -- killed ----------------------------------------------------------------------------------------


def test_ten_processes_over_slices_killed_at_random(made: Path, tmp_path: Path) -> None:
    """The small form of benchmarks/slices.py: ten slices, each killed up to twice."""
    generator = random.Random(0)
    env = {**os.environ, "POLARS_MAX_THREADS": "1"}

    def start(number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "curator", "recaption", str(made / "shards")]
        command += ["--captioner", "echo", "--policy", "replace", "--batch-size", "2"]
        command += ["--store", str(tmp_path / f"store{number}"), "--shard-slice", f"{number}/10"]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, env=env, stdout=quiet, stderr=quiet)

    running = {number: start(number) for number in range(10)}
    kills = dict.fromkeys(running, 2)
    while running:
        time.sleep(generator.uniform(0, 0.3))
        number = generator.choice(sorted(running))
        if running[number].poll() is None and kills[number]:
            kills[number] -= 1
            running[number].kill()
        for one in sorted(running):
            if (code := running[one].poll()) == 0:
                del running[one]
            elif code is not None:
                assert code < 0, "it failed by itself"
                running[one] = start(one)
    stores = [tmp_path / f"store{number}" for number in range(10)]
    ws = open_workspace(str(made / "shards"), tmp_path / "merged", create=True)
    merge(ws, generator.sample(stores, 10), stop=StopRequest())
    done = curator("decide", made / "shards", "--policy", "replace", "--store", tmp_path / "merged")
    assert done.code == 0, done.err
    assert tree(tmp_path / "merged") == tree(made / "whole")
