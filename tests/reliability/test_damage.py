"""Every kind of file that the tool writes, damaged in every way: refused, named, left as it is.

One tiny store, study, run, dense run and export hold a file of every kind. Each is flipped, cut,
zeroed and deleted: a reader then says an error or gives what it gave before, `fsck --deep` names
the file, and no byte is touched. What cannot be told from a crash, or is nobody's loss, is in the
table with its reason.
"""

from __future__ import annotations

import fnmatch
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from curator.browse.runs import runs
from curator.core.errors import CuratorError
from curator.core.stopping import StopRequest
from curator.edits import log as edit_log
from curator.edits.history import Draft, SampleRef
from curator.export.version import ExportOptions, export
from curator.policy.decider import read_decision
from curator.ratings import log as rating_log
from curator.ratings.log import ShownPair
from curator.steps import apply_edits, fsck_files, identity
from curator.steps.fsck import fsck
from curator.steps.workspace import open_workspace
from curator.store import fsops, index, sealed
from curator.store.facts import CAPTIONS, SCORES, Facts
from curator.store.runs import open_run
from finetune import cell_files
from finetune.cell_files import DenseResult
from finetune.cell_files import SavedImages as ShownPicture
from finetune.report.build import build_report
from finetune.report.html import render_html
from finetune.study.files import read_cells
from pretrain import run_files
from pretrain.loop.checkpoint import newest_valid, save_checkpoint
from pretrain.loop.runlog import RunLog, read_log
from tests.kit import store as storekit
from tests.kit import study

OPS = ("flip", "cut", "zero", "delete")
SAID = "the loss is said where it is read"
TORN = "it looks as a crash leaves it, and what was acknowledged in it cannot be told"
UNREAD = "no command reads it"
DERIVED = "bytes that nobody reads; fsck compares the content"


@dataclass(frozen=True)
class Kind:
    """Files of one kind. `unnamed`: ways in which fsck need not name it, and why."""

    pattern: str
    unnamed: dict[str, str]


def kind(pattern: str, **unnamed: str) -> Kind:
    return Kind(pattern, unnamed)


KINDS = {
    "store.json": kind("shards/.curator/store.json", delete=SAID),
    "place of the dataset": kind("shards/.curator/dataset.json",
                                 delete="the next `curator index` writes it anew"),
    "index": kind("shards/.curator/index/*.parquet", flip=DERIVED),
    "caption facts": kind("shards/.curator/facts/captions/*/*.parquet"),
    "score facts": kind("shards/.curator/facts/scores/*/*.parquet"),
    "recipe": kind("shards/.curator/facts/*/*/maker.json"),
    "rating": kind("shards/.curator/facts/ratings/*.json"),
    "listing of facts": kind("shards/.curator/listings/*/*.log", cut=TORN, zero=TORN),
    "listing of versions": kind("shards/.curator/listings/versions.log", cut=TORN, zero=TORN,
                                delete="a note says that there is none"),
    "listing of edits": kind("shards/.curator/listings/edits.log", cut=TORN, zero=TORN,
                             delete="a note says that there is none"),
    "listing of ratings": kind("shards/.curator/listings/ratings.log", cut=TORN, zero=TORN,
                               delete="a note says that there is none"),
    "edits": kind("shards/.curator/edits/*.log", cut=TORN, zero=TORN),
    "journal": kind("shards/.curator/journal/*/*/*.jnl", cut=TORN, zero=TORN),
    "decision": kind("shards/.curator/captions/*.parquet"),
    "version": kind("shards/.curator/versions/*.json"),
    "tag": kind("shards/.curator/tags/*.json", delete=SAID),
    "record of a command": kind("shards/.curator/runs/*/run.json"),
    "log of a command": kind("shards/.curator/runs/*/log.jsonl", delete=UNREAD, cut=TORN,
                             zero=TORN),
    "shard": kind("shards/*.tar", delete=SAID),
    "plan of a study": kind("study/study.json"),
    "cell of a study": kind("study/cells/*.json", delete=SAID),
    "picture of a study": kind("study/pictures/*/*.png"),
    "results of a study": kind("study/results.parquet", flip=UNREAD, delete=UNREAD),
    "run": kind("run/run.json", delete=SAID),
    "log of a run": kind("run/log.jsonl", delete=SAID, cut=TORN, zero=TORN),
    "manifest of a checkpoint": kind("run/checkpoints/*.json"),
    "checkpoint": kind("run/checkpoints/*.safetensors"),
    "model": kind("run/model/*"),
    "summary of a run": kind("run/summary.json", delete=SAID),
    "dense run": kind("dense/run.json", delete=SAID),
    "result of a dense run": kind("dense/metrics.json", delete=SAID),
    "picture of a dense run": kind("dense/predictions/*.png"),
    "sweep": kind("dense/sweep.json", delete=UNREAD),
    "manifest of an export": kind("export/curator_version.json", delete=SAID),
    "tar of an export": kind("export/*.tar"),
    "counts of an export": kind("export/*_stats.json", delete="the next export makes it anew"),
    "sizes for open_clip": kind("export/sizes.json", flip="open_clip's own form", delete=UNREAD),
    "TensorBoard": kind("run/tensorboard/*", flip="a library's own", cut="a library's own",
                        zero="a library's own", delete="a library's own"),
}  # fmt: skip


def build(root: Path) -> None:
    """A file of every kind below `root`."""
    make_store(root / "shards")
    study.run(study.study(study.SMALL), root / "study")
    make_run(root / "run")
    make_dense(root / "dense")
    ws = open_workspace(str(root / "shards"), None)
    export(
        ws.store, ws.shards, ws.store.version(1), root / "export", to="wds", options=ExportOptions()
    )


def make_store(shards: Path) -> None:
    kit = storekit.small_store(shards, ["best", "alt"])
    store = kit.ws.store
    identity.remember(store, kit.ws.dataset)
    store.tag("good", store.version(1))
    first = index.read(store, "00000").row(0, named=True)
    sample = SampleRef(shard="00000", row=0, key=first["key"], image_sha256=first["image_sha256"])
    for old, new in (("two dogs running on a beach", "two dogs"), ("two dogs", "dogs")):
        made = len(edit_log.history(store, "00000").edits)
        draft = Draft(sample=sample, action="edit", base_text=old, new_text=new,
                      seen=made - 1 if made else None)  # fmt: skip
        edit_log.add(store, draft, who="Anna")
    apply_edits.apply(store, store.version(1), who="Anna", stop=StopRequest())
    shown = ShownPair(image_sha256="1" * 64, left="a", right="b", shard="00000", key="a0")
    rating_log.add(store, shown, "left", "Anna")
    with open_run(store, "score", {"scorer": "clip"}) as run:
        run.event("one", text="a note of some length")
        run.event("two", text="a note of some length")
    writer = Facts(store, CAPTIONS, storekit.GENERATOR).writer("00001")
    for number in range(3):
        row = storekit.Row(f"z{number}", generated=f"a caption of some length, number {number}")
        writer.add([storekit.caption_fact(row) or {}])
    writer.close()  # as a run leaves it that was killed


def make_run(out: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(8)).sum().backward()
    optimizer.step()
    sealed.write(out / "run.json", {"format": 2, "recipe": {"lr": 0.1}})
    log = RunLog(out, after_step=0)
    for step in (1, 2):
        log.add({"step": step, "loss": 0.5 / step})
        save_checkpoint(out / "checkpoints", step, net, optimizer, {"flops": 7})
    log.close()
    fsops.write_atomic(out / "model" / "model.safetensors", bytes(range(1, 256)) * 9)
    run_files.write_summary(out, study.run_summary(steps=2, retrieval={"r1": 0.5}))


def make_dense(out: Path) -> None:
    picture = study.picture(0, tone=1.0)
    shown = ShownPicture(name="a", image=picture, truth=picture, prediction=picture)
    cell_files.begin(out, {"backbone": "any", "options": {"lr": 0.1}})
    cell_files.store(out, DenseResult(
        metrics={"mIoU": 0.3175}, per_image={}, per_class={}, num_train=1, num_test=1, lr=0.1,
        seconds=1.0, flops=7, history=[], weights="0" * 64, predictions=(shown,),
    ))  # fmt: skip
    sealed.write(out / "sweep.json", {"lr": 0.1}, indent=1)


# -- what users read -------------------------------------------------------------------------------


def read_store(root: Path) -> object:
    """All that a store says, as its readers say it."""
    ws = open_workspace(str(root / "shards"), None)
    store = ws.store
    identity.check(store, ws.dataset, spec=ws.spec)
    found: list[object] = [store.resolve(None).id, store.resolve("good").id, sorted(store.tags())]
    for version in store.versions():
        found.append(version)
        found += [read_decision(store, entry).to_dicts() for entry in version.shards]
    for entry in store.version(1).shards:
        ref = ws.ref(entry.name)
        index.check_unchanged(store, ref)
        found += [index.shard_facts(store, ref.name), index.read(store, ref.name).to_dicts()]
    for of in (CAPTIONS, SCORES):
        for maker in store.makers(of):
            facts = Facts(store, of, maker)
            found += [maker, store.recipe(of, maker)]
            found += [
                [facts.rows_of(path, facts.schema.names).to_dicts() for path in facts.files()]
            ]
    found += [edit_log.everything(store), rating_log.read(store)]
    said = runs(store)
    if not said or any(run.status == "damaged" for run in said):
        raise CuratorError("the record of a run is shown as damaged")
    return [*found, said]


def read_study(root: Path) -> object:
    """The page of its report: what is missing is said on it."""
    report = build_report(root / "study")
    if report.num_done < report.num_cells:
        raise CuratorError("the report says that runs are missing")
    return render_html(report, root / "study"), read_cells(root / "study")


def read_run(root: Path) -> object:
    run = root / "run"
    run_files.check_model(run)
    checkpoint = newest_valid(run / "checkpoints")
    if checkpoint is None or checkpoint.step < 2:
        raise CuratorError("a checkpoint was passed over, and said")
    if not (run / "log.jsonl").exists():
        raise CuratorError("a study says that the run has no log")
    log, torn = read_log(run / "log.jsonl")
    if torn:
        raise CuratorError("lines are cut, and said")
    return run_files.read_run(run), run_files.read_summary(run), checkpoint.facts, log


def read_dense(root: Path) -> object:
    cell_files.begin(root / "dense", {"backbone": "any", "options": {"lr": 0.1}})
    return cell_files.finished(root / "dense")


def read_export(root: Path) -> object:
    return sealed.read(root / "export" / "curator_version.json")


READERS: dict[str, Callable[[Path], object]] = {
    "shards": read_store, "study": read_study, "run": read_run, "dense": read_dense,
    "export": read_export,
}  # fmt: skip


def damage_named(root: Path, top: str) -> set[str]:
    """The paths that `fsck --deep` names as damaged; that of the folder if it cannot begin."""
    if top == "shards":
        try:
            report = fsck(open_workspace(str(root / "shards"), None), deep=True)
        except CuratorError as error:
            return {str(error.where)}
        return {finding.where for finding in report.damage}
    if not any((root / top / name).is_file() for name in fsck_files.ROOTS):
        return {str(root / top / "study.json")}  # `curator fsck` finds neither study nor shards
    return {finding.where for finding in fsck_files.folder(root / top)[0]}


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix != ".lock"  # empty: it is held, not read
    }


# -- the sweep -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("damage") / "whole"
    build(root)
    return root


def kind_of(name: str) -> list[str]:
    return [
        known for known, about in KINDS.items()
        if fnmatch.fnmatch(name, about.pattern)
        and name.count("/") == about.pattern.count("/")
    ]  # fmt: skip


def test_every_file_is_of_one_kind_and_every_kind_is_there(whole: Path) -> None:
    """A new kind of file has to get a line in the table, and with it a place in the sweep."""
    kinds = [kind_of(name) for name in tree(whole)]
    assert [name for name in tree(whole) if len(kind_of(name)) != 1] == []
    assert {found[0] for found in kinds} == set(KINDS)


def test_nothing_is_wrong_before(whole: Path) -> None:
    for top, read in READERS.items():
        assert read(whole) == read(whole)
        assert damage_named(whole, top) == set()


def damaged(data: bytes, op: str, generator: random.Random) -> bytes | None:
    """What is left of a file; None if it is gone."""
    if op == "flip":
        place = generator.randrange(len(data))
        return data[:place] + bytes([data[place] ^ 1 << generator.randrange(8)]) + data[place + 1 :]
    if op == "cut":
        return data[: generator.randrange(len(data))]
    if op == "zero":
        start = generator.randrange(0, len(data), 512)
        return data[:start] + bytes(len(data[start : start + 512])) + data[start + 512 :]
    return None


def cases(root: Path, name: str, op: str, rounds: int) -> Iterator[tuple[Path, bytes]]:
    files = [path for path in tree(root) if kind_of(path) == [name]]
    for number in range(rounds if op != "delete" else 1):
        path = root / files[number % len(files)]
        yield path, path.read_bytes()


def sweep(root: Path, name: str, op: str, rounds: int) -> None:
    generator = random.Random(f"{name} {op}")
    top = KINDS[name].pattern.partition("/")[0]
    read, before, wanted = READERS[top], tree(root), READERS[top](root)
    for path, data in cases(root, name, op, rounds):
        left = damaged(data, op, generator)
        if left == data:
            continue
        stat = path.stat()
        path.unlink() if left is None else path.write_bytes(left)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns)) if left is not None else None
        after = tree(root)
        try:
            outcome = "the same" if read(root) == wanted else "something else"
        except CuratorError:
            outcome = "refused"
        named = str(path) in damage_named(root, top)
        assert tree(root) == after, f"{op} of {path}: something was touched"
        excuse = KINDS[name].unnamed.get(op)
        assert named or excuse, f"{op} of {path}: fsck does not name it"
        assert outcome != "something else" or excuse == TORN, f"{op} of {path}: read otherwise"
        path.write_bytes(data)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert tree(root) == before


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", KINDS)
def test_damage_is_refused_and_named(whole: Path, name: str, op: str) -> None:
    sweep(whole, name, op, rounds=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", KINDS)
def test_much_damage_is_refused_and_named(whole: Path, name: str) -> None:
    for op in OPS:
        sweep(whole, name, op, rounds=40)
