"""Families of judges, from configs and model cards; what is not known is unknown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curator.steps.kinship import base_models, kinship, lineage_of


def model(folder: Path, model_type: str, card: str | None = None) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}), "utf-8")
    if card is not None:
        (folder / "README.md").write_text(card, "utf-8")
    return folder


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nbase_model: org/base\nlicence: mit\n---\n# Model", ["org/base"]),
        ("---\nbase_model:\n- org/a\n  - 'org/b'\ntags:\n- x\n---\n", ["org/a", "org/b"]),
        ("---\nbase_model: [org/a, org/b]\n---\n", ["org/a", "org/b"]),
        ("---\ntags: [x]\n---\nbase_model: org/none\n", []),  # not in the header
        ("# no header\nbase_model: org/none", []),
        ("", []),
    ],
)
def test_base_models(card: str, expected: list[str]) -> None:
    assert base_models(card) == expected


def test_kinship(tmp_path: Path) -> None:
    tuned = "---\nbase_model: org/base\n---\n"
    judge = lineage_of("org/judge", "a", model(tmp_path / "a", "qwen", tuned), is_hub_name=True)
    base = lineage_of("org/base", "b", model(tmp_path / "b", "other", "# card"), is_hub_name=True)
    other = lineage_of("smolvlm", "c", model(tmp_path / "c", "blip", "# card"))
    cardless = lineage_of("d", "d", model(tmp_path / "d", "blip"))
    alike = lineage_of("e", "e", model(tmp_path / "e", "qwen"))
    served = lineage_of("qwen-judge", None, None)
    assert kinship(judge, judge) == "it is the same model"
    assert kinship(judge, base) == "both come from org/base"
    assert kinship(judge, alike) == "both are 'qwen' models"
    assert kinship(judge, other) == ""
    assert kinship(judge, cardless) is None  # it may come from anything
    assert kinship(served, judge) is None  # a word in a name says nothing
    assert kinship(served, served) == "it has the same name"
