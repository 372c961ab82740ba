"""Exports for other trainers, read by what reads them: open_clip, `datasets`, mlcroissant."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import mlcroissant
import open_clip_train.data
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st
from mlcroissant._src.operation_graph.operations import extract
from open_clip_train.params import parse_args
from webdataset.tariterators import tar_file_expander

from curator.export import datacompdr, open_clip
from curator.export.samples import ExportSample, ExportText
from curator.export.version import ExportOptions, ExportReport, Target, export
from curator.shards.places import Place, parse
from curator.shards.samples import Member
from curator.steps.workspace import open_workspace
from curator.store import parquet
from pretrain.data.loader import open_source
from tests.kit import store, tars
from tests.kit.cli import curator
from tests.kit.store import GENERATOR, Kit, small_store
from tests.kit.webread import webdataset_samples

MIX = """
name = "mixed"
sources = ["alt_text", "generated"]
pick = "all"

[weights]
alt_text = 0.4
generated = 0.6
"""


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """The store of storekit with a version `mixed`; no test here changes it."""
    kit = small_store(tmp_path_factory.mktemp("shards"), ["best"])
    kit.decide(MIX)
    return kit


def run(kit: Kit, policy: str, out: Path, to: Target, **options: Any) -> ExportReport:
    version = kit.versions[policy]
    return export(
        kit.ws.store, kit.ws.shards, version, out, to=to, options=ExportOptions(**options)
    )


def sample(*texts: tuple[str, str, float], key: str = "k") -> ExportSample:
    """A sample with captions of (text, source, weight)."""
    chosen = tuple(ExportText(text, source, weight, None) for text, source, weight in texts)
    member = Member("jpg", 0, 0)
    return ExportSample(key, "captioned", member, "", (member,), chosen)


# -- open_clip -----------------------------------------------------------------------------------


def test_every_caption_has_a_key_with_its_weight(kit: Kit, tmp_path: Path) -> None:
    run(kit, "mixed", tmp_path / "out", "open_clip")
    found = {
        str(one["__key__"]): json.loads(one["json"]) for one in webdataset_samples(tmp_path / "out")
    }
    ours = {
        key: {name: text for name, text in fields.items() if name != "curator"}
        for key, fields in found.items()
    }
    assert ours["a0"] == {
        "curator:alt_text:0.4": "Two dogs run on the beach near Brighton",
        f"curator:{GENERATOR}:0.6": "two dogs running on a beach",
    }
    assert ours["a3"] == {f"curator:{GENERATOR}:1": "a woman holding a cat"}  # no alt text
    assert ours["a4"] == {"curator:alt_text:1": "A plate with 3 apples"}  # no caption
    assert [one["weight"] for one in found["a0"]["curator"]["captions"]] == [0.4, 0.6]


def test_the_command_for_open_clip(kit: Kit, tmp_path: Path) -> None:
    out = tmp_path / "with a space"
    (command,) = run(kit, "mixed", out, "open_clip").commands
    assert shlex.split(command.text) == [
        *("python", "-m", "open_clip_train.main"),
        *("--train-data", f"{out}/{{00000..00001}}.tar", "--dataset-type", "webdataset"),
        *("--train-num-samples", "9", "--workers", "2"),
        "--json-text-key",
        f"curator:alt_text:0.4;curator:alt_text:1;curator:{GENERATOR}:0.6;curator:{GENERATOR}:1",
        *("--json-text-key-probs", "0.4", "1", "0.6", "1"),
    ]
    assert "June 2026" in command.about
    # one caption an image: the .txt holds it, and any release reads it
    (command,) = run(kit, "best", tmp_path / "best", "open_clip").commands
    assert "--json-text-key" not in command.text


def test_captions_of_one_source_are_numbered() -> None:
    made = sample(("x", "alt_text", 0.4), *((f"g{n}", "by hand/1", 0.3) for n in range(2)))
    files = open_clip.text_files(made, "v")
    assert files.fields == {
        "curator:alt_text:0.4": "x",
        "curator:by_hand_1:0.3": "g0",
        "curator:by_hand_1:0.3:2": "g1",
    }
    assert open_clip.without_text_keys({**files.fields, "curator:x": 1, "url": 2}) == {
        "curator:x": 1,
        "url": 2,
    }


weights = st.lists(st.floats(0.01, 1), min_size=1, max_size=6)


@given(weights)
def test_within_a_sample_the_probabilities_of_its_keys_are_its_weights(
    numbers: list[float],
) -> None:
    """open_clip draws keys in proportion to their probabilities and takes the first at hand."""
    whole = sum(numbers)
    made = sample(*((str(n), "g", one / whole) for n, one in enumerate(numbers)))
    fields = open_clip.text_files(made, "v").fields
    (words,) = [shlex.split(open_clip.command(Path("o"), {Path("o/1.tar"): 1}, fields))]
    if len(numbers) == 1:
        assert "--json-text-key" not in words
        return
    at = words.index("--json-text-key")
    keys, probabilities = words[at + 1].split(";"), [float(one) for one in words[at + 3 :]]
    chance = {
        fields[key]: one / sum(probabilities) for key, one in zip(keys, probabilities, strict=True)
    }
    for n, one in enumerate(numbers):
        assert chance[str(n)] == pytest.approx(one / whole, rel=2e-3)


def test_the_txt_is_drawn_by_weight() -> None:
    captions = (("a", "alt_text", 0.25), ("g", "x", 0.75))
    drawn = Counter(
        open_clip.text_files(sample(*captions, key=str(n)), "v").txt for n in range(4000)
    )
    assert drawn["g"] / 4000 == pytest.approx(0.75, abs=0.03)  # four standard errors
    # nothing has a weight: the first, as elsewhere
    assert open_clip.text_files(sample(("a", "x", 0.0), ("b", "x", 0.0)), "v").txt == "a"


def test_an_export_of_an_export_has_no_old_keys(kit: Kit, tmp_path: Path) -> None:
    run(kit, "mixed", tmp_path / "one", "open_clip")
    data = (tmp_path / "one/00000.tar").read_bytes()
    (tmp_path / "in").mkdir()
    tars.write(tmp_path / "in", data)
    assert curator("index", tmp_path / "in").code == 0
    assert curator("decide", tmp_path / "in", "--policy", "as-is").code == 0
    assert curator("export", tmp_path / "in", tmp_path / "two").code == 0
    for one in webdataset_samples(tmp_path / "two"):
        assert set(json.loads(one["json"])) == {"curator"}


def read_by_open_clip(
    command: str, monkeypatch: pytest.MonkeyPatch, *, epochs: int = 1
) -> Counter[str]:
    """The texts that open_clip_train's own loader gives to the tokenizer, under these flags."""
    # open_clip asks for webdataset <= 0.2.86; a newer one marks the end of a file by an empty dict.
    monkeypatch.setattr(
        open_clip_train.data,
        "tar_file_expander",
        lambda *args, **more: (one for one in tar_file_expander(*args, **more) if one),
    )
    words = shlex.split(command)[3:]
    args = parse_args([*words, "--workers", "0", "--batch-size", "1"])
    args.world_size, args.rank, args.distributed = 1, 0, False
    texts: list[str] = []

    def tokenizer(text: str | list[str]) -> torch.Tensor:
        texts.append(text if isinstance(text, str) else text[0])
        return torch.zeros(1, 77)

    info = open_clip_train.data.get_wds_dataset(
        args, lambda image: torch.zeros(1), is_train=True, tokenizer=tokenizer
    )
    assert info.dataloader.num_samples == args.train_num_samples
    for epoch in range(epochs):
        info.set_epoch(epoch)
        assert sum(1 for _ in info.dataloader) == args.train_num_samples
    return Counter(texts)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves files to the collector
def test_open_clip_reads_one_caption_an_image(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = run(kit, "best", tmp_path / "out", "open_clip").commands
    texts = [one["txt"].decode() for one in webdataset_samples(tmp_path / "out")]
    assert read_by_open_clip(command.text, monkeypatch) == Counter(texts)
    # several captions, and a release without the flags for keys: as it says, leave them out
    (command,) = run(kit, "mixed", tmp_path / "mixed", "open_clip").commands
    words = command.text.partition(" --json-text-key ")[0]
    texts = [one["txt"].decode() for one in webdataset_samples(tmp_path / "mixed")]
    assert read_by_open_clip(words, monkeypatch) == Counter(texts)


@pytest.mark.skipif(
    not hasattr(open_clip_train.data, "JsonCaptionExtractor"),
    reason="the installed open_clip has no --json-text-key (docs/how-to/other-trainers.md)",
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_open_clip_draws_among_all_captions(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = run(kit, "mixed", tmp_path / "out", "open_clip").commands
    random.seed(1)
    counts = read_by_open_clip(command.text, monkeypatch, epochs=200)
    assert counts["a woman holding a cat"] == 200
    six = ["two dogs running on a beach", "a man in a red hat", "a man on a bicycle"]
    six += ["a plane in the sky", "three children in front of a tower"]
    drawn = sum(counts[text] for text in six) / 1000
    assert drawn == pytest.approx(0.6, abs=0.07)  # four and a half standard errors


NAMES = {
    "one": (["00000"], "00000"),
    "a run": (["00008", "00009", "00010"], "{00008..00010}"),
    "a gap": (["000", "001", "003"], "{{000..001},003}"),
    "other widths": (["8", "9", "10"], "{10,{8..9}}"),  # by name, 10 comes first
    "words": (["part-a", "part-b7"], "{part-a,part-b7}"),
    "braces": (["a{1,2}"], r"a\{1\,2\}"),
}


@pytest.mark.parametrize("case", NAMES)
def test_names_of_tars_as_one_expression(case: str) -> None:
    names, expected = NAMES[case]
    found = open_clip.train_data(Path("/o"), [Path(f"/o/{name}.tar") for name in names])
    assert found == f"/o/{expected}.tar"


parts = st.sampled_from(["", "d/", "e/f/"]), st.sampled_from(["", "a", "b{,}"]), st.integers(0, 30)


@given(st.sets(st.tuples(*parts), min_size=1), st.integers(1, 2))
def test_open_clip_expands_the_expression_to_the_same_tars(
    names: set[tuple[str, str, int]], width: int
) -> None:
    paths = [Path(f"/o,{{x}}/{folder}{head}{n:0{width}d}.tar") for folder, head, n in names]
    pattern = open_clip.train_data(Path("/o,{x}"), paths)
    expanded, _ = open_clip_train.data.expand_urls(pattern)
    assert sorted(expanded) == sorted(map(str, paths))


def test_tars_in_a_bucket_are_read_through_a_pipe() -> None:
    out = parse("s3://bucket/out")
    sizes: dict[Place, int] = {out / f"{n:05d}.tar": 10 for n in range(12)}
    assert open_clip.data_flags(out, sizes) == [
        *("--train-data", "pipe:aws s3 cp s3://bucket/out/{00000..00011}.tar -"),
        *("--dataset-type", "webdataset", "--train-num-samples", "120"),
    ]


# -- DataCompDR ----------------------------------------------------------------------------------


def test_the_layout_of_datacompdr(kit: Kit, tmp_path: Path) -> None:
    (command,) = run(kit, "mixed", tmp_path / "out", "datacompdr").commands
    found = {str(one["__key__"]): one for one in webdataset_samples(tmp_path / "out")}
    assert set(found["a0"]) == {"__key__", "jpg", "txt", "json", "syn.json"}
    assert found["a0"]["jpg"] == store.image("a0")
    assert found["a0"]["txt"] == b"Two dogs run on the beach near Brighton"
    assert json.loads(found["a0"]["syn.json"]) == {"syn_text": ["two dogs running on a beach"]}
    # Apple's loader needs both of every sample
    assert found["a3"]["txt"] == b"a woman holding a cat"
    assert json.loads(found["a3"]["syn.json"]) == {"syn_text": ["a woman holding a cat"]}
    assert json.loads(found["a4"]["syn.json"]) == {"syn_text": ["A plate with 3 apples"]}
    words = shlex.split(command.text)
    assert words[words.index("--dataset-reinforcement") :] == [
        "--dataset-reinforcement",
        *("--dataset-reinforcement-syn-text-key-regex", "^syn_text$"),
        "--dataset-reinforcement-mix-synthetic",
        *("--dataset-reinforcement-mix-synthetic-ratio", "0.6"),
    ]


def test_the_ratio_is_a_mean_over_samples_with_both_kinds() -> None:
    both = sample(("x", "alt_text", 0.2), ("g", "g1", 0.4), ("h", "g2", 0.4))
    files = datacompdr.text_files(both, "v")
    assert files.txt == "x"
    assert json.loads(files.members["syn.json"]) == {"syn_text": ["g", "h"]}
    assert files.counted == ("both:0.8",)
    counted = {"both:0.8": 3, "both:0.4": 1, "alt_text": 100, "generated": 7}
    assert datacompdr.mix_ratio(counted) == pytest.approx(0.7)  # (3 * 0.8 + 0.4) / 4
    assert datacompdr.mix_ratio({"alt_text": 5}) == 0


# -- captions without images ---------------------------------------------------------------------


def datacomp(folder: Path) -> Kit:
    """Three samples as img2dataset writes DataComp: uid, url and the sha256 before resizing."""
    files = []
    for number, name in enumerate("abc"):
        fields = {"uid": f"uid-{name}", "url": f"https://x.org/{name}.jpg", "sha256": name * 64}
        files += tars.sample(name, number)[:2]
        files += [(f"{name}.json", json.dumps(fields if name != "c" else {"uid": 5}).encode())]
    folder.mkdir()
    tars.write(folder, tars.tar(files))
    assert curator("index", folder).code == 0
    assert curator("decide", folder, "--policy", "as-is").code == 0
    ws = open_workspace(str(folder), None)
    return Kit(ws, {"as-is": ws.version()})


def test_an_overlay_finds_its_images_in_other_copies(tmp_path: Path) -> None:
    kit = datacomp(tmp_path / "in")
    report = run(kit, "as-is", tmp_path / "out", "overlay")
    rows = pq.read_table(tmp_path / "out/data/00000.parquet").to_pylist()
    assert rows[0] == {
        "image_sha256": hashlib.sha256(tars.image_bytes(0)).hexdigest(),
        "key": "a",
        "shard": "00000",
        "uid": "uid-a",
        "url": "https://x.org/a.jpg",
        "original_sha256": "a" * 64,
        "slot": 0,
        "text": "a photo",
        "source": "alt_text",
        "weight": 1.0,
        "score": None,
    }
    assert [rows[2][name] for name in ("uid", "url", "original_sha256")] == [None, None, None]
    assert not list((tmp_path / "out").rglob("*.tar"))
    about = json.loads(parquet.read_metadata(tmp_path / "out/data/00000.parquet"))
    assert (about["version"], about["policy"]["name"]) == (kit.versions["as-is"].id, "as-is")
    stats = json.loads((tmp_path / "out/data/00000_stats.json").read_bytes())
    assert stats["counted"] == {"uid": 2, "url": 2, "original_sha256": 2}
    assert "hf upload" in report.commands[0].text


def test_the_card_of_an_overlay_counts_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three images a has the hash of before, b another one, and c has no url."""
    run(datacomp(tmp_path / "in"), "as-is", tmp_path / "out", "overlay")
    (code,) = re.findall(
        r"```python\n(.*?)```", (tmp_path / "out/README.md").read_text(), re.DOTALL
    )
    (tmp_path / "out/my-shards").mkdir()
    theirs = {
        "url": ["https://x.org/a.jpg", "https://x.org/b.jpg", "https://x.org/d.jpg"],
        "sha256": ["a" * 64, "f" * 64, None],
        "status": ["success", "success", "failed_to_download"],
    }
    pl.DataFrame(theirs).write_parquet(tmp_path / "out/my-shards/00000.parquet")
    monkeypatch.chdir(tmp_path / "out")
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["counts"].row(0, named=True) == {"same": 1, "changed": 1, "missing": 1}


def test_an_overlay_has_every_caption_and_a_card(kit: Kit, tmp_path: Path) -> None:
    run(kit, "mixed", tmp_path / "out", "overlay")
    frame = pl.read_parquet(tmp_path / "out/data/*.parquet")
    two = frame.filter(pl.col("key") == "a0")
    assert two["weight"].to_list() == pytest.approx([0.4, 0.6])
    assert two["source"].to_list() == ["alt_text", GENERATOR]
    card = DatasetCard((tmp_path / "out/README.md").read_text())
    assert card.data.license == "unknown"
    for column in frame.columns:
        assert f"| `{column}` |" in card.text
    assert kit.versions["mixed"].id in card.text
    assert "nobody stated one" in card.text
    found = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(found["text"]) == sorted(frame["text"])


def test_an_overlay_is_a_table_to_train_on(kit: Kit, tmp_path: Path) -> None:
    """Laid over the same shards, it gives each image the captions that the version chose."""
    run(kit, "mixed", tmp_path / "out", "overlay")
    source = open_source(f"{kit.ws.spec}@{tmp_path}/out/data/*.parquet:text")
    texts = dict(source.read(0).rows.select("key", "texts").iter_rows())
    assert texts["a0"] == [
        "Two dogs run on the beach near Brighton",
        "two dogs running on a beach",
    ]
    assert len(texts) == 6


# -- Croissant -----------------------------------------------------------------------------------


# mlcroissant calls what rdflib and pandas will remove
is_dated = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mlcroissant unpack tars here: it takes the folder from the environment at import."""
    monkeypatch.setattr(extract, "EXTRACT_PATH", type(extract.EXTRACT_PATH)(tmp_path / "unpacked"))


def described(folder: Path) -> mlcroissant.Dataset:
    dataset = mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))
    issues = dataset.metadata.ctx.issues
    assert issues.errors == set()
    # what this tool cannot know stays out, and is all that is missing
    recommended = ("datePublished", "citeAs", "license")
    assert all(any(name in one for name in recommended) for one in issues.warnings)
    return dataset


@is_dated
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # mlcroissant leaves files open
@pytest.mark.usefixtures("unpacked")
def test_croissant_of_tars(kit: Kit, tmp_path: Path) -> None:
    run(kit, "mixed", tmp_path / "out", "hf", license="cc-by-4.0")
    dataset = described(tmp_path / "out")
    assert dataset.metadata.license == ["cc-by-4.0"]
    texts = {one["texts/key"]: one["texts/content"] for one in dataset.records("texts")}
    assert len(texts) == 9
    assert texts[b"a3"] == b"a woman holding a cat"
    images = {one["images/key"]: one["images/content"] for one in dataset.records("images")}
    assert images.keys() == texts.keys()
    assert images[b"a3"].size == (32, 32)
    captions = {
        one["metadata/key"]: json.loads(one["metadata/content"])["curator"]["captions"]
        for one in dataset.records("metadata")
    }
    assert [one["weight"] for one in captions[b"a0"]] == [0.4, 0.6]


@is_dated
def test_croissant_of_an_overlay(kit: Kit, tmp_path: Path) -> None:
    run(kit, "mixed", tmp_path / "out", "overlay")
    dataset = described(tmp_path / "out")
    assert dataset.metadata.license is None
    rows = list(dataset.records("captions"))
    frame = pl.read_parquet(tmp_path / "out/data/*.parquet")
    assert {row["captions/text"].decode() for row in rows} == set(frame["text"])
    document = json.loads((tmp_path / "out/croissant.json").read_bytes())
    manifest = json.loads((tmp_path / "out/curator_version.json").read_bytes())
    assert {one["@id"]: one.get("sha256") for one in document["distribution"]} == {
        **{name: entry["sha256"] for name, entry in manifest["files"].items()},
        "tables": None,
    }
