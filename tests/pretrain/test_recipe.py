from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.core.errors import UsageError
from pretrain.recipe import PRESETS, Recipe, read_recipe

BASE = {
    "name": "x",
    "model": "ViT-B-16",
    "image_px": 224,
    "samples_seen": 1000,
    "batch_size": 100,
    "lr": 1e-3,
}


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", PRESETS.names())
def test_a_preset_is_named_like_its_file_and_says_what_it_is_for(name: str) -> None:
    found = read_recipe(name)
    assert found.name == name
    assert found.description


def test_the_large_presets_have_the_numbers_of_the_paper() -> None:
    """MobileCLIP on 12.8 M samples: 30,000 steps of 8,192, of which 1,000 to warm up."""
    for name in ("vit-b16", "mobileclip-s2"):
        found = read_recipe(name)
        assert (found.batch_size, found.total_steps) == (8192, 30_000)
        assert (found.lr, found.weight_decay, found.beta2, found.clip_grad) == (1e-3, 0.2, 0.95, 1)
        assert round(found.total_steps * found.warmup) == 1000


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"objective": "dino"}, "objective is 'dino': "),
        ({"control": "scrambled"}, "control is 'scrambled': Input should be 'shuffled'"),
        ({"lr": 0}, "lr is 0: "),
        ({"warmup": 1}, "warmup is 1: "),
        ({"batch_size": 10, "accumulate": 3}, "batch_size 10 is not a multiple of accumulate 3"),
        ({"objective": "siglip", "captions": "all"}, 'captions = "all" is for'),
        ({"objective": "mae", "control": "shuffled"}, "control is for objectives with text"),
        ({"learning_rate": 1}, "unknown key 'learning_rate'"),
        ({"mask": 0.6}, "unknown key 'mask'"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    tmp_path: Path, settings: dict[str, object], what: str
) -> None:
    lines = [f"{key} = {value!r}" for key, value in (BASE | settings).items()]
    with pytest.raises(UsageError) as error:
        read_recipe(write(tmp_path, "\n".join(lines)))
    assert what in str(error.value)
    assert "mine.toml" in str(error.value)


def test_an_unknown_name_gets_the_nearest_and_a_wrong_path_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'demo'"):
        read_recipe("demmo")
    with pytest.raises(UsageError, match="there is no recipe file"):
        read_recipe(str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match="not valid TOML"):
        read_recipe(write(tmp_path, "name = "))


def test_settings_change_values_and_are_checked() -> None:
    base = Recipe.model_validate(BASE)
    changed = base.changed(["lr=3e-4", "batch_size = 10", "init=runs/a", "compile=true"])
    assert (changed.lr, changed.batch_size, changed.init, changed.compile) == (
        3e-4, 10, "runs/a", True,
    )  # fmt: skip
    assert changed.changed(["init=none"]).init is None
    with pytest.raises(UsageError, match="write --set key=value"):
        base.changed(["lr"])
    with pytest.raises(UsageError, match="unknown key 'rl'"):
        base.changed(["rl=1"])


def test_the_digest_is_of_every_value_but_the_description() -> None:
    base = Recipe.model_validate(BASE)
    assert base.model_copy(update={"description": "other"}).digest() == base.digest()
    assert base.changed(["seed=1"]).digest() != base.digest()
    assert base.changed(["seed=0"]).digest() == base.digest()


@given(samples=st.integers(1, 10**6), batch_size=st.integers(2, 10**4))
def test_the_steps_see_the_samples_and_less_than_a_batch_more(
    samples: int, batch_size: int
) -> None:
    made = Recipe.model_validate(BASE | {"samples_seen": samples, "batch_size": batch_size})
    assert 0 <= made.total_steps * batch_size - samples < batch_size


def test_recipes_are_read_without_torch() -> None:
    code = "import sys, pretrain.recipe; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_table_of_an_objective_is_written_checked_and_refused_elsewhere(tmp_path: Path) -> None:
    text = "\n".join(f"{key} = {value!r}" for key, value in (BASE | {"objective": "mae"}).items())
    assert read_recipe(write(tmp_path, text)).options == {"mask": 0.75}
    made = read_recipe(write(tmp_path, f"{text}\n[mae]\nmask = 0.6"))
    assert made.options == {"mask": 0.6}
    assert made.model_dump()["mae"] == {"mask": 0.6}
    assert Recipe.model_validate(made.model_dump()) == made
    assert Recipe.model_validate_json(made.model_dump_json()) == made
    for wrong, what in (
        ("[mae]\nmask = 2", "[mae] mask is 2: "),
        ("[mae]\nmaks = 0.5", "[mae] unknown key 'maks': did you mean 'mask'"),
        ("[simmim]\nmask = 0.6", "[simmim] is for objective = 'simmim', but this recipe has 'mae'"),
    ):
        with pytest.raises(UsageError) as error:
            read_recipe(write(tmp_path, f"{text}\n{wrong}"))
        assert what in str(error.value)
    assert made.changed(["mae.mask=0.5"]).options == {"mask": 0.5}
    assert made.digest() != made.changed(["mae.mask=0.5"]).digest()
    # Another objective leaves the table behind, and takes its own.
    assert made.changed(["objective=clip"]).options == {}
    assert made.changed(["objective=simmim", "simmim.mask=0.5"]).options == {"mask": 0.5}
    with pytest.raises(UsageError, match=r"\[simmim\] is for objective = 'simmim'"):
        made.changed(["simmim.mask=0.5"])


def test_data_and_loop_options_are_those_of_the_recipe() -> None:
    made = Recipe.model_validate(
        BASE | {"sentences": 0.5, "crop_scale_min": 0.3, "seed": 7, "warmup": 0.25}
    )
    data, loop = made.data_options(num_workers=2), made.loop_options()
    assert (data.sentences, data.crop_scale_min, data.seed, data.num_workers) == (0.5, 0.3, 7, 2)
    assert (loop.total_steps, loop.warmup_steps, loop.lr, loop.seed) == (10, 2, 1e-3, 7)
    for options in (data, loop):  # nothing that both have is left at a default
        shared = set(Recipe.model_fields) & {field.name for field in fields(options)}
        assert shared
        assert all(getattr(options, name) == getattr(made, name) for name in shared)
