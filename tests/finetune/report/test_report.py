"""Reports: what they say, and that the page is complete in itself and safe from names."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curator.core.errors import DamageError, UsageError
from curator.store import sealed
from finetune.cell_files import DenseResult
from finetune.report.build import build_report
from finetune.report.html import render_html
from finetune.report.markdown import render_markdown
from finetune.report.stats import ALPHA, Relative, difference, holm, mean_of, pair
from finetune.report.tables import net_table
from finetune.report.text import device_hours, how_trained, matched, relative, relative_is, sentence
from finetune.report.values import Comparison, Report
from finetune.report.warnings import warnings_of
from finetune.report.write import write_report
from finetune.study.recipe import PRESETS as STUDIES
from finetune.study.recipe import read_study
from finetune.study.results import metric_of
from tests.kit.study import SMALL, FakeRunner, run, study


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up study with three seeds, run to its end."""
    out = tmp_path_factory.mktemp("study") / "out"
    run(study(seeds="3"), out)
    return out


@pytest.fixture(scope="module")
def report(whole: Path) -> Report:
    return build_report(whole)


@pytest.fixture(scope="module")
def page(whole: Path, report: Report) -> str:
    return render_html(report, whole)


# -- sizes and costs -------------------------------------------------------------------------------


def test_every_arm_and_task_has_its_size_its_arithmetic_and_its_time(report: Report) -> None:
    """Of the made-up runs: 12 s on two threads are 0.0067 CPU-hours."""
    head, rows = net_table(report)
    assert head[2:4] == ["backbone", "whole net"]
    assert {(row[0], row[1]) for row in rows} == {
        (arm, task.name) for task in report.tasks for arm in task.means
    }
    for row in rows:
        assert row[2:] == ["2.22 M", "2.23 M", "1.4 · 10⁸", "3.0 · 10¹²", "0.0067 CPU-hours"]
    text = render_markdown(report)
    assert f"| {' | '.join(rows[0])} |" in text
    # 31.5 s on two threads; a random net is not pretrained.
    assert {cost.hours for cost in report.costs} == {"0.018 CPU-hours", ""}


def test_a_run_on_gpus_is_counted_in_gpu_hours() -> None:
    assert device_hours(0.4211, "GPU") == "0.42 GPU-hours"
    assert device_hours(1234.5, "CPU") == "1,200 CPU-hours"


# -- sentences -------------------------------------------------------------------------------------


def compared(
    first: dict[int, float], second: dict[int, float], metric: str = "mIoU", family: int = 1
) -> str:
    """The sentence on v2 against v1; `family` comparisons are corrected together."""
    pairs, told = pair(first, second), metric_of(metric)
    gain = None
    if pairs.seeds:
        gain = difference(pairs, higher_is_better=told.higher_is_better)
        gain = holm([gain] * family)[0]
    made = Comparison(
        arm="v2", reference="v1", metric=told, pairs=pairs, difference=gain, alpha=ALPHA / family
    )
    return sentence(made)


V1 = {0: 0.500, 1: 0.510, 2: 0.490, 3: 0.505, 4: 0.495}


def lifted(*gains: float) -> dict[int, float]:
    return {seed: V1[seed] + gain for seed, gain in enumerate(gains)}


def test_a_winner() -> None:
    # Gains 1.4, 1.8, 2.1, 2.4, 2.8 mIoU: mean 2.1, sd 0.5385, t(0.975, 4) = 2.7764: +- 0.669.
    said = compared(lifted(0.014, 0.018, 0.021, 0.024, 0.028), V1)
    assert said == "v2 beats v1 by 2.1 mIoU [1.4, 2.8], 5 seeds."


def test_a_loser_is_told_with_positive_numbers() -> None:
    said = compared(lifted(-0.014, -0.018, -0.021, -0.024, -0.028), V1)
    assert said == "v2 is worse than v1 by 2.1 mIoU [1.4, 2.8], 5 seeds."


def test_less_is_better() -> None:
    fall = lifted(-0.014, -0.018, -0.021, -0.024, -0.028)
    assert compared(fall, V1, "RMSE") == (
        "v2 beats v1 by 0.021 m RMSE [0.014, 0.028] (lower is better), 5 seeds."
    )
    assert compared(V1, fall, "RMSE").startswith("v2 is worse than v1 by 0.021 m RMSE")


def test_noise_has_no_winner() -> None:
    # Gains -1, 0, 1, 2, 0.5: mean 0.5, sd 1.118: an effect of 0.447 needs 42 seeds at 80 % power;
    # five see 1.682 standard deviations.
    said = compared(lifted(-0.01, 0.0, 0.01, 0.02, 0.005), V1)
    assert said == (
        "No significant difference between v2 and v1: +0.5 mIoU [\u22120.9, +1.9], 5 seeds; "
        "5 seeds detect 1.9 mIoU or more, 42 seeds would detect 0.5."
    )
    assert "beats" not in said


def test_nothing_at_all_needs_too_many_seeds() -> None:
    said = compared(lifted(-0.01, 0.01, -0.01, 0.0101, 0.0), V1)
    assert "and 1,000 are too few for a difference this small" in said


def test_too_few_seeds_for_anything_possible() -> None:
    # Three seeds see 3.264 sd: 131 mIoU where gains of 40, -40 and 0 have one of 40.
    said = compared({0: 0.9, 1: 0.1, 2: 0.5}, dict.fromkeys(range(3), 0.5))
    assert "3 seeds are too few to detect anything" in said


def test_two_seeds_name_no_winner() -> None:
    # Gains of 1.00 and 1.01 mIoU: the interval excludes zero, p is 0.003. That the differences are
    # normal is all that it rests on.
    said = compared({0: 0.51, 1: 0.5201}, V1)
    assert said.startswith("No significant difference between v2 and v1: +1.0 mIoU [+0.9, +1.1]")
    assert "a winner needs 3 seeds" in said


def test_noise_in_a_metric_where_less_is_better_says_better_or_worse() -> None:
    said = compared(lifted(-0.01, 0.01, -0.02, 0.0, 0.005), V1, "RMSE")
    assert "0.003 m RMSE better [" in said


def test_one_seed() -> None:
    assert compared({0: 0.52}, {0: 0.5}) == (
        "v2 against v1: +2.0 mIoU, 1 seed, so there is no interval and no verdict."
    )


def test_a_seed_that_does_nothing() -> None:
    said = compared(lifted(0.01, 0.01, 0.01), V1 | {3: 0.0})
    assert "the same for every seed: the seed does not affect these runs" in said


def test_the_same_arm_twice() -> None:
    assert compared(V1, V1) == "v2 and v1 gave the same numbers (5 seeds): they are the same runs."


def test_missing_pairs_are_named() -> None:
    said = compared({0: 0.52, 1: 0.53, 2: 0.51, 7: 0.5}, V1)
    assert "3 seeds (v2 has no seed 3, 4; v1 has no seed 7)" in said
    assert compared({7: 0.5}, {0: 0.5}) == (
        "Nothing to compare: v2 and v1 have no seed in common (v2 has no seed 0; v1 has no seed 7)."
    )


def test_a_difference_that_is_one_of_many() -> None:
    # p = 0.011 alone; times 12 it is not a difference any more.
    said = compared(lifted(0.01, 0.02, 0.03, 0.01, 0.02), V1, family=12)
    assert said.startswith("No significant difference between v2 and v1: +1.8 mIoU [+0.8, +2.8]")
    assert "significant on its own, but not among 12 comparisons (adjusted p = 0.10)" in said


def test_relative_change_as_the_paper_prints_it() -> None:
    told = Relative(n=5, change=-0.115, low=-0.13, high=-0.1)
    assert relative(told) == "\u221211.5 % [\u221213.0, \u221210.0]"
    # One seed, or an interval with 0 in it, tells no change.
    assert relative(Relative(n=1, change=0.121, low=None, high=None)) == "+12.1 %, undetermined"
    told = Relative(n=3, change=0.02, low=-0.01, high=0.05)
    assert relative(told) == "+2.0 % [\u22121.0, +5.0], undetermined"


# -- values ----------------------------------------------------------------------------------------


def test_what_a_report_finds(report: Report) -> None:
    assert [task.name for task in report.tasks] == ["segmentation", "depth"]
    assert [(task, one.arm) for task, one in report.verdict] == [
        ("segmentation", "recaptioned"),
        ("depth", "recaptioned"),
    ]
    segmentation, depth = report.tasks
    assert segmentation.metric.name == "mIoU"
    assert {mean.n for mean in segmentation.means.values()} == {3}
    assert [metric.name for metric, _ in depth.others] == ["AbsRel", "delta1"]
    # Two families: the question has two comparisons, controls and bounds have eight.
    sizes = {one.arm: one.difference.num_compared for one in depth.comparisons if one.difference}
    assert sizes["recaptioned"] == 2
    assert sizes["shuffled"] == sizes["random"] == 8
    assert set(segmentation.relative) == {
        "noisy", "recaptioned", "true captions", "shuffled", "random",
    }  # fmt: skip
    assert set(segmentation.ladders) == set(segmentation.relative) - {"random"} | {"masked images"}
    # One unit of quality is 3 mIoU, a decade of labels 8: 2.4 times fewer, which no two of the
    # amounts show: with all labels it is told better, with three tenths worse.
    by_labels = next(g for g in segmentation.gaps if (g.arm, g.what) == ("recaptioned", "labels"))
    found = by_labels.efficiency
    assert found.amounts == (7.0, 24.0, 72.0, 240.0)  # of 240 labels; 3 % of them are 7.2
    assert (found.at_least, found.less_than, found.claimed) == (1.0, pytest.approx(240 / 72), None)
    # Limits hold together: two tasks by labels and by samples; five other arms, four of them
    # pretrained, make 18.
    assert found.num_compared == 4
    others = [g.efficiency for t in report.tasks for g in t.gaps if g.arm != "recaptioned"]
    assert {one.num_compared for one in others} == {len(others)}
    assert len(segmentation.pictures) == 4


def test_the_table_is_not_needed(whole: Path) -> None:
    (whole / "results.parquet").rename(whole / "moved.parquet")
    try:
        assert build_report(whole).num_done == build_report(whole).num_cells
    finally:
        (whole / "moved.parquet").rename(whole / "results.parquet")


def test_warnings(report: Report, tmp_path: Path) -> None:
    said = "\n".join(report.warnings)
    assert "3 seeds: intervals are wide" in said
    assert "masked images was pretrained with 0.67 times the FLOPs of noisy" in said
    assert "The learning rate of depth is the same for all arms" in said
    assert "both names contain world" in said
    run(study(SMALL, seeds="1"), tmp_path / "one")
    one = build_report(tmp_path / "one")
    assert one.warnings[0].startswith("One seed")
    assert all(task.means["a"].low is None for task in one.tasks)


def test_captions_that_were_cut_are_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study(seeds="2"), out)
    # Every fourth of the long ones, 8 of their 20 tokens each: 10 % of all tokens. Two seeds see
    # 51,200 and 12,800 of them.
    told = (
        "Captions of true captions were cut: 25 % of 128,000 captions are longer than the 32 "
        "tokens that the text tower reads; 10 % of all their tokens are cut off, so nothing was "
        "learned from the removed parts. Results of this arm say nothing about the full captions."
    )
    report = build_report(out)
    assert [line for line in report.warnings if "cut" in line] == [told]
    assert "captions cut 25 %" in render_markdown(report)
    table = pl.read_parquet(out / "results.parquet")
    shares = dict(table.group_by("arm").agg(pl.col("texts_cut").first()).iter_rows())
    assert shares == {
        "noisy": 0, "recaptioned": 0, "shuffled": 0, "true captions": 0.25,
        "masked images": None, "random": None,
    }  # fmt: skip


def test_cells_of_an_earlier_version_did_not_count(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study(SMALL), out)
    for path in (out / "cells").glob("*.json"):
        record = json.loads(path.read_bytes())
        record["outcome"].pop("texts", None)
        record["outcome"].pop("held_out_texts", None)
        path.write_text(json.dumps(record))
    (line,) = [line for line in build_report(out).warnings if "cut" in line]
    assert line.endswith(
        "unknown for some runs of a, b: an earlier version of this tool did not count them."
    )


# -- no foreign numbers ----------------------------------------------------------------------------

WORDS = {"two", "three", "five", "six", "seven", "eight", "nine", "ten", "hundred", "thousand"}


@pytest.mark.parametrize("name", STUDIES.names())
@pytest.mark.long
def test_no_sentence_has_numbers_of_other_settings(tmp_path: Path, name: str) -> None:
    """A ready study with other settings than its own: three seeds, 3,210 samples."""
    values = {"seeds": "3", "samples": "3210"}
    made = read_study(name, values)
    run(made, tmp_path / "out")
    report = build_report(tmp_path / "out")
    notes = " ".join([report.description, *report.notes])
    notes = re.sub(r"docs/\S+", "", notes)  # pages are named after their date
    allowed = {"3", "3,210", "3210"}
    assert set(re.findall(r"\d[\d,.]*\b", notes)) <= allowed
    assert not set(re.findall(r"[a-z]+", notes.lower())) & WORDS
    for text in (render_markdown(report), *report.warnings):
        if 200 not in {task.options.get("steps") for task in made.task}:
            assert "200 steps" not in text
        assert "100,000" not in text
        for seeds in re.findall(r"(\w+) seeds?\b(?! would)", text):
            assert seeds in (
                *("3", "1", "One", "over", "has", "the", "every", "needs", "no", "of", "more"),
                "4",  # what several candidates need
            )


def test_sentences_follow_what_was_run(tmp_path: Path) -> None:
    run(study(SMALL), tmp_path / "out")
    report = build_report(tmp_path / "out")
    assert matched(report) == "equal samples in all arms"
    # What was seen is told, not what was asked for: here b saw half of the 1,000 samples of a.
    a, b = report.costs
    half = replace(b, samples=mean_of([500.0, 500.0]), flops=mean_of([7.5e11, 7.5e11]))
    other = replace(report, costs=[a, half])
    assert matched(other) == "samples differ between arms, see the costs"
    compute = "b was pretrained with 0.50 times the FLOPs of a, on 0.50 times the samples"
    assert any(compute in line for line in warnings_of(other, {}))
    (task,) = report.tasks
    digest = task.protocol_digest
    assert how_trained(task) == f"protocol finetune, 1,000 steps [{digest}]"
    assert len(digest) == 8
    assert all("(finetune, 1,000 steps)" in sentence(one) for one in task.comparisons)
    # The paper's figures stand only where the same metric is shown.
    assert "+12.1" not in relative_is(report)


class Unsolved(FakeRunner):
    """Probes that stopped early."""

    def finetune(self, *asked: Any) -> DenseResult:
        certificate = {"hit_cap": True, "at_edge": False}
        return replace(super().finetune(*asked), certificate=certificate)


def test_a_solved_probe_is_named_and_an_unsolved_one_is_said(tmp_path: Path) -> None:
    text = SMALL.replace('task = "depth"', 'task = "depth"\nprotocol = "solved"')
    run(study(text), tmp_path / "out", Unsolved())
    report = build_report(tmp_path / "out")
    (task,) = report.tasks
    assert task.protocol == "solved"
    said = "The probe of depth stopped before the gradient was small enough in 4 of 4 runs."
    assert said in report.warnings
    assert not any("learning rate" in warning for warning in report.warnings)
    page = render_markdown(report)
    assert "| arm | seeds | RMSE, solved |" in page
    assert f"Protocol solved [{task.protocol_digest}]" in page
    assert all("(solved)" in sentence(one) for one in task.comparisons)


def test_a_study_with_failures_and_gaps(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study(SMALL, seeds="3"), out, FakeRunner(fails=("depth, b, seed 1",)))
    report = build_report(out)
    assert report.warnings[0].startswith("1 run failed")
    assert "b has no seed 1" in sentence(report.tasks[0].comparisons[0])
    page = render_html(report, out)
    assert "no memory for depth, b, seed 1" in page
    assert "What failed" in render_markdown(report)


@pytest.mark.long
def test_before_any_dense_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study(SMALL), out, FakeRunner(fails=("depth",)))
    assert "no seed is finished for both a and b" in render_html(build_report(out), out)
    with pytest.raises(UsageError, match="no study here"):
        build_report(tmp_path)


# -- the page --------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags, the values of attributes that load something, and headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.headings: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = ("src", "href", "xlink:href", "action", "data", "srcset", "poster")
        self.loads += [value or "" for name, value in attrs if name in names]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in ("h1", "h2") and data.strip():
            self.headings.append(data.strip())


def test_the_page_is_complete_in_itself(page: str) -> None:
    found = Page(page)
    assert not {"script", "link", "iframe", "object", "embed", "form"} & set(found.tags)
    assert found.loads  # pictures, and the marks that figures use twice
    assert all(load.startswith(("data:image/png;base64,", "#")) for load in found.loads)
    assert "http://" not in page
    assert "https://" not in page
    assert not re.findall(r"url\((?!#)", page)
    assert "default-src 'none'" in page


def test_its_parts(page: str) -> None:
    found = Page(page)
    assert found.headings == [
        "made up", "Before you believe this", "Segmentation", "Depth",
        "Fewer labels, fewer samples", "Against masked images, as the paper reports it",
        "The same images, by arm", "Learning curves", "Cost", "How it was made",
    ]  # fmt: skip
    assert found.tags.count("svg") == 2 + 4 + 3  # tasks, curves, losses
    assert found.tags.count("img") == 2 * 4 * (2 + 6)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    # No stand-in colour of a figure is left, and every variable is defined in both schemes.
    assert not re.findall(r"#0b00\d\d", page)
    fonts = {"--sans", "--serif", "--mono"}
    for variable in set(re.findall(r"var\((--[a-z0-9-]+)\)", page)) - fonts:
        assert len(re.findall(rf"{variable}:", page)) == 3, variable  # light, dark, print


def test_ids_of_figures_do_not_clash(page: str) -> None:
    ids = [found for found in re.findall(r' id="(m[0-9a-f]{10}|p[0-9a-f]{10})"', page)]
    assert ids
    assert len(set(ids)) == len(ids)


def test_the_same_cells_give_the_same_bytes(whole: Path, page: str) -> None:
    assert render_html(build_report(whole), whole) == page


EVIL = "<script>alert(1)</script>$x^2$&amp;'\""


def test_names_cannot_do_anything(tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = SMALL.replace('name = "b"', f"name = '''{EVIL}'''")
    runner = FakeRunner(fails=("seed 1",))
    run(study(text, seeds="3"), out, runner)
    report = build_report(out)
    page = render_html(report, out)
    assert "script" not in Page(page).tags
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;$x^2$" in page
    markdown = render_markdown(report)
    assert "<script>" not in markdown.replace("\\<", "")


def test_a_picture_that_is_gone_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study(SMALL), out)
    paths = sorted((out / "pictures").glob("*/0-prediction.png"))
    for path in paths:
        path.unlink()
    with pytest.raises(DamageError, match=r"the file is missing, but .* lists it") as refused:
        build_report(out)
    assert refused.value.where == str(paths[0])
    for path in (out / "cells").iterdir():  # as they were written before they named digests
        path.write_text(json.dumps(sealed.read(path) | {"files": {}}))
    page = render_html(build_report(out), out)
    assert Page(page).tags.count("img") == 4 * 4 - 2
    assert page.count('<i class="none">') == 2


def test_a_number_that_was_changed_is_no_result(tmp_path: Path) -> None:
    """One bit made 0.7175 of 0.3175, and a winner of the worst arm."""
    out = tmp_path / "out"
    run(study(SMALL), out)
    for path in (out / "cells").iterdir():
        data = path.read_bytes()
        place = data.index(b'"metrics": {') + data[data.index(b'"metrics": {') :].index(b"0.") + 2
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(DamageError, match="its checksum does not match") as refused:
            build_report(out)
        assert refused.value.where == str(path)
        path.write_bytes(data)
    one, two = sorted((out / "cells").iterdir())[:2]
    one.write_bytes(two.read_bytes())
    with pytest.raises(DamageError, match="the record belongs to another run"):
        build_report(out)


def test_where_data_lie_is_nobodys_business(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study(SMALL.replace('"shards@v1"', '"/home/jo/shards@/home/jo/x.parquet:text"')), out)
    report = build_report(out)
    for text in (render_html(report, out), render_markdown(report)):
        assert "/home/jo" not in text
        assert "shards@x.parquet:text" in text.replace("\\", "")


def test_more_arms_than_colours(tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = "".join(f'[[arm]]\nname = "c{n}"\ndata = "shards@c{n}"\n' for n in range(9))
    run(study(SMALL + more), out)
    assert "No significant difference" in render_html(build_report(out), out)


def test_a_picture_is_what_the_cell_gave(whole: Path, page: str) -> None:
    found = next(whole.glob("pictures/*/0-image.png"))
    assert base64.b64encode(found.read_bytes()).decode() in page


def test_markdown(report: Report) -> None:
    text = render_markdown(report)
    assert text.startswith("# made up\n")
    assert "\nSegmentation: recaptioned beats noisy by" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    tables: dict[int, int] = {}
    for line in rows:
        columns = len(re.findall(r"(?<!\\)\|", line))
        tables[columns] = tables.get(columns, 0) + 1
    assert all(count >= 3 for count in tables.values())  # no row has a column more than its head


@pytest.mark.long
def test_written_beside_each_other(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study(SMALL), out)
    written = write_report(out)
    assert (written.html, written.markdown) == (out / "report.html", out / "report.md")
    named = write_report(out, tmp_path / "verdict.html")
    assert named.markdown == tmp_path / "verdict.md"
    assert named.html.read_bytes() == written.html.read_bytes()


def test_reports_load_no_torch() -> None:
    modules = (
        "finetune.report.write, finetune.report.stats, finetune.study.run, finetune.study.plan, "
        "finetune.study.results"
    )
    code = f"import sys, {modules}\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.long
def test_a_winner_is_named_no_more_often_than_promised(tmp_path: Path) -> None:
    """The whole way, from cells to sentences, with arms that do not differ."""

    text = SMALL.replace("seeds = 2", "seeds = 4")
    arms = "".join(f'[[arm]]\nname = "s{n}"\ndata = "shards@v{n}"\n' for n in range(20))
    run(study(text + arms), tmp_path / "out")
    task = build_report(tmp_path / "out").tasks[0]
    same = [one for one in task.comparisons if one.arm.startswith("s")]
    assert len(same) == 20
    assert sum(one.outcome != "unclear" for one in same) <= 1
