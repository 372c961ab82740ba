"""Unite stores of one dataset, such as those that slices were worked on in, into one.

Facts are keyed by content and only ever added, so their union is the merge. Every file is copied
under its own name after its digest was checked; what two stores both have is copied once, chosen by
its content and not by the order of the stores. Versions come last: their facts are there by then.

    index          the rows of shards; a shard that two stores indexed must have the same bytes
    facts          fact files by name; what a journal of an unfinished run holds becomes a fact file
    edits, ratings in the order they were made; the numbers of the store's own edits do not change
    versions       by id; those that the store lacks get its next numbers, oldest first
    tags, runs     by name

A merge that was killed is run again: what is there already is not copied again. Everything is
checked before anything is written, except the content of fact and decision files, each of which is
checked when it is copied.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from curator.core import hashing, progress
from curator.core.errors import CuratorError, DamageError, UsageError
from curator.core.stopping import StopRequest
from curator.edits import log as edit_log
from curator.edits.history import UNDO
from curator.ratings import log as rating_log
from curator.shards.places import Place, Remote, is_same, stamp
from curator.steps import identity
from curator.steps.score import GENERATED_STAGE
from curator.steps.workspace import Workspace
from curator.store import copies, fsops, index, listing, parquet, sealed
from curator.store.facts import CAPTIONS, SCORES, Facts, check_file
from curator.store.journal import replay
from curator.store.listing import listing_of
from curator.store.schemas import INDEX_SCHEMA
from curator.store.store import Store
from curator.store.union import united
from curator.store.versions import ShardEntry


@dataclass(slots=True)
class MergeReport:
    """What the store got from the others; counts are of things that it did not have.

    Attributes:
        num_unfinished: journals of runs that have not ended; their facts so far were merged.
        num_rival_edits: texts that were edited differently in two stores; the first edit counts.
        versions: version in its store (`STORE v1`) -> its name here.
        num_not_indexed: shards of the dataset that no store has; `not_indexed` are the first ones.
    """

    num_stores: int = 0
    num_shards: int = 0
    num_fact_files: int = 0
    num_edits: int = 0
    num_ratings: int = 0
    num_runs: int = 0
    num_tags: int = 0
    num_unfinished: int = 0
    num_rival_edits: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    num_not_indexed: int = 0
    not_indexed: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)


def merge(ws: Workspace, roots: Sequence[Place], *, stop: StopRequest) -> MergeReport:
    """Add everything that the stores at `roots` have to the store of `ws`; URLs are of pushed ones.

    Raises:
        UsageError: a store was made from another dataset (store.other_dataset), indexed with other
            options, or has a tag with another meaning.
        NotFoundError: there is no store. FormatError: a store is newer than this tool.
        DamageError: a store is damaged. ConflictError: garbage is being collected in the store of
            `ws`. StoppedError: a signal arrived; the same command goes on.
    """
    stores = open_stores(ws, roots, stop=stop)
    report = MergeReport(num_stores=len(stores))
    with ws.store.deciding():
        work = _Work(ws, stores, report, stop)
        work.check()
        work.facts()
        work.people()
        work.index()
        work.versions()
        work.runs()
    missing = [ref.name for ref in ws.shards if not ws.store.index_path(ref.name).exists()]
    report.num_not_indexed, report.not_indexed = len(missing), missing[:5]
    return report


def open_stores(
    ws: Workspace, roots: Sequence[Place], *, stop: StopRequest | None = None
) -> list[Store]:
    """Open the stores to merge, each once and without the one they are merged into.

    Raises:
        CuratorError: the first error, with the messages of the others in its hint.
    """
    own = ws.store.root.resolve()
    stores: list[Store] = []
    errors: list[CuratorError] = []
    folders = [root.resolve() for root in roots if isinstance(root, Path)]
    urls = [root for root in roots if isinstance(root, Remote)]
    places: list[Place] = [*sorted(folders), *sorted(urls, key=str)]
    for root in dict.fromkeys(places):
        if root == own:
            progress.say(f"note: {root} is the store that the others are merged into")
            continue
        try:
            stores.append(_checked(ws, root, stop))
        except CuratorError as error:
            errors.append(error)
    if errors:
        first, *others = errors
        told = [f"also: {other}" for other in others]
        first.hint = "; ".join([*([first.hint] if first.hint else []), *told]) or None
        first.did = "nothing was merged"
        raise first
    return stores


def _checked(ws: Workspace, place: Place, stop: StopRequest | None) -> Store:
    store = Store.open(place) if isinstance(place, Path) else copies.read_only(place, stop=stop)
    root = store.root
    identity.check_part(store, ws.dataset, spec=ws.spec)
    for one in listing.all_listings(root):
        one.check()
    for expected, version in enumerate(store.versions(), 1):
        if version.number != expected:
            raise DamageError(f"version {expected} is missing", where=root / "versions")
    store.tags()
    for kind in (CAPTIONS, SCORES):
        for maker in store.makers(kind):
            store.recipe(kind, maker)
    for path in (root / "journal").rglob("*.jnl"):
        replay(path)
    for shard in edit_log.logs_there(store):
        edit_log.history(store, shard)
    for error in rating_log.unreadable(store):
        raise error
    for folder in _run_folders(store):
        sealed.read(folder / "run.json")
    return store


def _run_folders(store: Store) -> list[Path]:
    return sorted(path.parent for path in (store.root / "runs").glob("*/run.json"))


class _Work:
    """A merge under way: the store that grows, and those that are read."""

    def __init__(
        self, ws: Workspace, stores: Sequence[Store], report: MergeReport, stop: StopRequest
    ) -> None:
        self.ws = ws
        self.store = ws.store
        self.stores = stores
        self.everybody = [ws.store, *stores]
        self.report = report
        self.stop = stop
        self.refs = {ref.name: ref for ref in ws.shards}

    def check(self) -> None:
        """Check that the stores fit together, before anything is written."""
        meaning: dict[str, tuple[str, Store]] = {}
        for store in self.stores:
            for name in store.tags():
                found = store.tagged(name).id
                other, where = meaning.setdefault(name, (found, store))
                if other != found:
                    raise UsageError(
                        f"tag {name!r} is {found[:12]} in {store.name} and {other[:12]} in "
                        f"{where.name}",
                        did="nothing was merged",
                        hint="remove the tag from one of the stores, or move it: `curator tag "
                        "DATASET@VERSION NAME --store STORE`",
                        reason="merge.tag",
                    )
        self.indexes = {shard: self._index_of(shard) for shard in self._shards()}

    # -- index ----------------------------------------------------------------------------------

    def _shards(self) -> list[str]:
        found = set()
        for store in self.stores:
            folder = store.root / "index"
            found |= {
                path.relative_to(folder).as_posix().removesuffix(".parquet")
                for path in folder.rglob("*.parquet")
            }
        return sorted(found)

    def _index_of(self, shard: str) -> Path | None:
        """Return the index file to keep for a shard; None if the shard must be indexed again."""
        known = {
            path: index.shard_facts(store, shard)
            for store in self.everybody
            if (path := store.index_path(shard)).exists() and not index.is_first_form(path)
        }
        if not known:
            return None
        first, facts = next(iter(known.items()))
        ref = self.refs.get(shard)
        for path, other in known.items():
            same = other.digest == facts.digest
            if not (same or (ref and is_same(ref.path, other.digest, facts.digest))):
                raise UsageError(
                    f"shard {shard!r} has other bytes than in {first}",
                    where=path,
                    did="nothing was merged",
                    hint="these are stores of different datasets, or the shard was replaced: run "
                    "`curator index` on the shards with the older store, or leave it out",
                    reason="store.other_dataset",
                )
            if other.options != facts.options:
                fields = {*other.options, *facts.options}
                differ = sorted(
                    name for name in fields if other.options.get(name) != facts.options.get(name)
                )
                raise UsageError(
                    f"shard {shard!r} was indexed with another {', '.join(differ)} than in {first}",
                    where=path,
                    did="nothing was merged",
                    hint="index the shards of one of the stores again, with the options of the "
                    "other: see `curator index --help`",
                    reason="merge.options",
                )
        if len(known) == 1:
            return first
        # Copies of a shard have other times: the index with the time of the shard here need not be
        # checked against its bytes.
        here = stamp(ref.path) if ref else None
        return max(
            known,
            key=lambda path: (
                known[path].rules,
                known[path].stamp == here,
                hashing.file_sha256(path),
            ),
        )

    def index(self) -> None:
        """Copy the index of every shard."""
        todo = []
        for shard, path in self.indexes.items():
            to = self.store.index_path(shard)
            if path is not None and path != to:
                self.report.num_shards += not to.exists()
                parquet.read(path, INDEX_SCHEMA)  # page checksums: is it whole?
                todo.append((to, path))
        self._copy(todo)

    # -- facts ----------------------------------------------------------------------------------

    def facts(self) -> None:
        """Copy recipes, fact files, and what journals hold."""
        found = [
            (kind, maker)
            for kind in (CAPTIONS, SCORES)
            for maker in sorted({name for store in self.stores for name in store.makers(kind)})
        ]
        with progress.bar("merge facts", len(found), "makers") as advance:
            for kind, maker in found:
                self._facts_of(kind, maker)
                advance(1)

    def _facts_of(self, kind: str, maker: str) -> None:
        having = [store for store in self.stores if maker in store.makers(kind)]
        self.store.write_recipe(kind, maker, having[0].recipe(kind, maker))
        facts = Facts(self.store, kind, maker)
        folder = self.store.facts_dir(kind, maker)
        files: dict[Path, Path] = {}
        for store in having:
            there = store.facts_dir(kind, maker)
            for path in sorted(there.rglob("*.parquet")):
                files.setdefault(folder / path.relative_to(there), path)
        todo = [(to, files[to]) for to in sorted(files) if not to.exists()]
        self._copy(todo, facts.schema)
        made = self._from_journals(having, facts)
        self.report.num_fact_files += len(todo) + sum(not path.exists() for path, _ in made)
        fsops.write_many([(path, data) for path, data in made if not path.exists()])
        present = sorted({*files, *(path for path, _ in made)})
        lost = {
            self.store.root / path.relative_to(store.root)
            for store in having
            for path in listing_of(store, kind, maker).lost()
            if path.suffix == ".parquet"
        }
        marks: list[tuple[listing.Mark, Path]] = [("there", path) for path in present]
        marks += [("lost", path) for path in sorted(lost) if not path.exists()]
        if marks:
            listing_of(self.store, kind, maker).add(marks, found=facts.parquet_files())

    def _from_journals(self, stores: Iterable[Store], facts: Facts) -> list[tuple[Path, bytes]]:
        """Return the fact files for the journals of unfinished runs."""
        made: dict[Path, bytes] = {}
        for store in stores:
            folder = store.journal_path(facts.kind, facts.maker, "x").parent
            for path in sorted(folder.rglob("*.jnl")):
                if records := replay(path).records:
                    self.report.num_unfinished += 1
                    shard = path.relative_to(folder).as_posix().removesuffix(".jnl")
                    for file in facts.files_of(shard.removesuffix(GENERATED_STAGE), records):
                        made[file.path] = file.data
        return sorted(made.items())

    def _copy(
        self, files: Sequence[tuple[Path, Path]], facts_schema: pa.Schema | None = None
    ) -> None:
        """Copy files (to, from) durably; of fact files, check the digest in their names."""

        def read() -> Iterator[tuple[Path, bytes]]:
            for to, path in files:
                self.stop.check("what was merged so far is kept")
                data = path.read_bytes()
                digest = hashlib.sha256(data).hexdigest()
                if facts_schema and not digest.startswith(path.stem.rpartition(".")[2]):
                    check_file(path, facts_schema)  # another name in the first version of the tool
                yield to, data

        fsops.write_many(read())

    # -- people ---------------------------------------------------------------------------------

    def people(self) -> None:
        """Unite edits and ratings."""
        shards = {shard for store in self.stores for shard in edit_log.logs_there(store)}
        for shard in sorted(shards):
            logs = [edit_log.history(store, shard).edits for store in self.stores]
            self.report.num_edits += edit_log.unite(self.store, shard, logs)
            self.report.num_rival_edits += _num_rivals(self.store, shard)
            self.stop.check("what was merged so far is kept")
        self.report.num_ratings = rating_log.unite(self.store, self.stores)

    # -- versions -------------------------------------------------------------------------------

    def versions(self) -> None:
        """Commit the versions that the store lacks, and set their tags."""
        own = {version.id for version in self.store.versions()}
        chains = [[one for one in store.versions() if one.id not in own] for store in self.stores]
        try:
            new = united(chains, key=lambda one: one.id, order=lambda one: (one.created, one.id))
        except ValueError as error:
            raise UsageError(
                "two of the stores have the same versions in different orders",
                did="facts, edits and ratings were merged, versions were not",
                hint="leave one of them out",
                reason="merge.versions",
            ) from error
        for version in new:
            shards = tuple(map(self._decision, version.shards))
            self.store.commit(replace(version, number=0, shards=shards))
        if self.store.numbers():
            self.store.list_versions()
        names = {version.id: version for version in self.store.versions()}
        for store in self.stores:
            for version in store.versions():
                self.report.versions[f"{store.name} {version.name}"] = names[version.id].name
            for tag in store.tags():
                if tag not in self.store.tags():
                    self.store.tag(tag, names[store.tagged(tag).id])
                    self.report.num_tags += 1

    def _decision(self, entry: ShardEntry) -> ShardEntry:
        """Copy the decision of a shard, unless the store has it."""
        # The rows give a file its name. Its bytes may differ by the version of the Parquet library.
        to = self.store.root / entry.file
        if not to.exists():
            paths = [store.root / entry.file for store in self.stores]
            known = {hashing.file_sha256(path): path for path in paths if path.exists()}
            if entry.file_sha256 not in known:
                raise DamageError(
                    f"the decision with sha256 {entry.file_sha256[:12]} is missing or damaged",
                    where=next((path for path in paths if path.exists()), paths[0]),
                    did="facts, edits and ratings were merged",
                    hint="restore the file from a backup, or leave this store out",
                )
            self._copy([(to, known[min(known)])])
        return replace(entry, file_sha256=hashing.file_sha256(to))

    # -- runs -----------------------------------------------------------------------------------

    def runs(self) -> None:
        """Copy the records of commands; of two states of one run, the later."""
        newest: dict[str, list[Path]] = defaultdict(list)
        for store in self.stores:
            for folder in _run_folders(store):
                newest[folder.name].append(folder)
        todo = []
        for name, folders in sorted(newest.items()):
            to = self.store.root / "runs" / name
            is_new = not (to / "run.json").exists()
            best = max([*folders, *([] if is_new else [to])], key=_how_late)
            self.report.num_runs += is_new
            if best != to:
                # run.json first: a log without it is damage.
                files = [best / name for name in ("run.json", "log.jsonl")]
                todo += [(to / path.name, path) for path in files if path.exists()]
        self._copy(todo)


def _how_late(folder: Path) -> tuple[float, int, bytes]:
    data = (folder / "run.json").read_bytes()
    log = folder / "log.jsonl"
    ended = json.loads(data).get("ended") or 0.0
    return float(ended), log.stat().st_size if log.exists() else 0, data


def _num_rivals(store: Store, shard: str) -> int:
    """Count the texts that two edits in effect, of which neither knew the other, change."""
    past = edit_log.history(store, shard)
    num = 0
    for sample in past.samples:
        results: dict[str | None, set[tuple[str, str | None]]] = defaultdict(set)
        for edit in past.in_effect(sample):
            if edit.action != UNDO and edit.result != edit.base_text:
                results[edit.base_text].add((edit.action, edit.new_text))
        num += sum(len(found) > 1 for found in results.values())
    return num
