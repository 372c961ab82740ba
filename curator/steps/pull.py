"""Bring what was pushed to an object store into the store of a dataset."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from curator.core.errors import ConflictError, UsageError
from curator.core.stopping import StopRequest
from curator.shards.dataset import discover
from curator.shards.objects import Remote
from curator.steps.merge import MergeReport, merge
from curator.steps.workspace import (
    StoreName,
    Workspace,
    command,
    open_workspace,
    split_spec,
    store_place,
)
from curator.store import copies, fsops, remote, sealed
from curator.store.remote import RemoteStore
from curator.store.runs import open_run
from curator.store.store import Store, only_read


@dataclass(frozen=True, slots=True)
class PullReport:
    """What came from push `number`: a whole store of `num_files`, or what `merged` says."""

    number: int
    newest: str | None
    num_files: int
    merged: MergeReport | None

    def to_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)


def pull(spec: str, store: StoreName | None, url: Remote, *, stop: StopRequest) -> PullReport:
    """Copy the newest state at `url`, or merge it into the store that is there.

    Raises:
        UsageError: the store's folder holds other files (output.foreign), or the store is of
            another dataset. NotFoundError: nothing was pushed there.
        ConflictError: a version has another number here (pull.versions).
        DamageError, StorageError: as `RemoteStore`. StoppedError: the same command goes on.
    """
    root = store_place(store, discover(split_spec(spec)[0]).root)
    if isinstance(root, Remote):
        raise only_read(root.url)
    source = RemoteStore(url)
    push = copies.newest(source)
    state = source.state(push)
    if not (root / "store.json").exists():
        mark = root / remote.FOLDER / "pulling.json"
        foreign = [
            path
            for path in sorted(root.rglob("*"))
            if path.is_file() and path != mark and path.relative_to(root).as_posix() not in state
        ]
        if mark.exists():  # of an earlier state, whose pull was stopped
            for path in foreign:
                fsops.remove(path)
        elif foreign:
            raise UsageError(
                f"the folder is no store and holds other files ({foreign[0].name})",
                where=root,
                did="nothing was written",
                hint="name another with --store FOLDER",
                reason="output.foreign",
            )
        sealed.write(mark, {"url": url.url})
        num_files = copies.fill(source, state, root, stop=stop)
        fsops.remove(mark)
        ws = open_workspace(spec, store, create=True)
        remote.remember(ws.store.root, url, push.state)
        return PullReport(push.number, push.newest, num_files, None)
    ws = open_workspace(spec, store)
    _check_numbers(ws, copies.read_only(url, stop=stop), url)
    options = {"dataset": spec, "url": url.url}
    with open_run(ws.store, "pull", options):
        report = merge(ws, [url], stop=stop)
    remote.remember(ws.store.root, url, push.state)
    return PullReport(push.number, push.newest, 0, report)


def _check_numbers(ws: Workspace, there: Store, url: Remote) -> None:
    """Refuse stores in which a number means two versions: merged, v2 of one would be v3."""
    for number in sorted({*ws.store.numbers()} & {*there.numbers()}):
        if ws.store.version(number).id != there.version(number).id:
            new = command("pull", ws.spec, "NEW", url)
            raise ConflictError(
                f"v{number} is another version here than there: both were decided at the same time",
                where=url,
                did="nothing was changed",
                hint=f"pull into a new folder (`{new}`) and merge this store into it: `curator "
                f"merge {ws.spec} {ws.store.root} --store NEW`",
                reason="pull.versions",
            )
