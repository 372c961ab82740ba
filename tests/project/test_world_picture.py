"""The picture in the README: the same draw every time, and all of each text in its column."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from benchmarks import world_picture
from benchmarks.world_picture import MOST_LINES, drawn, lines_of
from curator.demo.checker import check
from tests.kit.cli import curator, recaption


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo of eight images, captioned without a model."""
    out = tmp_path_factory.mktemp("demo") / "out"
    said = curator("demo", "data", out, "--images", 8, "--labelled", 0, "--side", 32)
    assert said.code == 0, said.err
    (out / "curator.toml").unlink()  # names the bundled models
    said = recaption(out / "shards")
    assert said.code == 0, said.err
    return out


def test_rows_are_the_first_of_one_draw(demo: Path) -> None:
    three, all_of_them = drawn(demo, 3, seed=0), drawn(demo, 100, seed=0)
    assert [row.alt_text for row in three] == [row.alt_text for row in all_of_them[:3]]
    truth = pl.read_parquet(demo / "truth" / "*.parquet")
    told = truth.select(pl.col("alt_text").fill_null(""), "noise").rows()
    told = [(" ".join(text.split()), noise) for text, noise in told]
    assert sorted((row.alt_text, row.noise) for row in all_of_them) == sorted(told)
    other = [row.alt_text for row in drawn(demo, 100, seed=1)]
    assert other != [row.alt_text for row in all_of_them]


def test_the_picture_is_written(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "world.png"
    monkeypatch.setattr("sys.argv", ["world_picture", str(demo), str(out), "--images", "2"])
    world_picture.main()
    with Image.open(out) as page:
        assert page.width == 2000
        assert page.getpixel((0, 0)) == (255, 255, 255)
        shown = page.crop((100, 100, 500, 500)).getextrema()
    assert max(high - low for low, high in shown) > 20  # an image is there


def test_scores_and_what_is_wrong_stand_with_the_texts(demo: Path) -> None:
    for row in drawn(demo, 100, seed=0):
        assert (row.alt_score, row.score) == (None, None)  # captioned without a scorer
        told = check(row.caption, row.scene).facts
        assert row.wrong == [name for name, fact in told.items() if fact.right < fact.claimed]


def test_a_text_is_broken_between_words_and_cut_with_an_ellipsis() -> None:
    assert lines_of("") == []
    assert lines_of("a short text") == ["a short text"]
    two = lines_of("a table and a pillar standing on grass at sunset")
    assert two == ["a table and a pillar standing on", "grass at sunset"]
    words = " ".join(str(number) for number in range(1000, 1200))
    many = lines_of(words)
    assert len(many) == MOST_LINES
    assert many[-1].endswith("\u2026")
    assert words.startswith(" ".join(many)[:-1])
    assert "".join(lines_of("x" * 80)) == "x" * 80
