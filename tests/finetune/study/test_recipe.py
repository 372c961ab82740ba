"""Study files: what they may say, what fills their names, and what is said about mistakes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from curator.core.errors import UsageError
from finetune.study.recipe import PRESETS as STUDIES
from finetune.study.recipe import Study, parse_study, read_study
from pretrain.data.options import Control
from pretrain.objectives import objective_class
from pretrain.objectives.masked import Masked
from pretrain.recipe import PRESETS as RECIPES
from pretrain.recipe import read_recipe
from tests.kit.paths import ROOT
from tests.kit.study import SMALL, STUDY, study


def test_a_study() -> None:
    made = study(seeds="[3, 5]")
    assert made.seeds == (3, 5)
    assert [arm.kind for arm in made.arm] == [
        "captions", "captions", "captions", "control", "images", "random",
    ]  # fmt: skip
    assert made.task[0].dense_options(seed=3, fraction=0.1, lr=0.5).freeze
    assert made.task[0].dense_options().steps == 40
    assert made.pretrain.samples_seen == (12_800, 51_200)


def test_names_are_filled_with_their_type() -> None:
    assert study(steps="7").task[0].dense_options().steps == 7
    made = parse_study(
        SMALL.replace('"shards@v1"', '"{where}/shards@v{number}"'),
        where="test",
        values={"where": "/data", "number": "4"},
    )
    assert made.arm[0].data == "/data/shards@v4"


def test_paths_start_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    made = read_study(str(tmp_path / "small.toml"))
    assert made.arm[0].data == f"{tmp_path}/shards@v1"
    assert made.task[0].data == f"{tmp_path}/depth"
    text = SMALL.replace('"shards@v1"', '"s3://photos@v1"').replace('"depth"\nopt', '"/d"\nopt')
    (tmp_path / "small.toml").write_text(text)
    made = read_study(str(tmp_path / "small.toml"))
    assert (made.arm[0].data, made.task[0].data) == ("s3://photos@v1", "/d")
    assert made.pretrain.recipe == "tiny"
    text = SMALL.replace('recipe = "tiny"', 'recipe = "tiny.toml"')
    for backbone, wanted in (("runs/x", f"{tmp_path}/runs/x"), ("timm:x", "timm:x")):
        changed = text.replace('data = "shards@v2"', f'backbone = "{backbone}"')
        (tmp_path / "small.toml").write_text(changed)
        made = read_study(str(tmp_path / "small.toml"))
        assert made.arm[1].backbone == wanted
    assert made.pretrain.recipe == f"{tmp_path}/tiny.toml"


@pytest.mark.parametrize("name", STUDIES.names())
def test_ready_studies(name: str) -> None:
    folder = "demo" if name == "demo" else "world"
    made = read_study(name, {folder: "folder", "seeds": "2"})
    assert made.name == name
    assert made.seeds == (0, 1)
    alt_texts = "folder/alt_texts.parquet:right_37" if name == "reference" else "v2"
    assert made.arm_named(made.baseline).data == f"folder/shards@{alt_texts}"
    assert {task.protocol for task in made.task if not task.arms} == {"solved"}
    assert {task.protocol for task in made.task if task.arms} <= {"finetune"}
    assert {"captions", "images", "random"} <= {arm.kind for arm in made.arm}
    assert made.pretrain.recipe in RECIPES.names()


def test_the_study_of_the_large_world_takes_both_kinds_of_nets() -> None:
    vit = {"net": "world-vit", "masked": "mae", "mask": "0.75"}
    for values, masked in (({}, "simmim"), (vit, "mae")):
        made = read_study("world", values)
        images = made.arm_named("masked images")
        assert images.objective == masked
        recipe = read_recipe(made.pretrain.recipe)
        made = recipe.with_values({"objective": masked, **images.options}, where="test")
        assert made.options == {"mask": 0.75 if values else 0.6}
        assert isinstance(objective_class(made)(made), Masked)


MISTAKES = [
    ('baseline = "a"', 'baseline = "c"', "`baseline` 'c' is not an arm"),
    ('baseline = "a"', 'baseline = "a"\nmae = "c"', "`mae` 'c' is not an arm"),
    ('baseline = "a"', 'baseline = "a"\nverdict = ["a"]', "`verdict` 'a'"),
    ('baseline = "a"', 'baseline = "a"\nsedes = 3', "unknown key 'sedes': did you mean 'seeds'"),
    ("seeds = 2", "seeds = [1, 1]", "a list of different numbers"),
    ("seeds = 2", "seeds = 0", "a number above 0"),
    ('name = "b"', 'name = "a"', "two arms are named 'a'"),
    ('data = "shards@v2"', "", "either `data` or `backbone`"),
    ('data = "shards@v2"', 'data = "x"\nbackbone = "random"', "either `data` or `backbone`"),
    ('data = "shards@v2"', 'backbone = "random"\ncontrol = "shuffled"', "are for arms with `data`"),
    ('data = "shards@v2"', 'data = "x"\ncontrol = "length-matched"', "`reference` goes with"),
    ('data = "shards@v2"', 'data = "x"\ncontrol = "shufled"', "arm.1.control"),
    ('data = "shards@v2"', 'data = "x"\nobjektive = "mae"', "did you mean 'objective'"),
    ('task = "depth"', 'task = "deph"', "task.0.task"),
    ('task = "depth"', 'task = "depth"\nfractions = [0, 1]', "above 0 and at most 1"),
    ('task = "depth"', 'task = "depth"\narms = ["a", "c"]', "task depth: 'c' is not an arm"),
    ('task = "depth"', 'task = "depth"\narms = ["b"]', "task depth lacks the baseline, 'a'"),
    ("image_px = [32, 32]", "image_px = [32, 32], seed = 3", "seed is set by the study"),
    ("image_px = [32, 32]", "image_pixels = 3", "image_pixels"),
    ("image_px = [32, 32]", "steps = 0", "steps"),
    ("samples_seen = 1000", "samples_seen = 1000\nrecipes = 3", "unknown key 'pretrain.recipes'"),
    ("[set]", "[set", "not valid TOML"),
    ('"{seeds}"', '"{sedes}"', "{sedes} has no value"),
]


@pytest.mark.parametrize(("old", "new", "said"), MISTAKES, ids=[said for _, _, said in MISTAKES])
def test_mistakes_are_named(old: str, new: str, said: str) -> None:
    assert old in SMALL
    with pytest.raises(UsageError) as caught:
        parse_study(SMALL.replace(old, new), where="small.toml")
    assert said in str(caught.value)


def test_values_for_names_that_are_not_there() -> None:
    with pytest.raises(UsageError, match=r"the study has no \{sead\}.*did you mean 'seeds'"):
        study(sead="3")


def test_studies_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'demo'"):
        read_study("demoo")
    with pytest.raises(UsageError, match="there is no study file"):
        read_study(str(tmp_path / "x.toml"))
    (tmp_path / "x.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_study(str(tmp_path / "x.toml"))


def test_two_tasks_of_a_kind_need_names() -> None:
    task = STUDY[STUDY.index("[[task]]") :]
    with pytest.raises(UsageError, match="two tasks are named"):
        study(STUDY + task)


def shown_on(page: str) -> tuple[str, Study]:
    """The text of a page of docs/, and the study file that it shows first."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    return text, parse_study(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0], where=page)


def test_the_study_of_the_docs() -> None:
    text, made = shown_on("reference/study.md")
    assert made.verdict == ("recaptioned",)
    for control in get_args(Control):
        assert f"| `{control}` |" in text


def test_the_study_that_reproduces_the_paper() -> None:
    _, made = shown_on("how-to/reproduce-clip-quality-captions.md")
    assert [task.task for task in made.task] == ["segmentation", "depth"]
    assert made.mae == "masked images"
