"""Folders that one command fills: names that would leave them, locks, the tar sink."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from curator.core.errors import ConflictError, UsageError
from curator.store import fsops, outputs
from tests.kit import tars


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../../x",
        "/etc/x",
        "a//x",
        "./x",
        "a/.",
        "",
        "..",
        "C:\\x",
        "C:x",
        "a\\x",
        "a\nx",
        "a\0x",
        "a\u202ex",  # right-to-left override
    ],
)
def test_names_that_would_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as error:
        outputs.inside(tmp_path, name)
    assert error.value.reason == "path.traversal"


def test_names_that_are_fine(tmp_path: Path) -> None:
    for name in ("00000.tar", "a/b/c.tar", "..a", "a..b/c", "ключ.tar", "with space.tar"):
        assert outputs.inside(tmp_path, name) == tmp_path / name


def test_the_lock_is_alone_and_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with fsops.locked(path):
        assert path.exists()
        with pytest.raises(ConflictError), fsops.locked(path):
            pass
        assert path.exists()  # the loser took nothing away
    assert not path.exists()
    with pytest.raises(ZeroDivisionError), fsops.locked(path):
        raise ZeroDivisionError
    with fsops.locked(path):
        pass


def test_the_sink_writes_what_member_bytes_writes() -> None:
    files = [*tars.samples(3), ("d/" * 80 + "long.jpg", b"x" * 1025), ("empty.txt", b"")]
    expected = tars.tar(files)
    out = io.BytesIO()
    sink = outputs.TarSink(out)
    for name, data in files:
        sink.add(name, data)
    assert sink.finish() == hashlib.sha256(expected).hexdigest()
    assert out.getvalue() == expected
    assert sink.size_bytes == len(expected)


def test_the_sink_writes_in_large_pieces() -> None:
    sizes: list[int] = []

    class Sink:
        def write(self, data: bytes) -> int:
            sizes.append(len(data))
            return len(data)

    sink = outputs.TarSink(Sink())
    for number in range(300):
        sink.add(f"{number}.jpg", bytes(100_000))
    sink.finish()
    assert len(sizes) == 4  # 30 MB in pieces of 8 MiB
    assert min(sizes[:-1]) >= 8 << 20


def test_leftovers_of_a_killed_run_go(tmp_path: Path) -> None:
    recipe = {"verb": "test"}
    fsops.write_atomic(tmp_path / outputs.CLAIM, b'{"verb":"test"}')
    deep = tmp_path / "a" / f"{fsops.TEMP_PREFIX}1-abcd"
    deep.parent.mkdir()
    deep.write_bytes(b"half")
    with outputs.filling(tmp_path, manifest="m.json", recipe=recipe):
        assert not deep.exists()
        outputs.write_manifest(tmp_path / "m.json", recipe, {"done": True})
    assert {path.name for path in tmp_path.iterdir()} == {"a", "m.json"}
    assert outputs.read_json(tmp_path / "m.json") == {"done": True, "recipe": recipe}
