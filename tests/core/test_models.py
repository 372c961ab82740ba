"""Names, identities and the hub cache; nothing here reaches the network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest

from curator.captioners import CAPTIONERS
from curator.core.errors import EngineError, NotFoundError, UsageError
from curator.core.model_spec import OPEN_CLIP_FILES
from curator.core.models import ModelIdentity, identify, locate
from curator.scorers import SCORERS

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "my-model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"weights")
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no way to the hub."""
    path = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return path


def put(cache: Path, repository: str, *names: str, commit: str = COMMIT) -> Path:
    """A cached repository in the hub's own layout; every file holds its name."""
    home = cache / f"models--{repository.replace('/', '--')}"
    snapshot = home / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / "main").write_text(commit)
    for name in names:
        (snapshot / name).write_text(name)
    return snapshot


def test_a_folder_is_what_is_in_it(folder: Path, tmp_path: Path) -> None:
    # sorted (name NUL sha256 LF), worked out here once more
    lines = [
        f"config.json\0{hashlib.sha256(b'{}').hexdigest()}\n",
        f"model.safetensors\0{hashlib.sha256(b'weights').hexdigest()}\n",
    ]
    revision = "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()
    assert identify(str(folder)) == ModelIdentity("my-model", revision)
    assert identify(f"local-dir:{folder}") == identify(str(folder))
    assert str(identify(str(folder))) == f"my-model@{revision}"
    assert locate(str(folder)) == folder
    elsewhere = shutil.copytree(folder, tmp_path / "else" / "my-model")
    assert identify(str(elsewhere)) == identify(str(folder))


@pytest.mark.parametrize(
    "name", ["README.md", "LICENSE.txt", "metrics.json", "trainer_state.json", ".gitattributes"]
)
def test_what_is_said_about_a_model_does_not_change_it(folder: Path, name: str) -> None:
    before = identify(str(folder))
    (folder / name).write_text("{}")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "config.json").write_text("left by a download")
    assert identify(str(folder)) == before


@pytest.mark.parametrize(
    "name",
    ["tokenizer.json", "merges.txt", "chat_template.jinja", "spiece.model", "sub/extra.json"],
)
def test_what_makes_a_model_changes_it(folder: Path, name: str) -> None:
    before = identify(str(folder))
    (folder / "sub").mkdir()
    (folder / name).write_text("{}")
    assert identify(str(folder)) != before


def test_a_changed_file_is_read_again(folder: Path) -> None:
    before = identify(str(folder))
    path = folder / "model.safetensors"
    stat = path.stat()
    path.write_bytes(b"weight2")  # as long as before: only the time tells
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert identify(str(folder)) != before


@pytest.mark.parametrize("ask", [identify, locate])
def test_pickles_are_refused_by_name(folder: Path, ask: object) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"only pickled weights \(pytorch_model.bin\)") as caught:
        ask(str(folder))  # type: ignore[operator] - both take a name
    assert caught.value.reason == "model.pickle"
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(UsageError, match="no weights"):
        ask(str(folder))  # type: ignore[operator] - both take a name


def test_a_folder_has_no_revision(folder: Path) -> None:
    for ask in (identify, locate):
        with pytest.raises(UsageError, match="takes no revision"):
            ask(str(folder), revision="main")


@pytest.mark.parametrize("name", ["./none", "/none/of/these", "~/none", "local-dir:none", "a/b/c"])
def test_a_path_that_is_not_there(name: str) -> None:
    with pytest.raises(NotFoundError, match="no model folder") as caught:
        identify(name)
    assert caught.value.code == 10


@pytest.mark.parametrize("name", ["", "ViT-B-32", "a b/c", "org/name@main", "http://x/y"])
def test_a_name_of_no_form(name: str) -> None:
    with pytest.raises((UsageError, NotFoundError)) as caught:
        identify(name)
    assert caught.value.reason in ("model.name", "model.not_found")


def test_a_cached_repository_is_its_commit(cache: Path) -> None:
    snapshot = put(cache, "org/vlm", "config.json", "model.safetensors")
    assert identify("org/vlm") == ModelIdentity("org/vlm", COMMIT)
    assert identify("hf-hub:org/vlm") == ModelIdentity("org/vlm", COMMIT)
    assert identify("org/vlm", revision="main") == ModelIdentity("org/vlm", COMMIT)
    assert locate("org/vlm") == snapshot


def test_an_open_clip_name_is_its_repository(cache: Path) -> None:
    snapshot = put(
        cache,
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        "open_clip_config.json",
        "open_clip_model.safetensors",
    )
    name = "ViT-B-32:laion2b_s34b_b79k"
    assert identify(name) == ModelIdentity(name, COMMIT)
    assert locate(name, files=OPEN_CLIP_FILES) == snapshot


def test_an_unknown_revision_says_what_to_do() -> None:
    with pytest.raises(NotFoundError, match="not in the hub cache") as caught:
        identify("org/vlm")
    assert "hf download org/vlm" in str(caught.value)
    # a full commit needs no cache; a branch does
    assert identify("org/vlm", revision=COMMIT) == ModelIdentity("org/vlm", COMMIT)
    with pytest.raises(NotFoundError):
        identify("org/vlm", revision="main")


def test_an_unreachable_hub_gives_the_command() -> None:
    with pytest.raises(EngineError) as caught:
        locate("org/some-vlm")
    assert caught.value.code == 30
    assert "hf download org/some-vlm --exclude '*.bin' '*.pt' --local-dir some-vlm" in str(
        caught.value
    )
    assert "--model some-vlm" in str(caught.value)


def test_a_stopped_download_is_not_used(cache: Path) -> None:
    snapshot = put(cache, "org/vlm", "config.json", "model-00001-of-00002.safetensors")
    index = {
        "weight_map": {
            "a": "model-00001-of-00002.safetensors",
            "b": "model-00002-of-00002.safetensors",
        }
    }
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    # it would go on downloading, and cannot; huggingface_hub would use what there is
    with pytest.raises(EngineError, match=r"lacks model-00002-of-00002.safetensors"):
        locate("org/vlm")
    (snapshot / "model-00002-of-00002.safetensors").write_text("here now")
    assert locate("org/vlm") == snapshot


def test_a_transformers_copy_is_no_scorer(cache: Path) -> None:
    put(cache, "laion/clip", "config.json", "model.safetensors")
    locate("laion/clip")
    with pytest.raises(EngineError, match=r"lacks open_clip_config.json, open_clip_model"):
        locate("laion/clip", files=OPEN_CLIP_FILES)


def test_defaults_are_names_of_the_hub() -> None:
    rows = [*CAPTIONERS.rows.values(), *SCORERS.rows.values()]
    defaults = [name for row in rows for name in (row.default_model, row.default_model_gpu) if name]
    assert len(defaults) >= 4
    for default in defaults:
        assert identify(default, revision=COMMIT).revision == COMMIT


def test_no_heavy_import() -> None:
    code = "import curator.core.models, sys; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.realdata
@pytest.mark.long
def test_real_folders(shared: Path) -> None:
    clip, vlm = (identify(str(shared / "models" / name)) for name in ("photo-clip", "photo-vlm"))
    assert (clip.name, vlm.name) == ("photo-clip", "photo-vlm")
    assert clip.revision != vlm.revision
