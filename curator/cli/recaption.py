"""curator recaption: index, score, caption, decide."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from curator.captioners import CAPTIONERS, DEFAULT_CAPTIONER
from curator.captioners.prompts import PRESETS
from curator.cli import options as o
from curator.cli.decide import version_json, version_text
from curator.cli.output import show, show_json, table
from curator.cli.trust import BUNDLED_MODEL, HARMLESS, PRESET_PROMPT
from curator.core.errors import UsageError
from curator.core.run_options import DEFAULTS, RunOptions
from curator.scorers import SCORERS

if TYPE_CHECKING:
    from curator.engine.makers import Maker
    from curator.steps.recaption import RecaptionReport
    from curator.steps.workspace import Workspace


def recaption(
    dataset: o.WholeDataset,
    *,
    policy: o.Policy = "best",
    captioner: Annotated[
        str, typer.Option(help=f"Captioner to use. {o.rows(CAPTIONERS)}.")
    ] = DEFAULT_CAPTIONER,
    model: Annotated[
        str | None,
        typer.Option(help="Model of the captioner: folder, hub id, or model name on the server."),
        BUNDLED_MODEL,
    ] = None,
    url: Annotated[
        list[str] | None,
        typer.Option(help="Base URL of a server, e.g. http://gpu:8000/v1; may be repeated."),
    ] = None,
    serve: Annotated[
        str | None,
        typer.Option(
            metavar="vllm|COMMAND",
            help="Start servers for this run, one per worker and GPU: `vllm serve MODEL`, or a "
            "command with {model} and {port}.",
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1, help="Requests each server has at once (default: as many as make it faster)."
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(help="Make larger images smaller before a server gets them (e.g. 1000000)."),
    ] = None,
    server_wait: Annotated[
        float, typer.Option(help="Seconds to wait when no server is there, then the run ends.")
    ] = DEFAULTS.server_wait_sec,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{', '.join(PRESETS)}, or your own template; repeated: captions by each. "
            "[default: short]"
        ),
        PRESET_PROMPT,
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="System prompt of a chat model.")
    ] = None,
    examples: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="JSON Lines of image and caption that a chat model is shown before each request.",
        ),
    ] = None,
    caption_from: Annotated[
        str | None,
        typer.Option(
            metavar="GENERATOR",
            help="Whose captions stand for {caption} in a prompt (default: those of the prompt "
            "before it).",
        ),
    ] = None,
    text_only: Annotated[
        bool,
        typer.Option(help="Send a server the prompt with {caption} and no image."),
        HARMLESS,
    ] = False,
    keep_names: Annotated[
        bool,
        typer.Option(help="Ask again for names and numbers of the alt text that a caption lost."),
        HARMLESS,
    ] = False,
    forbid: Annotated[
        list[str] | None,
        typer.Option(metavar="WORD", help="Refuse captions with this word; may be repeated."),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="WORD", help="Refuse captions without this word; may be repeated."),
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Number of captions per image.")] = 1,
    max_tokens: Annotated[int | None, typer.Option(help="Maximum tokens per caption.")] = None,
    temperature: Annotated[
        float,
        typer.Option(help="Sampling temperature; 0 is greedy."),
        HARMLESS,
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(help="Top-p (nucleus) sampling."),
        HARMLESS,
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed for sampling."), HARMLESS] = 0,
    language: o.Language = "en",
    scorer: o.Scorer = None,
    scorer_url: o.ScorerUrl = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCORER=MODEL",
            help="Model of a scorer that only rules of the policy ask (default: the scorer's); "
            "may be repeated.",
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="'worst 30%'", help="Caption only images with the worst alt texts."),
    ] = None,
    strict: Annotated[
        bool, typer.Option(help="Exit with code 3 if anything is in quarantine."), HARMLESS
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
    """Index, score, caption, and commit a new version.

    A run that was stopped continues; captions and scores that exist are not made again. With
    --shard-slice no version is committed: run `curator decide` once all slices are done.

    Example:

        curator recaption shards/ --captioner server --url http://gpu:8000/v1 \\
            --model Qwen/Qwen3-VL-8B-Instruct --policy best

    Alt text and caption fused in a second round, from the same model:

        curator recaption shards/ --prompt detailed --prompt fuse --keep-names
    """
    from contextlib import nullcontext

    from curator.captioners.prompts import get_prompt
    from curator.captioners.words import WordRules
    from curator.core.stopping import stop_on_signals
    from curator.engine.makers import (
        all_of,
        captioner_maker,
        check_stages,
        checker_maker,
        scorer_maker,
        split_scorer,
    )
    from curator.engine.serve import LocalServers
    from curator.policy.model import load_policy
    from curator.shards.dataset import discover
    from curator.shards.scan import ScanOptions
    from curator.steps.recaption import Recaption, reach_server
    from curator.steps.recaption import recaption as run
    from curator.steps.workspace import open_workspace, refuse_version

    refuse_version(dataset, "recaption")
    chosen = load_policy(policy)
    worst = _worst_percent(only)
    if worst is not None and shard_slice is not None:
        raise UsageError(
            "--only needs the scores of the whole dataset, and a slice has only its own",
            did="nothing was done",
            hint="drop --only, or drop --shard-slice",
            reason="option.value",
        )
    if worst is not None:  # --only captions some samples; the others keep their alt text
        chosen = chosen.model_copy(update={"otherwise": "keep_alt"})
    servers = None
    if serve is not None and chosen.needs_generated:
        if url or not model:
            raise UsageError(
                "--serve starts servers for --model, and takes no --url",
                hint="e.g. --captioner server --model Qwen/Qwen3-VL-8B-Instruct --serve vllm",
                reason="option.value",
            )
        servers = LocalServers(serve, model=model, num=workers)
        url = servers.urls
    discover(dataset)  # report a wrong path before a model is downloaded
    prompts = list(dict.fromkeys(prompt or ["short"])) if chosen.needs_generated else []
    words = WordRules(
        keep_names=keep_names, forbid=tuple(forbid or ()), require=tuple(require or ())
    )
    generators: list[Maker] = []

    def add_generators() -> None:
        """Make the captioner of each prompt; `{caption}` is what the one before it makes."""
        for one in prompts:
            needs_caption = get_prompt(one).needs_caption
            before = generators[-1].name if generators else None
            generators.append(
                captioner_maker(
                    captioner,
                    model=model,
                    url=url,
                    prompt=one,
                    language=language,
                    max_tokens=max_tokens,
                    temperature=temperature,
                    top_p=top_p,
                    seed=seed,
                    device=device,
                    dtype=dtype,
                    stall_timeout_sec=stall_timeout,
                    server_wait_sec=server_wait,
                    concurrency=concurrency,
                    max_pixels=max_pixels,
                    candidates=candidates,
                    caption_from=(caption_from or before) if needs_caption else None,
                    text_only=text_only and needs_caption,
                    system=system,
                    examples=examples,
                    words=words,
                )
            )

    check_stages(prompts, caption_from, text_only=text_only)
    judges: list[Maker] = []

    def add_judges() -> None:
        """Make the scorers that rules ask besides the policy's own."""
        named = {split_scorer(one)[0]: one for one in judge or ()}
        for row, one in named.items():
            if row not in chosen.other_scorers:
                raise UsageError(
                    f"--judge is {one!r}, and policy {chosen.name!r} has no rule with "
                    f"scorer = {row!r}",
                    hint="drop it, or add such a rule; the policy's own scorer is --scorer",
                    reason="option.value",
                )
        for row in chosen.other_scorers:
            url = scorer_url if SCORERS.spec(row).served else None
            asked_for = named.get(row, row)
            judges.append(
                scorer_maker(asked_for, language=language, device=device, dtype=dtype, url=url)
            )

    own_row = split_scorer(scorer or chosen.scorer)[0]
    others_served = any(SCORERS.spec(row).served for row in chosen.other_scorers)
    own_url = scorer_url if SCORERS.spec(own_row).served or not others_served else None
    _, _, by, checker = all_of(
        add_generators,
        add_judges,
        lambda: (
            scorer_maker(
                scorer or chosen.scorer,
                language=language,
                device=device,
                dtype=dtype,
                url=own_url,
            )
            if chosen.needs_score or worst
            else None
        ),
        lambda: checker_maker(language),
    )
    assert checker is not None
    asked = Recaption(
        captioners=tuple(generators),
        scorer=by,
        judges=tuple(judges),
        checker=checker,
        policy=chosen,
        candidates=candidates,
        worst_percent=worst,
        scan=ScanOptions(
            caption_field=caption_field, image_ext=tuple(image_ext) if image_ext else None
        ),
        strict=strict,
    )
    run_options = RunOptions(
        workers=workers,
        score_batch_size=batch_size or DEFAULTS.score_batch_size,
        caption_batch_size=batch_size or DEFAULTS.caption_batch_size,
        stall_timeout_sec=stall_timeout,
        server_wait_sec=server_wait,
        max_quarantine=max_quarantine,
        executor=executor,
        ray_address=ray_address,
        gpus=gpus,
    )
    if servers is None:
        reach_server(dataset, store, generators)
    ws = open_workspace(dataset, store, create=True, shard_slice=shard_slice)
    with stop_on_signals() as stop, servers or nullcontext():
        report = run(ws, asked, run_options, servers=servers, stop=stop)
    if json:
        show_json(_recaption_json(report))
    else:
        show(_recaption_text(ws, report, policy))


def _worst_percent(only: str | None) -> float | None:
    if only is None:
        return None
    match = re.fullmatch(r"worst\s+(\d+(?:\.\d+)?)\s*%", only.strip())
    if match is None or not 0 < float(match[1]) <= 100:  # noqa: PLR2004 - percent
        raise UsageError(
            f"--only is {only!r}, and must be a percentage above 0, at most 100",
            hint="write --only 'worst 30%'",
            reason="option.value",
        )
    return float(match[1])


def _recaption_json(report: RecaptionReport) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "version": version_json(report.version) if report.version else None,
        "new": report.is_new,
        "model_calls": report.num_calls,
        "index": report.index.to_json(),
        "scores": [asdict(summary) for summary in report.scores],
        "captioned": asdict(report.captioned),
        "scored": asdict(report.scored),
    }


def _recaption_text(ws: Workspace, report: RecaptionReport, policy: str) -> str:
    made = [
        f"captions made: {report.captioned.made:,}, scores made: {report.scored.made:,}"
        if report.num_calls
        else "all captions and scores existed already: no model was called"
    ]
    failures = report.captioned.failures | report.scored.failures
    if failures:
        made.append("failed: " + ", ".join(f"{n}x {reason}" for reason, n in failures.items()))
    captioned = report.captioned
    if at_limit := captioned.trimmed + captioned.truncated:
        made.append(
            f"{at_limit:,} captions reached the token limit: {captioned.trimmed:,} were cut back "
            f"to their last whole sentence, {captioned.truncated:,} end in the middle of a sentence"
            " (policy field truncated); to caption anew with a higher limit, raise --max-tokens"
        )
    if report.scores:
        rows = [(s.source, s.num_texts, s.mean, *s.quartiles) for s in report.scores]
        made.append(table(rows, ["score of", "texts", "mean", "25 %", "50 %", "75 %"]))
    if report.version is not None:
        made.append(version_text(ws, report.version, report.is_new))
    else:
        made.append(
            f"slice {ws.shard_slice} is done: {len(ws.shards):,} shards, no version committed\n"
            f"next, when all slices are done: `curator merge {ws.spec} STORE...` if they have "
            f"stores of their own, then `curator decide {ws.spec} --policy {policy}`"
        )
    return "\n".join(made)
