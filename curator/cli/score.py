"""curator score: score how well texts fit their images, and flag bad texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json, table
from curator.core.errors import UsageError
from curator.core.run_options import DEFAULTS, RunOptions

if TYPE_CHECKING:
    from curator.engine.facts_loop import Tally
    from curator.steps.score import ConceptSummary


def score(
    dataset: o.WholeDataset,
    *,
    scorer: o.Scorer = None,
    scorer_url: o.ScorerUrl = None,
    concept: Annotated[
        list[str] | None,
        typer.Option(
            "--concept",
            metavar="NAME[=WORDS]",
            help="Score every image with words of yours instead: watermark, screenshot, explicit,"
            " or maps='a map|a satellite photo'. May be repeated.",
        ),
    ] = None,
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

    With --concept it scores every image with the words of concepts, for rules on concept.NAME.

    Example:

        curator score shards/ --scorer ViT-B-32:laion2b_s34b_b79k

        curator score shards/ --concept watermark --concept maps='a map'
    """
    from dataclasses import asdict

    from curator.core.stopping import stop_on_signals
    from curator.engine.makers import checker_maker, scorer_maker
    from curator.scorers import OF_MODELS, concepts, is_text_only
    from curator.shards.scan import ScanOptions
    from curator.steps.index import make_index, say_index
    from curator.steps.kinship import say_kinship
    from curator.steps.score import count_flags, summarize, summarize_concepts
    from curator.steps.score import score as run_scorer
    from curator.steps.workspace import open_workspace, refuse_version
    from curator.store.facts import CAPTIONS
    from curator.store.runs import open_run

    refuse_version(dataset, "score")
    asked = concepts.parse_concepts(concept or ())
    if asked and generated:
        raise UsageError(
            "--concept scores images with words, and --generated scores captions",
            hint="run them one after the other",
            reason="option.value",
        )
    checker = checker_maker(language)
    of_models = concepts.ROW if asked else OF_MODELS
    maker = scorer_maker(
        scorer,
        of_models=of_models,
        language=language,
        device=device,
        dtype=dtype,
        url=scorer_url,
    )
    if asked and maker.row != concepts.ROW:
        raise UsageError(
            f"--concept needs a CLIP model, but --scorer is {scorer!r}",
            hint="a folder, org/name, or ViT-B-32:tag; without --scorer the default model",
            reason="option.value",
        )
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
        if asked:
            words = [one for wordings in asked.values() for one in wordings]
            made = run_scorer(ws, maker, run_options, by_people=False, words=words, stop=stop)
            _show_concepts(summarize_concepts(ws, maker.name, asked), made, json=json)
            return
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


def _show_concepts(summaries: Sequence[ConceptSummary], made: Tally, *, json: bool) -> None:
    from dataclasses import asdict

    if json:
        show_json({"made": asdict(made), "concepts": [asdict(one) for one in summaries]})
        return
    show(f"scores made: {made.made:,}" if made.made else "all scores existed already")
    rows = [
        (one.name, one.num_images, *one.quantiles, one.num_likely, ", ".join(one.highest))
        for one in summaries
    ]
    header = ["concept", "images", "50 %", "90 %", "99 %", "at least 0.5", "highest"]
    show(table(rows, header))
