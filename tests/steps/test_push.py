"""Copies of a store in an object store: pushed, pulled, merged and read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from curator.core.errors import ConflictError
from curator.core.stopping import StopRequest
from curator.shards import objects as store_objects
from curator.steps.pull import pull
from curator.steps.push import PushReport, push
from curator.steps.workspace import open_workspace
from curator.store import copies, fsops, remote
from curator.store.remote import RemoteStore
from tests.kit import objects, tars
from tests.kit.cli import Said, curator, recaption

URL = f"s3://{objects.BUCKET}/store"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with objects.moto() as endpoint:
        yield endpoint


@pytest.fixture(scope="module", params=["moto", "localbucket"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    if request.param == "moto":
        yield request.getfixturevalue("moto")
    else:
        with objects.localbucket(tmp_path_factory.mktemp("buckets")) as endpoint:
            yield endpoint


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with `shards` and their store with two versions; waits between retries are short."""
    backoff = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=2)}
    monkeypatch.setitem(store_objects.RETRIES, "backoff", backoff)
    monkeypatch.setitem(store_objects.RETRIES, "max_retries", 2)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setattr(remote.time, "sleep", lambda _sec: None)
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        data = tars.tar(tars.samples(3, first=3 * shard))
        (tmp_path / "shards" / f"{shard:05d}.tar").write_bytes(data)
    assert recaption(tmp_path / "shards").code == 0
    assert curator("decide", tmp_path / "shards", "--policy", "as-is").code == 0
    yield tmp_path
    copies._readers.close()
    store_objects._client.cache_clear()


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str, here: Path) -> None:
    """Point at a server whose bucket has nothing below URL."""
    objects.set_environment(monkeypatch, endpoint, here / "cache")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    objects.make_bucket(endpoint)
    for key in objects.keys("store"):
        objects.delete(endpoint, f"store/{key}")


def pushed(here: Path, *, store: Path | None = None) -> PushReport:
    return push(
        open_workspace(str(here / "shards"), store), store_objects.parse(URL), stop=StopRequest()
    )


def content(root: Path) -> dict[str, bytes]:
    """Everything that a state has."""
    kept = (remote.FOLDER, "runs", "decisions.lock", "dataset.json")
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] not in kept
    }


def decided(here: Path, name: str, *more: object) -> None:
    """Commit a version by a policy of this name, which needs no scores."""
    policy = here / f"{name}.toml"
    policy.write_text(f'name = "{name}"\nsources = ["generated", "alt_text"]\npick = "first"\n')
    said = curator("decide", here / "shards", "--policy", policy, *more)
    assert said.code == 0, said.err


def there() -> dict[str, bytes] | None:
    """The newest state, every file verified; None if there is none."""
    source = RemoteStore(store_objects.parse(URL))
    newest = source.newest()
    if newest is None:
        return None
    state = source.state(newest)
    assert (newest.num_files, newest.num_bytes) == (
        len(state),
        sum(entry.size_bytes for entry in state.values()),
    )
    return {path: source.file(path, entry) for path, entry in state.items()}


# -- what a user does ------------------------------------------------------------------------------


def test_a_pulled_store_is_the_pushed_one(
    server: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, server, here)
    said = curator("push", here / "shards", URL, "--json")
    assert (said.code, said.err) == (0, "")
    assert (said.json["number"], said.json["newest"], said.json["is_new"]) == (1, "v2", True)
    assert said.json["num_new_files"] == said.json["num_files"] == len(there() or {})
    again = curator("push", here / "shards", URL, "--json")
    assert (again.json["number"], again.json["is_new"], again.json["num_new_files"]) == (
        1,
        False,
        0,
    )
    other = here / "other"
    assert curator("pull", here / "shards", URL, "--store", other).code == 0
    assert content(other) == content(here / "shards/.curator")
    assert curator("fsck", here / "shards", "--deep", "--store", other).code == 0


@pytest.mark.parametrize(
    "command",
    [
        ("log",),
        ("show",),
        ("diff", "@v1", "@v2"),
        ("query", "SELECT count(*) FROM samples"),
        ("edits", "list"),
        ("quarantine", "list"),
    ],
)
def test_commands_that_read_take_a_url(
    moto: str, here: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    use(monkeypatch, moto, here)
    pushed(here)
    verb = [part for part in command if part in ("log", "show", "diff", "query", "edits", "list")]
    if command[0] == "quarantine":
        verb = ["quarantine", "list"]
    rest = command[len(verb) :]
    spec = [str(here / "shards")]
    if command[0] == "diff":
        spec, rest = [f"{here / 'shards'}{name}" for name in rest], ()

    def run(*more: object) -> Said:
        return curator(*verb, *spec, *rest, *more, "--json")

    local, distant = run(), run("--store", URL)
    assert (distant.code, distant.out) == (local.code, local.out), distant.err
    assert local.code == 0


def test_an_export_of_a_url_is_the_export_of_the_store(
    moto: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, moto, here)
    pushed(here)
    for out, store in (("near", ()), ("far", ("--store", URL))):
        said = curator("export", f"{here / 'shards'}@v1", here / out, *store)
        assert said.code == 0, said.err
    assert content(here / "far") == content(here / "near")


@pytest.mark.parametrize(
    ("command", "rest"),
    [
        ("decide", ()),
        ("index", ()),
        ("recaption", ("--captioner", "echo", "--policy", "replace")),
        ("tag", ("good",)),
        ("gc", ()),
        ("fsck", ()),
        ("push", (URL,)),
        ("pull", (URL,)),
    ],
)
def test_commands_that_write_refuse_a_url(
    moto: str, here: Path, monkeypatch: pytest.MonkeyPatch, command: str, rest: tuple[str, ...]
) -> None:
    use(monkeypatch, moto, here)
    pushed(here)
    before = objects.keys("store")
    said = curator(command, here / "shards", *rest, "--store", URL, "--json")
    assert (said.code, said.exit_line["error"]) == (2, "store.copy"), said.err
    assert objects.keys("store") == before


def test_who_is_behind_pulls_first(moto: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, moto, here)
    shards, other = here / "shards", here / "other"
    pushed(here)
    assert curator("pull", shards, URL, "--store", other).code == 0
    decided(here, "theirs", "--store", other)
    assert curator("tag", f"{shards}@v3", "good", "--store", other).code == 0
    assert pushed(here, store=other).number == 2

    said = curator("push", shards, URL, "--json")
    assert (said.code, said.exit_line["error"]) == (11, "push.behind")
    assert f"curator pull {shards} {URL}" in said.err
    assert curator("pull", shards, URL).code == 0
    assert "good" in curator("log", shards).out
    assert pushed(here).number == 3
    assert curator("merge", shards, URL).code == 0


def test_a_number_with_two_meanings_is_refused(
    moto: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, moto, here)
    shards, other = here / "shards", here / "other"
    pushed(here)
    assert curator("pull", shards, URL, "--store", other).code == 0
    decided(here, "theirs", "--store", other)
    pushed(here, store=other)
    decided(here, "mine")
    said = curator("pull", shards, URL, "--json")
    assert (said.code, said.exit_line["error"]) == (11, "pull.versions")
    new = here / "new"
    assert curator("pull", shards, URL, "--store", new).code == 0
    assert curator("merge", shards, shards / ".curator", "--store", new).code == 0
    assert pushed(here, store=new).newest == "v4"


def test_pull_leaves_other_files_alone(
    moto: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, moto, here)
    pushed(here)
    (here / "home").mkdir()
    (here / "home/thesis.txt").write_text("mine")
    said = curator("pull", here / "shards", URL, "--store", here / "home", "--json")
    assert (said.code, said.exit_line["error"]) == (2, "output.foreign")
    assert content(here / "home") == {"thesis.txt": b"mine"}


def test_a_damaged_copy_is_noticed(moto: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, moto, here)
    pushed(here)
    key = next(key for key in objects.keys("store") if "/captions/" in key)
    data = objects.get(moto, f"store/{key}")
    objects.put(moto, f"store/{key}", data[:-1] + bytes([data[-1] ^ 1]))
    said = curator("pull", here / "shards", URL, "--store", here / "other", "--json")
    assert (said.code, said.exit_line["path"]) == (12, f"{URL}/{key}")
    again = curator("log", here / "shards", "--store", here / "other", "--json")
    assert again.exit_line["error"] == "store.none"  # what was fetched is not taken for a store
    objects.put(moto, f"store/{key}", data)
    assert curator("pull", here / "shards", URL, "--store", here / "other").code == 0


def test_a_pull_that_was_stopped_goes_on_with_a_newer_push(
    moto: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, moto, here)
    store, other = here / "shards/.curator", here / "other"
    journal = store / "journal/captions/echo-12345678/00000.jnl"
    journal.parent.mkdir(parents=True)
    journal.write_bytes(b"")  # of a job that goes on
    pushed(here)
    fetch = RemoteStore.file

    def stops(self: RemoteStore, path: str, entry: remote.Entry) -> bytes:
        if path.startswith("versions/"):
            raise KeyboardInterrupt
        return fetch(self, path, entry)

    monkeypatch.setattr(copies, "_CHUNK", 1)
    with monkeypatch.context() as patched:
        patched.setattr(RemoteStore, "file", stops)
        with pytest.raises(KeyboardInterrupt):
            pull(str(here / "shards"), other, store_objects.parse(URL), stop=StopRequest())
    assert not (other / "store.json").exists()
    journal.unlink()
    pushed(here)
    assert curator("pull", here / "shards", URL, "--store", other).code == 0
    assert content(other) == content(store)


def test_a_newer_push_replaces_the_copy_to_read_from(
    moto: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, moto, here)
    pushed(here)
    first = copies.read_only(store_objects.parse(URL))
    assert curator("tag", f"{here / 'shards'}@v1", "good").code == 0
    pushed(here)
    second = copies.read_only(store_objects.parse(URL))
    assert (first.tags(), second.tags()) == ({}, {"good": 1})  # the first is in use
    copies._readers.close()
    assert curator("tag", f"{here / 'shards'}@v1", "better").code == 0
    pushed(here)
    third = copies.read_only(store_objects.parse(URL))
    folders = {path for path in third.root.parent.iterdir() if path.is_dir()}
    assert folders == {third.root, third.root.parent / "files"}
    assert content(third.root) == content(here / "shards/.curator") | {".whole": b""}


# -- what may go wrong -----------------------------------------------------------------------------


def test_a_server_that_overwrites_is_refused(
    moto: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, moto, here)
    with objects.faulty(moto, lambda _method, _path: "overwrite") as (proxy, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
        said = curator("push", here / "shards", URL, "--json")
        assert (said.code, said.exit_line["error"]) == (23, "storage.no_conditional_put")
        assert proxy in said.err
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    assert there() is None


def test_a_push_that_stops_anywhere_leaves_the_last_state_or_the_new_one(
    moto: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, moto, here)
    store = here / "shards/.curator"
    pushed(here)
    old = there()
    assert curator("tag", f"{here / 'shards'}@v1", "good").code == 0
    new = content(store)
    commits = set()
    at = 0
    while True:
        at += 1

        def die(_operation: str, _path: Path, at: int = at) -> None:
            if fsops._failpoint.count == at:
                raise KeyboardInterrupt

        fsops.set_step_hook(die)
        try:
            report = pushed(here)
        except KeyboardInterrupt:
            found = there()
            assert found is not None
            assert found == old or content(store).items() <= found.items()
            commits.add(found == old)
            continue
        finally:
            fsops.set_step_hook(None)
        break
    assert at > 5
    assert report.newest == "v2"
    found = there()
    assert found is not None
    assert new.items() <= found.items()
    assert len([key for key in objects.keys("store") if key.startswith("pushes/")]) == 2


FAULTS = (503, "after 503", "cut", "short", "close", "slow", 409, 412)
TOLD: dict[str | int, tuple[int, ...]] = {"cut": (21,), "short": (12, 21), 409: (21,), 412: (21,)}
"""Exit codes by fault; the others are asked again, and the user sees nothing."""


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_of_a_server_loses_a_push_or_takes_it_for_anothers(
    moto: str, here: Path, monkeypatch: pytest.MonkeyPatch, fault: str | int
) -> None:
    use(monkeypatch, moto, here)
    pushed(here)
    at = 0
    while True:
        at += 1
        assert curator("tag", f"{here / 'shards'}@v1", f"t{at}").code == 0
        count = [0]

        def fail(
            _method: str, _path: str, count: list[int] = count, at: int = at
        ) -> str | int | None:
            count[0] += 1
            return fault if count[0] == at else None

        with objects.faulty(moto, fail) as (proxy, seen):
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
            said = curator("push", here / "shards", URL, "--json")
            num = count[0]
            if said.code:
                assert said.code in TOLD.get(fault, ()), said.err
                assert curator("push", here / "shards", URL).code == 0
            assert "DELETE" not in {method for method, _, _ in seen}
        monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
        found = there()
        assert found is not None
        assert content(here / "shards/.curator").items() <= found.items()
        if num < at:
            break
    assert at >= 8


def test_of_two_pushes_at_once_one_is_told(
    moto: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, moto, here)
    pushed(here)
    shards, other = here / "shards", here / "other"
    assert curator("pull", shards, URL, "--store", other).code == 0
    assert curator("tag", f"{shards}@v1", "mine").code == 0
    assert curator("tag", f"{shards}@v1", "theirs", "--store", other).code == 0
    commit: Callable[..., remote.Push] = RemoteStore.commit

    def late(self: RemoteStore, *arguments: object) -> remote.Push:
        monkeypatch.setattr(RemoteStore, "commit", commit)
        pushed(here, store=other)  # another machine is faster
        return commit(self, *arguments)

    monkeypatch.setattr(RemoteStore, "commit", late)
    with pytest.raises(ConflictError, match="another push was faster"):
        pushed(here)
    assert curator("pull", shards, URL).code == 0
    assert pushed(here).number == 3
    assert {"tags/mine.json", "tags/theirs.json"} <= set(there() or {})
