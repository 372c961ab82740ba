"""curator score: score how well texts fit their images, and flag bad texts."""

from __future__ import annotations

from typing import Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json, table
from curator.core.run_options import DEFAULTS, RunOptions


def score(
    dataset: o.WholeDataset,
    *,
    scorer: o.Scorer = None,
    scorer_url: o.ScorerUrl = None,
    language: o.Language = "en",
    generated: Annotated[
        bool, typer.Option("--generated", help="Also score generated captions.")
    ] = False,
    device: o.Device = None,
    dtype: o.Dtype = None,
    workers: o.Workers = DEFAULTS.workers,
    executor: o.Executor = DEFAULTS.executor,
    ray_address: o.RayAddress = None,
    gpus: o.Gpus = None,
    shard_slice: o.ShardSlice = None,
    batch_size: o.BatchSize = None,
    stall_timeout: o.StallTimeout = DEFAULTS.stall_timeout_sec,
    max_quarantine: o.MaxQuarantine = DEFAULTS.max_quarantine,
    caption_field: o.CaptionField = None,
    image_ext: o.ImageExt = None,
    store: o.StoreOption = None,
    cache_dir: o.CacheDir = None,
    cache_size: o.CacheSize = None,
    json: o.Json = False,
) -> None:
    """Score how well captions fit their images.

    Scores alt texts and edited texts, with --generated also captions. Commits no version.

    Example:

        curator score shards/ --scorer ViT-B-32:laion2b_s34b_b79k
    """
    from dataclasses import asdict

    from curator.core.stopping import stop_on_signals
    from curator.engine.makers import checker_maker, scorer_maker
    from curator.scorers import is_text_only
    from curator.shards.scan import ScanOptions
    from curator.steps.index import make_index, say_index
    from curator.steps.kinship import say_kinship
    from curator.steps.score import count_flags, summarize
    from curator.steps.score import score as run_scorer
    from curator.steps.workspace import open_workspace, refuse_version
    from curator.store.facts import CAPTIONS
    from curator.store.runs import open_run

    refuse_version(dataset, "score")
    checker = checker_maker(language)
    maker = scorer_maker(scorer, language=language, device=device, dtype=dtype, url=scorer_url)
    run_options = RunOptions(
        workers=workers,
        score_batch_size=batch_size or DEFAULTS.score_batch_size,
        stall_timeout_sec=stall_timeout,
        max_quarantine=max_quarantine,
        executor=executor,
        ray_address=ray_address,
        gpus=gpus,
    )
    scan = ScanOptions(
        caption_field=caption_field, image_ext=tuple(image_ext) if image_ext else None
    )
    ws = open_workspace(dataset, store, create=True, shard_slice=shard_slice)
    options = {"dataset": dataset, "scorer": maker.name, "shard_slice": shard_slice}
    say_kinship(ws, maker)
    with stop_on_signals() as stop, open_run(ws.store, "score", options) as run:
        say_index(make_index(ws, scan, run_options, stop=stop), run)
        generators = tuple(ws.store.makers(CAPTIONS)) if generated else ()
        made = run_scorer(ws, maker, run_options, generators=generators, stop=stop)
        checked = made
        if checker.name != maker.name:
            checked = run_scorer(ws, checker, run_options, generators=generators, stop=stop)
    flags = count_flags(ws, checker.name, generators)
    # A scorer of texts only leaves flags and no number.
    summaries = [] if is_text_only(maker.recipe) else summarize(ws, maker.name, generators)
    if json:
        scores = [asdict(summary) for summary in summaries]
        show_json(
            {"made": asdict(made), "checked": asdict(checked), "scores": scores, "flags": flags}
        )
        return
    if is_text_only(maker.recipe):
        what = f"texts checked: {made.made:,}" if made.made else "all texts were checked already"
        show(what)
        if maker.name != checker.name:
            flags = count_flags(ws, maker.name, generators)
        names = dict.fromkeys(name for counts in flags.values() for name in counts)
        rows = [
            (name or "no flag", *(flags[source].get(name, 0) for source in flags)) for name in names
        ]
        if rows:
            show(table(rows, ["flag", *flags]))
        return
    show(f"scores made: {made.made:,}" if made.made else "all scores existed already")
    rows = [
        (s.source, s.num_texts, s.mean, *s.quartiles, s.weakest_sentence, s.num_truncated)
        for s in summaries
    ]
    quartiles = ["25 %", "50 %", "75 %"]
    header = ["score of", "texts", "mean", *quartiles, "weakest sentence", "over context"]
    show(table(rows, header))
