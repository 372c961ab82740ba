"""export: bytes, conservation, determinism, what is refused, and taking up again after a crash."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import open_clip
import polars as pl
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from curator.core.errors import ConflictError, CuratorError, DamageError, StorageError, UsageError
from curator.core.stopping import StopRequest
from curator.export.card import size_category
from curator.export.shards import EXPORTED
from curator.export.version import MANIFEST, ExportOptions, ExportReport, Target, export
from curator.shards.dataset import ShardRef, discover
from curator.shards.scan import ScanOptions, scan_shard
from curator.steps.index import make_index
from curator.steps.workspace import open_workspace
from curator.store import fsops, outputs
from curator.store.versions import Version
from pretrain.data.loader import open_source
from tests.kit import store, tars
from tests.kit.store import GENERATOR, Kit, small_store
from tests.kit.webread import webdataset_samples

TARGETS = get_args(Target)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """The store of storekit; no test here changes it."""
    return small_store(tmp_path_factory.mktemp("shards"))


def run(kit: Kit, policy: str, out: Path, *, to: Target = "wds", **options: Any) -> ExportReport:
    return export(
        kit.ws.store,
        kit.ws.shards,
        kit.versions[policy],
        out,
        to=to,
        options=ExportOptions(**options),
    )


def custom(folder: Path, shards: dict[str, bytes], *, policy: str = "alt") -> Kit:
    """A store over hand-made tars with one version that keeps alt texts."""
    for name, data in shards.items():
        path = folder / f"{name}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    kit = Kit(open_workspace(str(folder), None, create=True))
    make_index(kit.ws, ScanOptions(), stop=StopRequest())
    kit.decide(policy)
    return kit


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def fails(kit: Kit, out: Path, **arguments: Any) -> CuratorError:
    with pytest.raises(CuratorError) as error:
        run(kit, "alt", out, **arguments)
    return error.value


# -- wds -----------------------------------------------------------------------------------------


def test_the_best_captions_as_tars(kit: Kit, tmp_path: Path) -> None:
    report = run(kit, "best", tmp_path / "out")
    # of ten samples b2 is unreadable; all others have a text
    assert (report.num_shards, report.num_new_shards, report.num_samples) == (2, 2, 9)
    assert report.num_captions == 9
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *("00000.tar", "00001.tar", "00000_stats.json", "00001_stats.json"),
        *("sizes.json", MANIFEST),
    }
    found = webdataset_samples(tmp_path / "out")
    # by hand from the scores of storekit's table
    assert [(one["__key__"], one["txt"]) for one in found] == [
        ("a0", b"two dogs running on a beach"),
        ("a1", b"a man in a red hat"),
        ("a2", b"a man riding a bike"),
        ("a3", b"a woman holding a cat"),
        ("a4", b"A plate with 3 apples"),
        ("a5", b"a plane in the sky"),
        ("b0", b"Three kids with Anna in Paris"),
        ("b1", b"a red car"),
        ("b3", b'a sign with the words "a & b"'),
    ]
    assert all(one["jpg"] == store.image(str(one["__key__"])) for one in found)
    assert json.loads(found[0]["json"]) == {
        "curator": {
            "version": kit.versions["best"].id,
            "action": "captioned",
            "captions": [
                {
                    "text": "two dogs running on a beach",
                    "source": GENERATOR,
                    "weight": 1.0,
                    "score": 0.32,  # not 0.3199999928474426
                }
            ],
        }
    }
    assert json.loads(found[4]["json"])["curator"]["action"] == "kept"
    sizes = json.loads((tmp_path / "out/sizes.json").read_bytes())
    assert sizes == {"00000.tar": 6, "00001.tar": 3}
    stats = json.loads((tmp_path / "out/00001_stats.json").read_bytes())
    assert (stats["count"], stats["successes"]) == (4, 3)
    assert stats["status_dict"] == {"success": 3, "dropped": 0, "quarantined": 1}


@pytest.mark.parametrize("policy", list(store.POLICIES))
def test_conservation(kit: Kit, tmp_path: Path, policy: str) -> None:
    version = kit.versions[policy]
    report = run(kit, policy, tmp_path)
    assert report.num_samples == sum(version.counts[action] for action in EXPORTED)
    assert report.num_samples == len(webdataset_samples(tmp_path))
    stats = [json.loads(path.read_bytes()) for path in sorted(tmp_path.glob("*_stats.json"))]
    assert sum(one["count"] for one in stats) == version.num_samples
    assert all(one["count"] == sum(one["status_dict"].values()) for one in stats)


def test_several_captions_keep_their_weights(kit: Kit, tmp_path: Path) -> None:
    run(kit, "all", tmp_path)
    first = webdataset_samples(tmp_path)[0]
    captions = json.loads(first["json"])["curator"]["captions"]
    assert [(one["text"], one["source"], one["weight"]) for one in captions] == [
        ("Two dogs run on the beach near Brighton", "alt_text", 0.5),
        ("two dogs running on a beach", GENERATOR, 0.5),
    ]
    assert first["txt"] == captions[0]["text"].encode()


def test_the_engine_reads_an_export_without_a_problem(kit: Kit, tmp_path: Path) -> None:
    run(kit, "best", tmp_path)
    for ref in discover(str(tmp_path)).shards:
        scan = scan_shard(ref, options=ScanOptions())
        assert scan.problems == []
        assert {one.reason for one in scan.samples} == {None}


def test_open_clip_tokenizes_the_captions(kit: Kit, tmp_path: Path) -> None:
    run(kit, "best", tmp_path)
    texts = [one["txt"].decode() for one in webdataset_samples(tmp_path)]
    tokens = open_clip.tokenize(texts)
    assert tokens.shape == (9, 77)
    assert (tokens == 49407).any(dim=1).all()  # each has its end of text


def test_fields_and_members_of_the_source(tmp_path: Path) -> None:
    jpg = tars.image_bytes
    files = [
        ("a.jpg", jpg(1)),
        ("a.txt", b"one"),
        ("a.json", b'{"url": "u", "big": 123456789012345678901234567890, "half": "\\ud83d"}'),
        ("a.cls", b"7"),
        ("b.0.25.JPG", jpg(2)),  # the extension behind the first dot is 0.25.JPG
        ("b.txt", b"two"),
        ("b.json", b"{broken"),
        ("b.depth.png", b"other"),
        ("c.png", jpg(3, kind="PNG")),
        ("c.txt", b"three"),
        ("c.json", b'{"curator": "of the museum", "x": NaN}'),
        ("d.jpg", jpg(4)),
        ("d.txt", b"four"),
        ("d.json", b"[" * 3000 + b"]" * 3000),
        ("d.pkl", b"never copied"),
    ]
    # b has two pictures: the option says that its depth.png is none that counts
    folder = tmp_path / "in"
    folder.mkdir()
    tars.write(folder, tars.tar(files))
    kit = Kit(open_workspace(str(folder), None, create=True))
    make_index(kit.ws, ScanOptions(image_ext=("jpg", "0.25.jpg", "png")), stop=StopRequest())
    kit.decide("alt")
    report = run(kit, "alt", tmp_path / "out")
    found = {one["__key__"]: one for one in webdataset_samples(tmp_path / "out")}
    fields = json.loads(found["a"]["json"])
    assert (fields["url"], fields["big"]) == ("u", 123456789012345678901234567890)
    assert fields["half"] == "\ud83d"
    assert set(found["a"]) == {"__key__", "jpg", "txt", "json"}
    of_c = json.loads(found["c"]["json"])
    assert of_c["curator"] == "of the museum"  # theirs stays
    assert of_c["curator_export"]["captions"][0]["text"] == "three"
    assert (report.num_fields_renamed, len(report.warnings)) == (1, 2)
    assert found["c"]["png"] == jpg(3, kind="PNG")
    assert list(json.loads(found["d"]["json"])) == ["curator"]  # said in the report, not silent
    assert set(found) == {"a", "b", "c", "d"}
    assert report.num_json_replaced == 2  # b and d
    with_others = run(kit, "alt", tmp_path / "others", other_members=True)
    others = {one["__key__"]: one for one in webdataset_samples(tmp_path / "others")}
    assert with_others.num_samples == report.num_samples
    assert others["a"]["cls"] == b"7"
    assert others["b"]["depth.png"] == b"other"
    assert set(others["d"]) == {"__key__", "jpg", "txt", "json"}
    assert others["a"]["jpg"] == jpg(1)


FOREIGN = {
    "text": "of the museum",
    "null": None,
    "alike": {"version": 1, "captions": ["a b"]},
    "list": [{"captions": []}],
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_no_field_of_the_source_is_overwritten(tmp_path: Path, kind: str) -> None:
    fields = {"curator": FOREIGN[kind], "curator_export": 1, "caption": "x", "txt": "y"}
    files = [*tars.sample("a")[:2], ("a.json", json.dumps(fields).encode())]
    kit = custom(tmp_path / "in", {"00000": tars.tar(files)})
    report = run(kit, "alt", tmp_path / "out")
    exported = json.loads(webdataset_samples(tmp_path / "out")[0]["json"])
    ours = exported.pop("curator_export_2")
    assert exported == fields
    assert ours["captions"][0]["text"] == "a photo"
    assert report.num_fields_renamed == 1
    assert "curator_export" in report.warnings[0]
    # the trainer reads ours
    source = open_source(str(tmp_path / "out"))
    assert source.read(0).rows["texts"].to_list() == [["a photo"]]
    # an export of the export replaces only what an export wrote
    again = custom(tmp_path / "again", {"00000": (tmp_path / "out/00000.tar").read_bytes()})
    run(again, "alt", tmp_path / "out2")
    second = json.loads(webdataset_samples(tmp_path / "out2")[0]["json"])
    assert second.pop("curator_export_2")["version"] == again.versions["alt"].id
    assert second == fields


def test_an_export_of_an_export_has_one_field_of_captions(tmp_path: Path) -> None:
    kit = custom(tmp_path / "in", {"00000": tars.tar(tars.sample("a"))})
    run(kit, "alt", tmp_path / "out")
    again = custom(tmp_path / "again", {"00000": (tmp_path / "out/00000.tar").read_bytes()})
    assert run(again, "alt", tmp_path / "out2").warnings == ()
    fields = json.loads(webdataset_samples(tmp_path / "out2")[0]["json"])
    assert set(fields) == {"key", "caption", "curator"}
    assert fields["curator"]["version"] == again.versions["alt"].id


def test_a_dotted_extension_becomes_plain(tmp_path: Path) -> None:
    data = tars.tar([("b.0.25.JPG", tars.image_bytes(2)), ("b.txt", b"two")])
    kit = custom(tmp_path / "in", {"00000": data})
    run(kit, "alt", tmp_path / "out")
    (sample,) = webdataset_samples(tmp_path / "out")
    assert set(sample) == {"__key__", "jpg", "txt", "json"}


def test_shards_in_folders_keep_their_names(tmp_path: Path) -> None:
    data = tars.tar(tars.samples(2))
    kit = custom(tmp_path / "in", {"x/00000": data, "y/00000": data})
    run(kit, "alt", tmp_path / "out")
    # open_clip looks beside the tars, by base name
    for folder in ("x", "y"):
        sizes = json.loads((tmp_path / "out" / folder / "sizes.json").read_bytes())
        assert sizes == {"00000.tar": 2}
        assert len(webdataset_samples(tmp_path / "out" / folder)) == 2


def test_a_shard_without_samples_is_still_there(kit: Kit, tmp_path: Path) -> None:
    """So that {00000..00001}.tar goes on meaning the same."""
    name = "nothing"
    rule = '\n[[rule]]\nname = "never"\nfield = "num_words"\nmin = 10000\n'
    kit.decide(f'name = "{name}"\nsources = ["alt_text"]\npick = "first"\n{rule}')
    report = run(kit, name, tmp_path)
    assert report.num_samples == 0
    assert (tmp_path / "00000.tar").read_bytes() == bytes(1024)
    assert webdataset_samples(tmp_path) == []


@pytest.mark.parametrize("to", TARGETS)
def test_exporting_twice_gives_the_same_bytes(kit: Kit, tmp_path: Path, to: Target) -> None:
    options = {"license": "other"} if to == "hf" else {}
    run(kit, "all", tmp_path / "one", to=to, **options)
    run(kit, "all", tmp_path / "two", to=to, **options)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_the_manifest_names_every_file(kit: Kit, tmp_path: Path) -> None:
    run(kit, "best", tmp_path)
    manifest = outputs.read_json(tmp_path / MANIFEST)
    assert manifest["version"]["id"] == kit.versions["best"].id
    assert manifest["version"]["makers"][GENERATOR]["model"] == "tiny-vlm"
    for name, entry in manifest["files"].items():
        data = (tmp_path / name).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["size_bytes"] == len(data)


# -- parquet -------------------------------------------------------------------------------------


def test_tables(kit: Kit, tmp_path: Path) -> None:
    report = run(kit, "all", tmp_path, to="parquet")
    frame = pl.concat(
        [
            pl.DataFrame(pq.read_table(path).to_pydict())
            for path in sorted(tmp_path.glob("*.parquet"))
        ]
    )
    assert len(frame) == report.num_captions
    assert frame["key"].n_unique() == report.num_samples == 9
    two = frame.filter(pl.col("key") == "a0")
    assert two["slot"].to_list() == [0, 1]
    assert two["source"].to_list() == ["alt_text", GENERATOR]
    assert two["weight"].to_list() == [0.5, 0.5]
    assert two["shard"].to_list() == ["00000", "00000"]
    assert two["width"].to_list() == [32, 32]
    assert two["alt_text"].to_list() == ["Two dogs run on the beach near Brighton"] * 2
    images = {store.image("a0")}
    assert two["image_sha256"].to_list() == [hashlib.sha256(i).hexdigest() for i in images] * 2
    # a3 has no alt text, a4 no generated caption: one row each
    assert frame["key"].to_list().count("a3") == frame["key"].to_list().count("a4") == 1
    assert not list(tmp_path.glob("*.tar"))


def test_recap_datacomp(kit: Kit, tmp_path: Path) -> None:
    run(kit, "best", tmp_path, to="parquet", preset="recap-datacomp")
    rows = {row["key"]: row for row in pq.read_table(tmp_path / "00000.parquet").to_pylist()}
    assert rows["a0"] == {
        "url": None,
        "re_caption": "two dogs running on a beach",
        "org_caption": "Two dogs run on the beach near Brighton",
        "sha256": hashlib.sha256(store.image("a0")).hexdigest(),
        "key": "a0",
        "re_clip_score": pytest.approx(0.32),
        "org_clip_score": pytest.approx(0.30),
        "re_length": 6,
        "org_length": 8,
    }
    # the alt text won: there is no new caption, but both sides of the table stay comparable
    assert rows["a2"]["re_caption"] is None
    assert rows["a2"]["org_clip_score"] == pytest.approx(0.31)
    assert rows["a3"]["org_caption"] is None


def test_recap_datacomp_takes_urls_from_the_json(tmp_path: Path) -> None:
    files = [
        *tars.sample("a", 1)[:2],
        ("a.json", b'{"url": "https://example.org/a.jpg"}'),
        *tars.sample("b", 2)[:2],
        ("b.json", b'{"url": 5}'),
    ]
    kit = custom(tmp_path / "in", {"00000": tars.tar(files)})
    run(kit, "alt", tmp_path / "out", to="parquet", preset="recap-datacomp")
    table = pq.read_table(tmp_path / "out/00000.parquet").to_pydict()
    assert table["url"] == ["https://example.org/a.jpg", None]
    assert table["org_clip_score"] == [None, None]  # the policy had no scorer


# -- hf ------------------------------------------------------------------------------------------


def loaded(folder: Path) -> list[dict[str, Any]]:
    """The rows of `datasets.load_dataset(folder)`."""
    from datasets import load_dataset  # imports torch and pandas

    cache = folder.parent / "hf-cache"
    return list(load_dataset(str(folder), split="train", cache_dir=str(cache)))


def columns_by_hugging_face(folder: Path) -> set[str]:
    """The columns of `datasets.load_dataset(folder)`, without its own."""
    return {name for name in loaded(folder)[0] if not name.startswith("__")}


def mixed(number: int, kind: str, ext: str, **others: bytes) -> tars.Files:
    key = f"{number:05d}"
    image = tars.image_bytes(number, kind=kind)
    files = [(f"{key}.{ext}", image), (f"{key}.txt", f"alt {number}".encode())]
    return files + [(f"{key}.{name}", data) for name, data in others.items()]


def test_mixed_image_formats_load_in_datasets(tmp_path: Path) -> None:
    """jpg, png, webp, jpeg and JPG; json of their own or none; the first shard is left empty."""
    kinds = [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("JPEG", "jpeg"), ("JPEG", "JPG")]
    files = [
        file
        for number, (kind, ext) in enumerate(kinds * 2)
        for file in mixed(number, kind, ext, **({"json": b'{"x": "y"}'} if number % 2 else {}))
    ]
    broken = [("bad.jpg", b"no image"), ("bad.txt", b"x")]
    kit = custom(tmp_path / "in", {"00000": tars.tar(broken), "00001": tars.tar(files)})
    report = run(kit, "alt", tmp_path / "out", to="hf", license="cc0-1.0")
    assert columns_by_hugging_face(tmp_path / "out") == {"jpg", "txt", "json"}
    assert "image formats differ (4 jpg, 2 jpeg, 2 png, 2 webp)" in report.warnings[0]
    assert "4 jpg, 2 jpeg, 2 png, 2 webp" in (tmp_path / "out/README.md").read_text()
    found = webdataset_samples(tmp_path / "out/data")
    assert [one["jpg"] for one in found] == [
        tars.image_bytes(number, kind=kind) for number, (kind, _) in enumerate(kinds * 2)
    ]
    # elsewhere each keeps its own name
    run(kit, "alt", tmp_path / "wds")
    assert {name for one in webdataset_samples(tmp_path / "wds") for name in one} == {
        *("__key__", "jpg", "jpeg", "png", "webp", "txt", "json"),
    }


def test_images_of_one_format_keep_their_name(tmp_path: Path) -> None:
    files = [file for number in range(3) for file in mixed(number, "PNG", "png")]
    kit = custom(tmp_path / "in", {"00000": tars.tar(files)})
    report = run(kit, "alt", tmp_path / "out", to="hf", license="cc0-1.0")
    assert report.warnings == ()
    assert columns_by_hugging_face(tmp_path / "out") == {"png", "txt", "json"}


def test_other_members_that_not_all_samples_have_are_refused_for_datasets(tmp_path: Path) -> None:
    files = [*mixed(0, "JPEG", "jpg", cls=b"1"), *mixed(1, "JPEG", "jpg")]
    kit = custom(tmp_path / "in", {"00000": tars.tar(files)})
    error = fails(kit, tmp_path / "out", to="hf", license="cc0-1.0", other_members=True)
    assert (error.code, error.reason) == (2, "option.value")
    assert "cls in 1 samples" in str(error)
    assert not (tmp_path / "out").exists()
    run(kit, "alt", tmp_path / "out", to="hf", license="cc0-1.0")
    assert columns_by_hugging_face(tmp_path / "out") == {"jpg", "txt", "json"}
    same = [*mixed(0, "JPEG", "jpg", cls=b"1"), *mixed(1, "PNG", "png", cls=b"2")]
    kit = custom(tmp_path / "same", {"00000": tars.tar(same)})
    run(kit, "alt", tmp_path / "all", to="hf", license="cc0-1.0", other_members=True)
    assert columns_by_hugging_face(tmp_path / "all") == {"jpg", "txt", "json", "cls"}


def test_a_dataset_card(kit: Kit, tmp_path: Path) -> None:
    run(kit, "best", tmp_path, to="hf", license="cc-by-4.0")
    assert len(webdataset_samples(tmp_path / "data")) == 9
    text = (tmp_path / "README.md").read_text()
    card = DatasetCard(text)  # the Hub's own reader
    body = card.text
    assert card.data.license == "cc-by-4.0"
    assert card.data.size_categories == ["n<1K"]
    (config,) = card.data.configs
    (files,) = config["data_files"]
    found = sorted(tmp_path.glob(files["path"]))
    assert [path.name for path in found] == ["00000.tar", "00001.tar"]
    version = kit.versions["best"]
    for fact in (version.id, "tiny-vlm", "Describe this image in one short", "tiny-clip", "`top`"):
        assert fact in body
    # a2, a4 and b0 keep theirs; b1 is a tie, and the policy names generated captions first
    assert "| exported, with a generated caption | 6 |" in body
    assert "| exported, with the alt text | 3 |" in body
    assert "| unusable (damaged image or file) | 1 |" in body
    blocks = re.findall(r"```json\n(.*?)\n```", body, re.DOTALL)
    assert json.loads(blocks[0]) == version.makers
    assert json.loads(blocks[1]) == version.policy


def test_a_card_cannot_be_broken_out_of(tmp_path: Path) -> None:
    data = tars.tar(tars.samples(2))
    kit = custom(tmp_path / "in", {"00000": data})
    hostile = "x`\n# Free <script>alert(1)</script>\n````json"
    policy = {"name": hostile, "description": hostile, "sources": ["alt_text"], "pick": "first"}
    kit.decide("\n".join(f"{name} = {json.dumps(value)}" for name, value in policy.items()))
    run(kit, hostile, tmp_path / "out", to="hf", license="other")
    text = (tmp_path / "out/README.md").read_text()
    blocks = r"(?ms)^(`{3,})json\n.*?^\1$"
    assert len(re.findall(blocks, text)) == 3
    outside = re.sub(blocks, "", text)
    assert "<script" not in outside
    assert "\n# Free" not in outside


@pytest.mark.parametrize(
    ("number", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (12_800_000, "10M<n<100M"), (10**12, "n>1T")],
)
def test_size_categories(number: int, category: str) -> None:
    assert size_category(number) == category


# -- what is refused -----------------------------------------------------------------------------


def test_options_that_do_not_go_together(kit: Kit, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"to": "hf", "license": "My License\n---"}, "not a license id"),
        ({"to": "overlay", "license": ""}, "not a license id"),
        ({"to": "wds", "license": "mit"}, "--to hf and --to overlay"),
        ({"to": "datacompdr", "other_members": True}, "belong to other captions"),
        ({"to": "overlay", "other_members": True}, "has no members"),
        ({"to": "wds", "preset": "recap-datacomp"}, "--to parquet"),
        ({"to": "parquet", "preset": "recap-datacom"}, "did you mean 'recap-datacomp'"),
        ({"to": "zip"}, "cannot export to 'zip'"),
    ]
    for arguments, message in cases:
        error = fails(kit, tmp_path / "out", **arguments)
        assert (error.code, type(error)) == (2, UsageError)
        assert message in str(error)
    assert not (tmp_path / "out").exists()


def test_foreign_folders_are_refused(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/thesis.tex").write_text("mine")
    error = fails(kit, tmp_path / "foreign")
    assert (error.code, error.reason) == (2, "output.foreign")
    assert "thesis.tex" in str(error)
    assert tree(tmp_path / "foreign") == {"thesis.tex": b"mine"}
    run(kit, "best", tmp_path / "out")
    before = tree(tmp_path / "out")
    error = fails(kit, tmp_path / "out")  # another version
    assert (error.code, error.reason) == (2, "output.other")
    assert fails(kit, tmp_path / "out", to="parquet").code == 2
    assert tree(tmp_path / "out") == before
    # the shards themselves, or the store, are foreign as well
    assert fails(kit, kit.ws.dataset.root).reason == "output.foreign"
    assert fails(kit, kit.ws.store.root).reason == "output.inside_source"


def test_two_writers(kit: Kit, tmp_path: Path) -> None:
    with fsops.locked(tmp_path / "out" / outputs.LOCK), pytest.raises(ConflictError):
        run(kit, "alt", tmp_path / "out")
    assert run(kit, "alt", tmp_path / "out").num_samples > 0


def test_a_shard_that_is_not_given(kit: Kit, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="first '00001'"):
        export(kit.ws.store, kit.ws.shards[:1], kit.versions["alt"], tmp_path / "out", to="wds")
    assert not (tmp_path / "out").exists()


def test_hostile_names_write_nothing_outside(tmp_path: Path) -> None:
    """Every file that is opened for writing, renamed or linked lies below `out`."""
    names = ["../up", "/etc/abs", "C:\\win", "a\\b", "d/../../x", "..", "ok"]
    files = [file for number, name in enumerate(names) for file in tars.sample(name, number)]
    kit = custom(tmp_path / "in", {"00000": tars.tar(files)})
    assert kit.versions["alt"].counts["kept"] == 1
    out = tmp_path / "out"
    before = tree(tmp_path)
    touched: list[Path] = []
    fsops.set_step_hook(lambda _, path: touched.append(path))
    run(kit, "alt", out, other_members=True)
    fsops.set_step_hook(None)
    assert touched
    assert all(path in (out, tmp_path) or path.is_relative_to(out) for path in touched)
    assert {name: data for name, data in tree(tmp_path).items() if name[:4] != "out/"} == before
    assert [one["__key__"] for one in webdataset_samples(out)] == ["ok"]


@pytest.mark.parametrize("name", ["../00000", "/etc/x", "a/../../b", "..", "a\\b"])
def test_hostile_shard_names(kit: Kit, tmp_path: Path, name: str) -> None:
    """A manifest is a file that somebody can send you."""
    version = kit.versions["alt"]
    entry = version.shards[0]
    hostile = replaced(version, replaced(entry, None, name=name))
    ref = ShardRef(name, kit.ws.shards[0].path)
    with pytest.raises(UsageError) as error:
        export(kit.ws.store, [ref], hostile, tmp_path / "out", to="wds")
    assert error.value.reason == "path.traversal"
    assert list(tmp_path.iterdir()) == []


def replaced(value: Any, shard: Any = None, **changes: Any) -> Any:
    fields = {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, Version):
        changes["shards"] = (shard,)
    return type(value)(**fields | changes)


def test_a_source_that_changed(tmp_path: Path) -> None:
    kit = small_store(tmp_path / "in", ["alt"])
    path = kit.ws.shards[0].path
    good, stat = path.read_bytes(), path.stat()
    at = good.index(store.image("a1")) + 300
    path.write_bytes(tars.flip(good, at))
    error = fails(kit, tmp_path / "out")
    assert (error.code, error.reason) == (12, "source.changed")
    # with the old time it looks unchanged: the image's own sha256 tells
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    error = fails(kit, tmp_path / "out")
    assert (error.code, error.reason) == (12, "source.changed")
    assert "'a1'" in str(error)
    assert not (tmp_path / "out/00000.tar").exists()
    path.write_bytes(good[:-2000])
    assert isinstance(fails(kit, tmp_path / "out"), DamageError)
    path.unlink()
    assert fails(kit, tmp_path / "out").reason == "source.changed"
    path.write_bytes(good)
    assert run(kit, "alt", tmp_path / "out").num_new_shards == 2


def test_a_shard_that_was_indexed_again(tmp_path: Path) -> None:
    """The index now fits the new shard, but the version was made from the old one."""
    kit = small_store(tmp_path / "in", ["alt"])
    path = kit.ws.shards[0].path
    path.write_bytes(tars.tar(tars.samples(6)))
    make_index(kit.ws, ScanOptions(), stop=StopRequest())
    error = fails(kit, tmp_path / "out")
    assert (error.code, error.reason) == (12, "source.changed")


def test_a_damaged_decision(tmp_path: Path) -> None:
    kit = small_store(tmp_path / "in", ["alt"])
    path = kit.ws.store.root / kit.versions["alt"].shards[1].file
    good = path.read_bytes()
    other = kit.ws.store.root / kit.versions["alt"].shards[0].file
    path.write_bytes(other.read_bytes())  # whole, but not the one that was committed
    assert fails(kit, tmp_path / "out").code == 12
    path.unlink()
    assert fails(kit, tmp_path / "out").code == 12
    path.write_bytes(good)
    assert run(kit, "alt", tmp_path / "out").num_shards == 2


# -- resume --------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["wds", "hf", "overlay"])  # the others take the same steps
@pytest.mark.long
def test_every_write_step_can_fail_and_the_next_run_finishes(
    kit: Kit, tmp_path: Path, to: Target
) -> None:
    options: dict[str, Any] = {"license": "other"} if to == "hf" else {}
    seen: list[str] = []
    fsops.set_step_hook(lambda operation, _: seen.append(operation))
    run(kit, "best", tmp_path / "whole", to=to, **options)
    fsops.set_step_hook(None)
    expected = tree(tmp_path / "whole")
    for at in range(1, len(seen) + 1):
        out = tmp_path / f"out{at}"
        left = [at]

        def hook(_operation: str, _path: Path, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise OSError(errno.ENOSPC, "no space")

        fsops.set_step_hook(hook)
        with pytest.raises(StorageError):
            run(kit, "best", out, to=to, **options)
        fsops.set_step_hook(None)
        found = {name: data for name, data in tree(out).items() if name in expected}
        assert all(expected[name] == data for name, data in found.items())
        run(kit, "best", out, to=to, **options)
        assert tree(out) == expected, at


@pytest.mark.long
def test_kill_in_the_middle(kit: Kit, tmp_path: Path) -> None:
    run(kit, "best", tmp_path / "whole")
    script = (
        "import sys; from pathlib import Path\n"
        "from curator.export.version import export\n"
        "from curator.steps.workspace import open_workspace\n"
        "ws = open_workspace(sys.argv[1], None)\n"
        "version = ws.store.resolve('v2')\n"
        "export(ws.store, ws.shards, version, Path(sys.argv[2]), to='wds')\n"
    )
    assert kit.versions["best"].name == "v2"
    command = [sys.executable, "-c", script, str(kit.ws.dataset.root), str(tmp_path / "out")]
    for at in (4, 11, 20):  # before the claim, in the first tar, in the second
        env = {**os.environ, "CURATOR_FAILPOINT": str(at)}
        assert subprocess.run(command, env=env, check=False).returncode == -9
    run(kit, "best", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_finished_shard_is_not_made_again(kit: Kit, tmp_path: Path) -> None:
    run(kit, "best", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("0*")}
    seen: list[int] = []
    report = export(
        kit.ws.store,
        kit.ws.shards,
        kit.versions["best"],
        tmp_path,
        to="wds",
        on_progress=seen.append,
    )
    assert (report.num_shards, report.num_new_shards, report.num_samples) == (2, 0, 9)
    assert sum(seen) == 9
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("0*")}
    # a tar that was cut later is made again
    (tmp_path / "00001.tar").write_bytes(b"cut")
    assert run(kit, "best", tmp_path).num_new_shards == 1
    assert len(webdataset_samples(tmp_path)) == 9


def test_a_stop_keeps_what_is_finished(kit: Kit, tmp_path: Path) -> None:
    done = 0

    def stop(number: int) -> None:
        nonlocal done
        done += number
        if done == 8:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    version = kit.versions["best"]
    with pytest.raises(KeyboardInterrupt):
        export(kit.ws.store, kit.ws.shards, version, out, to="wds", on_progress=stop)
    assert set(tree(out)) == {"00000.tar", "00000_stats.json", outputs.CLAIM}
    assert run(kit, "best", out).num_new_shards == 1


# -- real photos ---------------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.long
def test_real_photos_come_out_byte_for_byte(shared: Path, tmp_path: Path) -> None:
    ws = open_workspace(str(shared / "data/photos"), tmp_path / "store", create=True)
    make_index(ws, ScanOptions(), stop=StopRequest())
    kit = Kit(ws)
    kit.decide("alt")
    report = run(kit, "alt", tmp_path / "out")
    assert report.num_samples == 2000
    for ref in ws.shards:
        source = scan_shard(ref, options=ScanOptions())
        copy = scan_shard(
            ShardRef(ref.name, tmp_path / "out" / f"{ref.name}.tar"), options=ScanOptions()
        )
        assert [(one.key, one.image_sha256, one.alt_text) for one in source.samples] == [
            (one.key, one.image_sha256, one.alt_text) for one in copy.samples
        ]
