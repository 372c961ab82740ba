"""Shards on object stores: the same facts and bytes as from disk, few requests, clear errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import obstore
import polars as pl
import pytest

from curator.core.errors import DamageError, StorageBusyError, UsageError
from curator.shards import cache
from curator.shards import objects as store_objects
from curator.shards.dataset import discover
from curator.shards.objects import Remote, Stamp
from curator.shards.places import from_text, to_text
from tests.kit import objects, tars
from tests.kit.cli import curator, recaption
from tests.kit.objects import BUCKET, SECRET


@pytest.fixture(scope="module", params=["moto", "localbucket"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    if request.param == "moto":
        with objects.moto() as endpoint:
            yield endpoint
    else:
        with objects.localbucket(tmp_path_factory.mktemp("buckets")) as endpoint:
            yield endpoint


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """The one whose etags tell an upload in parts."""
    with objects.moto() as endpoint:
        objects.make_bucket(endpoint)
        yield endpoint


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The faster of the two, for what does not depend on the server."""
    with objects.localbucket(tmp_path_factory.mktemp("bucket")) as endpoint:
        objects.make_bucket(endpoint)
        yield endpoint


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder; waits between retries are short, and nothing is written outside it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    backoff = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=2)}
    monkeypatch.setitem(store_objects.RETRIES, "backoff", backoff)
    monkeypatch.setitem(store_objects.RETRIES, "max_retries", 2)
    store_objects._client.cache_clear()
    yield tmp_path
    cache.close()
    store_objects._client.cache_clear()


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str, here: Path) -> None:
    objects.set_environment(monkeypatch, endpoint, here / "cache")


def shards(folder: Path) -> Path:
    """Three shards below a folder, one of them damaged, one with the counts of img2dataset."""
    root = folder / "shards"
    (root / "more").mkdir(parents=True)
    (root / "00000.tar").write_bytes(tars.tar(tars.samples(4)))
    (root / "00000_stats.json").write_text('{"successes": 5}')
    (root / "00001.tar").write_bytes(tars.tar(tars.samples(3, first=4))[:-1536])
    (root / "more/00002.tar").write_bytes(tars.tar(tars.samples(4, first=7)))
    return root


def indexed(store: Path) -> dict[str, list[dict[str, object]]]:
    files = sorted((store / "index").rglob("*.parquet"))
    return {path.relative_to(store).as_posix(): pl.read_parquet(path).to_dicts() for path in files}


def bytes_below(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_doctor_looks_for_the_shards_where_they_are(
    one_server: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, one_server, here)
    objects.upload(one_server, shards(here), "doctor")

    def found(url: str) -> list[str]:
        rows = json.loads(curator("doctor", url, "--scorer", "text", "--json").out)
        return [f"{row['status']} {row['text']}" for row in rows if row["name"] == "dataset"]

    url = f"s3://{BUCKET}/doctor"
    assert found(url) == [f"ok 3 shards at {url}"]
    (told,) = found(f"s3://{BUCKET}/nowhere")
    assert told.startswith("fail ")


# -- the same as from disk -------------------------------------------------------------------------


def test_facts_versions_and_exports_are_those_from_disk(
    server: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, server, here)
    local = shards(here)
    objects.upload(server, local, "same")
    url = f"s3://{BUCKET}/same"
    mine, theirs = here / "mine", here / "theirs"
    ours, known = recaption(url, "--store", mine), recaption(local, "--store", theirs)
    assert (ours.code, known.code) == (0, 0), ours.err
    assert ours.json["version"]["id"] == known.json["version"]["id"]
    assert ours.json["index"]["problems"] == known.json["index"]["problems"]
    assert ours.json["index"]["problems"]["shard.count_mismatch"] == 1
    assert indexed(mine) == indexed(theirs)
    assert len(indexed(mine)) == 3

    assert curator("export", local, here / "out", "--store", theirs).code == 0
    wanted = bytes_below(here / "out")
    assert set(wanted) >= {"00000.tar", "00000_stats.json", "more/00002.tar", "sizes.json"}
    assert curator("export", url, here / "from", "--store", mine).code == 0
    # The two versions differ in the time of their commit, which is in the manifest alone.
    made = bytes_below(here / "from")
    assert {key for key in wanted if made[key] != wanted[key]} <= {"curator_version.json"}
    to = f"s3://{BUCKET}/out"
    assert curator("export", local, to, "--store", theirs).code == 0
    assert objects.keys("out") == sorted([*wanted, ".curator-recipe.json"])
    assert {key: objects.get(server, f"out/{key}") for key in wanted} == wanted
    both = f"s3://{BUCKET}/both"
    assert curator("export", url, both, "--store", mine).code == 0
    assert {key: objects.get(server, f"both/{key}") for key in wanted} == made
    inside = curator("export", url, f"{url}/inner", "--store", mine)
    assert (inside.code, "output.inside_source" in inside.err) == (2, True)
    # Trained on as it is: counts and identity come from the manifest beside the shards.
    from pretrain.data.opening import open_source

    there, local_one = open_source(to), open_source(str(here / "out"))
    assert (there.id, list(there.counts)) == (local_one.id, list(local_one.counts))
    assert there.describe()["exported_version"] == local_one.describe()["exported_version"]


def test_an_export_takes_up_its_own_objects_and_refuses_others(
    one_server: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, one_server, here)
    local = shards(here)
    assert recaption(local).code == 0
    to = f"s3://{BUCKET}/taken"
    assert curator("export", local, to, "--json").json["num_new_shards"] == 3
    assert curator("export", local, to, "--json").json["num_new_shards"] == 0
    other = curator("export", local, to, "--to", "parquet")
    assert (other.code, "output.other" in other.err) == (2, True)
    objects.put(one_server, "foreign/readme.txt", b"mine")
    foreign = curator("export", local, f"s3://{BUCKET}/foreign")
    assert (foreign.code, "output.foreign" in foreign.err) == (2, True)
    assert objects.keys("foreign") == ["readme.txt"]
    # A run that was stopped left its claim and one shard: the rest is made.
    stopped = [key for key in objects.keys("taken") if key.startswith("more/")]
    for key in [*stopped, "curator_version.json"]:
        objects.delete(one_server, f"taken/{key}")
    assert curator("export", local, to, "--json").json["num_new_shards"] == 1


def test_indexing_unchanged_shards_again_fetches_none(
    one_server: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects.upload(one_server, shards(here), "again")
    with objects.faulty(one_server, lambda _method, _path: None) as (proxy, seen):
        use(monkeypatch, proxy, here)
        url = f"s3://{BUCKET}/again"
        first = curator("index", url, "--json")
        assert first.json["num_scanned"] == 3
        where = here / "data/caption-curator/s3" / BUCKET / "again/.curator"
        assert f"store of {url}: {where}" in first.err
        assert (where / "index").is_dir()
        seen.clear()
        assert curator("index", url, "--json").json["num_scanned"] == 0
        assert not [path for _, path, _ in seen if path.endswith(".tar")]
        # One shard is written again: only that one is fetched.
        objects.put(one_server, "again/00001.tar", tars.tar(tars.samples(3, first=40)))
        seen.clear()
        report = curator("index", url, "--json").json
        assert (report["num_scanned"], report["num_changed_shards"]) == (1, 1)
        fetched = {path for _, path, _ in seen if path.endswith(".tar")}
        assert fetched == {f"/{BUCKET}/again/00001.tar"}


# -- which shards ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["00000", "00001", "more/00002"]),
        ("/", ["00000", "00001", "more/00002"]),
        ("/*.tar", ["00000", "00001"]),
        ("/**/*.tar", ["00000", "00001", "more/00002"]),
        ("/{00000..00001}.tar", ["00000", "00001"]),
        ("/{00001,more/*}.tar", ["00001", "more/00002"]),
        ("/[0-9]*1.tar", ["00001"]),
        ("/{00001.tar,more}", ["00001", "more/00002"]),
        ("/more/00002.tar", ["00002"]),
        ("/{00001..00003}.tar", ["00001", "00002", "00003"]),
    ],
)
def test_patterns_find_what_they_find_on_disk(
    one_server: str, here: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, expected: list[str]
) -> None:
    use(monkeypatch, one_server, here)
    root = shards(here)
    (root / ".curator").mkdir()
    (root / ".curator/x.tar").write_bytes(b"")
    objects.upload(one_server, root, "which")
    there = discover(f"s3://{BUCKET}/which{pattern}")
    assert [ref.name for ref in there.shards] == expected
    assert [ref.name for ref in discover(f"{root}{pattern}").shards] == expected
    assert [ref.path.exists() for ref in there.shards].count(False) == (
        2 if "00003" in pattern else 0
    )


def test_https_names_files_and_has_no_listing(
    one_server: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, one_server, here)
    local = shards(here)
    objects.upload(one_server, local, "web")
    web = f"{one_server}/{BUCKET}/web"
    names = [ref.name for ref in discover(f"{web}/{{00000..00002}}.tar").shards]
    assert names == ["00000", "00001", "00002"]
    said = curator("index", f"{web}/{{00000,more/00002}}.tar", "--json")
    assert (said.code, said.json["num_samples"]) == (0, 8), said.err
    for folder in (web, f"{web}/*.tar"):
        with pytest.raises(UsageError, match="https:// has no listing"):
            discover(folder)


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret@pictures/x",
        "s3://key:sec/secret@pictures/x",
        "https://user:pw@example.org/x.tar",
        "https://example.org/x.tar?X-Amz-Signature=abc",
        "s3://pictures/../x.tar",
        "s3://",
    ],
)
def test_urls_with_secrets_or_tricks_are_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        discover(url)
    assert "secret" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_a_place_survives_as_text() -> None:
    place = Remote("s3://b/x.tar", Stamp(5, 7, '"e"'))
    assert from_text(to_text(place)) == place
    assert from_text(to_text(Path("/x.tar"))) == Path("/x.tar")


# -- what can go wrong -----------------------------------------------------------------------------


def fails(url: str) -> dict[str, object]:
    said = curator("index", url, "--json")
    assert SECRET not in said.err
    assert "Signature" not in said.err
    return said.exit_line


def test_each_kind_of_error_has_its_code(
    one_server: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects.upload(one_server, shards(here), "errors")
    url = f"s3://{BUCKET}/errors"
    fault: dict[str, str | int | None] = {"list": None, "get": None}

    def kind(method: str, path: str) -> str | int | None:
        return fault["list" if "list-type" in path or method == "HEAD" else "get"]

    with objects.faulty(one_server, kind) as (proxy, seen):
        use(monkeypatch, proxy, here)
        for where in fault:
            fault[where] = 403
            line = fails(url)
            assert (line["code"], line["error"]) == (20, "storage.no_permission")
            assert "403" in str(line["what"])
            assert "AWS_ACCESS_KEY_ID" in str(line["hint"])
            fault[where] = 503
            line = fails(url)
            assert (line["code"], line["error"]) == (21, "storage.unreachable")
            assert "503" in str(line["what"])
            assert str(line["path"]).startswith(url)
            fault[where] = None
        fault["get"] = "cut"
        seen.clear()
        line = fails(url)
        assert line["code"] == 21
        assert any(asked and not asked.startswith("bytes=0-") for _, _, asked in seen)  # went on
        assert not list((here / "cache").glob("*"))
        fault["get"] = None
        assert curator("index", url).code == 0
        line = fails(f"s3://{BUCKET}/nothing")
        assert (line["code"], line["error"]) == (10, "input.none_found")
        line = fails("s3://no-such-bucket/x")
        assert (line["code"], line["error"]) == (10, "storage.no_bucket")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens
    assert fails(url)["code"] == 21


def test_a_shard_that_is_written_again_during_a_run_is_told(
    server: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, server, here)
    objects.upload(server, shards(here), "changing")
    ref = discover(f"s3://{BUCKET}/changing/00000.tar").shards[0]
    assert isinstance(ref.path, Remote)
    objects.put(server, "changing/00000.tar", tars.tar(tars.samples(4, first=50)))
    for read in (
        lambda place: cache.read(place, 0, 8),
        lambda place: store_objects.read_ranges(place, [(0, 8)]),
    ):
        with pytest.raises(DamageError) as caught:
            read(ref.path)
        assert caught.value.reason == "source.changed"
    gone = Remote(f"s3://{BUCKET}/changing/none.tar", ref.path.stamp)
    with pytest.raises(DamageError, match="it is gone"):
        cache.read(gone, 0, 8)


def test_no_version_is_committed_over_a_shard_that_changed_meanwhile(
    one_server: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects.upload(one_server, shards(here), "meanwhile")
    listings = 0

    def change(_method: str, path: str) -> None:
        nonlocal listings
        listings += "list-type" in path
        if listings == 2:  # the first finds the shards, the second is asked before the commit
            data = tars.tar(tars.samples(4, first=60))
            objects.put(one_server, "meanwhile/00000.tar", data)

    url = f"s3://{BUCKET}/meanwhile"
    with objects.faulty(one_server, lambda _method, _path: None) as (proxy, _):
        use(monkeypatch, proxy, here)
        assert curator("index", url).code == 0
    with objects.faulty(one_server, change) as (proxy, _):
        use(monkeypatch, proxy, here)
        more = ("--policy", "as-is", "--max-quarantine", 1, "--json")
        line = curator("decide", url, *more).exit_line
        assert (line["code"], line["error"]) == (12, "source.changed")
        assert line["path"] == f"{url}/00000.tar"
    assert curator("log", url).code == 10 or "v1" not in curator("log", url).out


def test_ranges_are_merged_and_checked(
    one_server: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(256)) * 12_288  # 3 MiB
    objects.put(one_server, "ranges/x.tar", data)
    with objects.faulty(one_server, lambda _method, _path: None) as (proxy, seen):
        use(monkeypatch, proxy, here)
        place = discover(f"s3://{BUCKET}/ranges/x.tar").shards[0].path
        assert isinstance(place, Remote)
        seen.clear()
        wanted = [(2_500_000, 30), (0, 10), (20, 5), (5, 10)]
        found = store_objects.read_ranges(place, wanted)
        assert found == [data[start : start + length] for start, length in wanted]
        assert sorted(asked for _, _, asked in seen) == ["bytes=0-24", "bytes=2500000-2500029"]
        with pytest.raises(DamageError, match="10 of 20 bytes are left"):
            store_objects.read_ranges(place, [(len(data) - 10, 20)])


def test_a_store_that_hangs_is_told_while_and_after_waiting(
    one_server: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    objects.put(one_server, "hangs/x.tar", b"x" * 1000)
    monkeypatch.setitem(store_objects.CLIENT, "read_timeout", "300ms")
    monkeypatch.setattr(store_objects, "SAID_AFTER_SEC", 0.1)
    monkeypatch.setitem(store_objects.RETRIES, "max_retries", 1)
    with objects.faulty(one_server, lambda method, _path: "hang" if method == "GET" else None) as (
        proxy,
        seen,
    ):
        use(monkeypatch, proxy, here)
        place = discover(f"s3://{BUCKET}/hangs/x.tar").shards[0].path
        assert isinstance(place, Remote)
        with pytest.raises(StorageBusyError) as caught:
            cache.read(place, 0, 8)
        assert (caught.value.code, caught.value.where) == (21, str(place))
        assert len([method for method, _, _ in seen if method == "GET"]) == 2
    assert f"waiting for {place}: no answer for" in capsys.readouterr().err


# -- the cache -------------------------------------------------------------------------------------


def test_the_cache_keeps_its_limit_and_what_is_in_use(
    one_server: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        objects.put(one_server, f"cached/{number}.tar", bytes([number]) * 100_000)
    use(monkeypatch, one_server, here)
    places = [ref.path for ref in discover(f"s3://{BUCKET}/cached").shards]
    monkeypatch.setenv("CURATOR_CACHE_SIZE", "0.00025")  # two of them
    folder = here / "cache"
    with cache.whole(places[0]) as first:  # type: ignore[arg-type]  # all are Remote
        for number in (1, 2, 3):
            with cache.whole(places[number]) as path:  # type: ignore[arg-type]  # all are Remote
                assert path.read_bytes() == bytes([number]) * 100_000
            assert first.read_bytes() == bytes(100_000)
            assert len(list(folder.iterdir())) == 2
    # What a killed process left behind is removed by the next that needs room.
    (folder / "dead.part").write_bytes(b"half")
    os.utime(first, ns=(0, 0))
    with cache.whole(places[2]) as path:  # type: ignore[arg-type]  # all are Remote
        names = {one.name for one in folder.iterdir()}
        assert names == {path.name, *names} - {first.name, "dead.part"}
        assert len(names) == 2


def test_two_who_want_the_same_shard_fetch_it_once(
    one_server: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects.put(one_server, "once/x.tar", b"x" * 1000)
    begun, go = threading.Event(), threading.Event()

    def slowly(method: str, _path: str) -> None:
        if method == "GET":
            begun.set()
            go.wait(10)

    with objects.faulty(one_server, slowly) as (proxy, seen):
        use(monkeypatch, proxy, here)
        place = discover(f"s3://{BUCKET}/once/x.tar").shards[0].path
        with ThreadPoolExecutor(2) as pool:  # locks of a file hold between threads as well
            first = pool.submit(cache.fetch, place)
            assert begun.wait(10)
            second = pool.submit(cache.fetch, place)
            go.set()
            first.result()
            second.result()
        assert len([method for method, _, _ in seen if method == "GET"]) == 1
        assert [file.stat().st_size for file in (here / "cache").iterdir()] == [1000]


def test_a_download_that_is_killed_leaves_nothing_that_counts(
    one_server: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(256)) * 80_000  # 20 MB: several pieces
    objects.put(one_server, "killed/x.tar", data)
    use(monkeypatch, one_server, here)
    place = discover(f"s3://{BUCKET}/killed/x.tar").shards[0].path
    assert isinstance(place, Remote)
    die = (
        "import os, signal, sys\n"
        "from curator.shards import cache, objects, places\n"
        "whole = objects.download\n"
        "def half(place, file):\n"
        "    file.write(bytes(1000)); file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "objects.download = half\n"
        "cache.fetch(places.from_text(sys.argv[1]))\n"
    )
    killed = subprocess.run([sys.executable, "-c", die, to_text(place)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = (here / "cache").iterdir()
    assert (left.suffix, left.stat().st_size) == (".part", 1000)
    with cache.whole(place) as path:
        assert path.read_bytes() == data
        assert list((here / "cache").iterdir()) == [path]


def test_the_same_bytes_uploaded_again_stay_indexed(
    moto: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts, which gives another etag: the shard is fetched and hashed, and keeps its index."""
    use(monkeypatch, moto, here)
    local = shards(here)
    objects.upload(moto, local, "touched")
    url = f"s3://{BUCKET}/touched"
    assert curator("index", url).code == 0
    (before,) = store_objects.stat([Remote(f"{url}/00000.tar")])
    obstore.put(
        store_objects._store(before)[0],
        "touched/00000.tar",
        (local / "00000.tar").read_bytes(),
        use_multipart=True,
    )
    (after,) = store_objects.stat([before])
    assert before.stamp
    assert after.stamp
    assert before.stamp.size_bytes == after.stamp.size_bytes
    assert before.stamp.etag != after.stamp.etag
    said = curator("index", url, "--json")
    assert (said.code, said.json["num_scanned"], said.json["num_changed_shards"]) == (0, 0, 0)
    with objects.faulty(moto, lambda _method, _path: None) as (proxy, seen):
        use(monkeypatch, proxy, here)
        assert curator("index", url, "--json").json["num_scanned"] == 0
        assert not [path for _, path, _ in seen if path.endswith(".tar")]  # the new etag is kept


@pytest.mark.parametrize("size", ["0", "many", "-1", "inf"])
def test_a_wrong_size_of_the_cache_is_refused(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv("CURATOR_CACHE_SIZE", size)
    with pytest.raises(UsageError, match="allowed: gigabytes above 0"):
        cache.limit_bytes()


# -- who reads shards ------------------------------------------------------------------------------


def test_missing_credentials_are_told(
    one_server: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's own service is asked then; here, a server that refuses."""
    with objects.faulty(one_server, lambda _method, _path: 403) as (proxy, _):
        use(monkeypatch, one_server, here)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", proxy)
        line = fails(f"s3://{BUCKET}/x")
        assert (line["code"], line["error"]) == (20, "storage.no_credentials")
        assert "AWS_SKIP_SIGNATURE" in str(line["hint"])


def test_few_images_are_read_by_ranges_and_many_as_a_whole(
    one_server: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = shards(here)
    (local / "00001.tar").unlink()
    # Two megabytes that nobody asks for: the images are few of its bytes.
    noise = [("zzz.bin", bytes(2_000_000))]
    (local / "00000.tar").write_bytes(tars.tar([*tars.samples(4), *noise]))
    objects.upload(one_server, local, "few")
    url = f"s3://{BUCKET}/few"
    with objects.faulty(one_server, lambda _method, _path: None) as (proxy, seen):
        use(monkeypatch, proxy, here)
        assert curator("index", url).code == 0
        cache.close()
        for file in (here / "cache").iterdir():
            file.unlink()
        seen.clear()
        assert recaption(url).code == 0
        asked = {(path.rpartition("/")[2], span) for _, path, span in seen if span}
        # 00000: the four images lie close together, in one request; 00002 whole, from byte 0.
        sizes = {path.name: path.stat().st_size for path in local.rglob("*.tar")}
        assert ("00002.tar", f"bytes=0-{sizes['00002.tar'] - 1}") in asked
        (span,) = [span for name, span in asked if name == "00000.tar"]
        start, _, end = span.removeprefix("bytes=").partition("-")
        assert (int(start), int(end) < 20_000) == (512, True)

        seen.clear()
        from curator.browse.thumbnails import Thumbnails
        from curator.steps.workspace import open_workspace

        made = Thumbnails(open_workspace(url, None)).many([("00000", row) for row in range(4)])
        assert len({bytes(one) for one in made}) == 4
        assert len([path for _, path, _ in seen if path.endswith("00000.tar")]) == 1


def test_diff_pages_show_the_images(
    one_server: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, one_server, here)
    local = shards(here)
    objects.upload(one_server, local, "pages")
    url = f"s3://{BUCKET}/pages"
    pages, most = [], ("--max-quarantine", 1)
    for dataset, store in ((url, here / "a"), (str(local), here / "b")):
        assert curator("index", dataset, "--store", store).code == 0
        assert curator("decide", dataset, "--policy", "as-is", *most, "--store", store).code == 0
        assert recaption(dataset, "--store", store).code == 0
        page = here / f"{store.name}.html"
        said = curator("diff", f"{dataset}@v1", f"{dataset}@v2", "--html", page, "--store", store)
        pages.append((said.code, page.exists() and page.read_text().count("data:image/jpeg")))
    assert pages[0] == pages[1]
    assert pages[0][1] >= 8


def test_pretraining_draws_the_same_batches(
    one_server: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from pretrain.data.loader import Pipeline, open_source
    from pretrain.data.options import DataOptions

    use(monkeypatch, one_server, here)
    local = shards(here)
    objects.upload(one_server, local, "train")
    options = DataOptions(image_px=16, batch_size=4, num_workers=0)
    batches = []
    for spec in (str(local), f"s3://{BUCKET}/train"):
        drawn = Pipeline(open_source(spec), options, tokenize=None).batches()
        batches.append([next(drawn) for _ in range(4)])
        drawn.close()
    for mine, theirs in zip(*batches, strict=True):
        assert torch.equal(mine.images, theirs.images)
        assert torch.equal(mine.samples, theirs.samples)
