"""One rule for keys: what the index calls usable comes out of the export under the same key."""

from __future__ import annotations

import re
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curator.core.errors import UsageError
from curator.core.stopping import StopRequest
from curator.export.version import export
from curator.shards.dataset import discover
from curator.shards.keys import spelling
from curator.shards.scan import ScanOptions
from curator.steps.index import make_index
from curator.steps.workspace import open_workspace
from curator.store import index
from tests.kit import tars
from tests.kit.store import Kit
from tests.kit.webread import webdataset_samples

# The rule of Hugging Face's reader (datasets, packaged_modules/webdataset: base_plus_ext).
HUGGING_FACE = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")


def round_trip(folder: Path, keys: list[str]) -> tuple[dict[str, str | None], dict[str, bytes]]:
    """Index, decide, export: (key -> reason in the index, key -> text in the export)."""
    shards = folder / "in"
    shards.mkdir()
    files = [
        file
        for number, key in enumerate(keys)
        for file in tars.sample(key, number, caption=f"photo {number}")
    ]
    (shards / "00000.tar").write_bytes(tars.foreign_tar(files))
    kit = Kit(open_workspace(str(shards), None, create=True))
    make_index(kit.ws, ScanOptions(), stop=StopRequest())
    version = kit.decide("alt")
    export(kit.ws.store, kit.ws.shards, version, folder / "out", to="wds")
    rows = index.read(kit.ws.store, "00000", ["key", "reason"])
    reasons = dict(rows.iter_rows())
    exported = {str(one["__key__"]): one for one in webdataset_samples(folder / "out")}
    with tarfile.open(folder / "out/00000.tar") as archive:
        for name in archive.getnames():
            match = HUGGING_FACE.match(name)
            assert match is not None
            assert match[1] in exported
    return reasons, {key: bytes(one["txt"]) for key, one in exported.items()}  # type: ignore[arg-type]  # bytes, but for the key


USABLE = [
    "./00000",
    "./folder/./00001",
    "a/b/c",
    "two//slashes",
    "my photo",
    " leading and trailing ",
    "caf\u00e9 composed",
    "cafe\u0301 taken apart",
    "\u5199\u771f\u3000\u4e00",  # an ideographic space
    "Screenshot 9.41\u202fAM".replace(".", ":"),  # macOS: a narrow no-break space
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with its zero-width joiner
    "\U0001f469\u200d\U0001f680",
    "what?*<>|",
    "https%3A%2F%2Fexample",
    "#hash & 'quotes' \"double\"",
    "-rf",
    "k" * 255,
    "e\u0301" * 85,  # 255 bytes
    "deep/" * 40 + "x",
]


def test_keys_that_people_have_come_out_byte_for_byte(tmp_path: Path) -> None:
    reasons, exported = round_trip(tmp_path, USABLE)
    assert reasons == dict.fromkeys(USABLE)
    assert exported == {key: f"photo {number}".encode() for number, key in enumerate(USABLE)}


REFUSED = {
    "k" * 256: "key.invalid",
    "tab\there": "key.invalid",
    "__meta__/a": "key.invalid",
    "line\u2028end": "key.invalid",
    "gpj\u202e": "key.invalid",
    "../up": "path.traversal",
    "back\\slash": "path.traversal",
    "C:drive": "path.traversal",
}


@pytest.mark.long
def test_what_no_reader_holds_is_refused_by_the_index(tmp_path: Path) -> None:
    reasons, exported = round_trip(tmp_path, ["good", *REFUSED])
    assert list(reasons.values()) == [None, *REFUSED.values()]
    assert list(exported) == ["good"]


_NAMES = st.text(
    st.one_of(
        st.sampled_from("./\\ _:a\u0301\u00e9\u202e\u3000\x07"), st.characters(codec="utf-8")
    ),
    min_size=1,
    max_size=12,
).filter(lambda name: "\0" not in name and not name.startswith("/"))


@settings(max_examples=15, deadline=None)
@given(st.lists(_NAMES, min_size=1, max_size=20, unique_by=spelling))
@example(["0."])  # the file is `0..jpg`: key `0`, extension `.jpg`, and the text beside it `0..txt`
@pytest.mark.long
def test_whatever_is_indexed_is_exported(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        reasons, exported = round_trip(Path(folder), names)
        assert set(exported) == {key for key, reason in reasons.items() if reason is None}


def test_a_shard_whose_name_could_not_be_exported_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a\\b.tar").write_bytes(tars.tar(tars.samples(1)))
    with pytest.raises(UsageError) as error:
        discover(str(tmp_path))
    assert error.value.reason == "input.bad_name"
