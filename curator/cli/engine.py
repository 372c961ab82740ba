"""recaption, score, decide, policy: making facts and versions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json, table
from curator.cli.trust import BUNDLED_MODEL, HARMLESS, PRESET_POLICY, PRESET_PROMPT
from curator.core.errors import UsageError

if TYPE_CHECKING:
    from curator.engine.facts_loop import Tally
    from curator.engine.makers import Maker
    from curator.steps.recaption import RecaptionReport
    from curator.steps.workspace import Workspace
    from curator.store.versions import Version

_PolicyOption = Annotated[
    str,
    typer.Option("--policy", help="A preset (see `curator policy`) or the path of a .toml."),
    PRESET_POLICY,
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(recaption)
    app.command()(score)
    app.command()(decide)
    app.command()(policy)


def recaption(
    dataset: o.WholeDataset,
    *,
    policy: _PolicyOption = "best",
    captioner: Annotated[
        str, typer.Option(help="local (transformers), server (OpenAI-compatible), coca or echo.")
    ] = "local",
    model: Annotated[
        str | None,
        typer.Option(help="Model of the captioner: folder, hub id, or server name."),
        BUNDLED_MODEL,
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Base URL of the server, e.g. http://gpu:8000/v1.")
    ] = None,
    prompt: Annotated[
        str,
        typer.Option(help="short, detailed, spatial, grounded, or a template of your own."),
        PRESET_PROMPT,
    ] = "short",
    candidates: Annotated[int, typer.Option(min=1, help="Captions an image.")] = 1,
    max_tokens: Annotated[int | None, typer.Option(help="Longest caption, in tokens.")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy."), HARMLESS] = 0.0,
    top_p: Annotated[float, typer.Option(help="Nucleus sampling."), HARMLESS] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling."), HARMLESS] = 0,
    language: o.Language = "en",
    scorer: o.Scorer = "clip",
    only: Annotated[
        str | None,
        typer.Option(metavar="'worst 30%'", help="Regenerate only the worst-scored alt texts."),
    ] = None,
    strict: Annotated[
        bool, typer.Option(help="Exit 3 if anything is in quarantine."), HARMLESS
    ] = False,
    device: o.Device = None,
    dtype: o.Dtype = None,
    workers: o.Workers = 1,
    batch_size: o.BatchSize = None,
    stall_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds without an answer before a model is restarted.")
    ] = 600.0,
    max_quarantine: o.MaxQuarantine = 0.05,
    caption_field: o.CaptionField = None,
    image_ext: o.ImageExt = None,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Index, score, regenerate, decide: a new version.

    Goes on where an earlier run was stopped; what exists is not made again.

    Example:

        curator recaption shards/ --captioner server --url http://gpu:8000/v1 \\
            --model Qwen/Qwen3-VL-8B-Instruct --policy best
    """
    from curator.core.stopping import stop_on_signals
    from curator.engine.makers import CaptionerChoice, all_of, captioner_maker, checker_maker
    from curator.policy.model import load_policy
    from curator.shards.scan import ScanOptions, discover
    from curator.steps.recaption import Engine, Recaption, reach_server
    from curator.steps.recaption import recaption as run
    from curator.steps.workspace import open_workspace, refuse_version

    refuse_version(dataset, "recaption")
    choice = CaptionerChoice(
        captioner=captioner,
        model=model,
        url=url,
        prompt=prompt,
        language=language,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        device=device,
        dtype=dtype,
        stall_timeout_sec=stall_timeout,
    )
    chosen = load_policy(policy)
    worst = _worst_percent(only)
    if worst is not None:  # a budget regenerates some samples; the others keep what they have
        chosen = chosen.model_copy(update={"otherwise": "keep_alt"})
    discover(dataset)  # a wrong path is said before a model is fetched
    generate, by, checker = all_of(
        lambda: captioner_maker(choice, candidates=candidates) if chosen.needs_generated else None,
        lambda: _scorer(scorer, device, dtype) if chosen.needs_score or worst else None,
        lambda: checker_maker(language),
    )
    assert checker is not None
    asked = Recaption(
        captioner=generate,
        scorer=by,
        checker=checker,
        policy=chosen,
        candidates=candidates,
        worst_percent=worst,
        scan=ScanOptions(caption_field=caption_field, image_ext=_tuple(image_ext)),
        strict=strict,
    )
    engine = Engine(
        num_workers=workers,
        score_batch_size=batch_size or 32,
        caption_batch_size=batch_size or 16,
        stall_timeout_sec=stall_timeout,
        max_quarantine=max_quarantine,
    )
    reach_server(dataset, store, generate)
    ws = open_workspace(dataset, store, create=True)
    with stop_on_signals() as stop:
        report = run(ws, asked, engine, stop=stop)
    if json:
        show_json(_recaption_json(report))
    else:
        show(_recaption_text(ws, report))


def _scorer(scorer: str, device: str | None, dtype: str | None) -> Maker:
    from curator.engine.makers import scorer_maker

    return scorer_maker(scorer, device=device, dtype=dtype)


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return tuple(values) if values else None


def _worst_percent(only: str | None) -> float | None:
    if only is None:
        return None
    match = re.fullmatch(r"worst\s+(\d+(?:\.\d+)?)\s*%", only.strip())
    if match is None or not 0 < float(match[1]) <= 100:  # noqa: PLR2004 - percent
        raise UsageError(
            f"--only {only!r} is not understood",
            hint="write --only 'worst 30%'",
            reason="option.value",
        )
    return float(match[1])


def _recaption_json(report: RecaptionReport) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "version": _version_json(report.version),
        "new": report.is_new,
        "model_calls": report.num_calls,
        "index": report.index.to_json(),
        "scores": [asdict(summary) for summary in report.scores],
        "captioned": asdict(report.captioned),
        "scored": asdict(report.scored),
    }


def _version_json(version: Version) -> dict[str, object]:
    return {
        "number": version.number,
        "id": version.id,
        "parent": version.parent,
        "counts": version.counts,
        "num_samples": version.num_samples,
        "totals": dict(version.totals),
        "policy": dict(version.policy),
        "thresholds": dict(version.thresholds),
    }


def _recaption_text(ws: Workspace, report: RecaptionReport) -> str:
    made = [
        f"captions made: {report.captioned.made:,}, scores made: {report.scored.made:,}"
        if report.num_calls
        else "every fact was there already: no model was called"
    ]
    failures = report.captioned.failures | report.scored.failures
    if failures:
        made.append("failed: " + ", ".join(f"{n}x {reason}" for reason, n in failures.items()))
    made += _limit_lines(report.captioned)
    if report.scores:
        rows = [(s.source, s.num_texts, s.mean, *s.quartiles) for s in report.scores]
        made.append(table(rows, ["score of", "texts", "mean", "25 %", "50 %", "75 %"]))
    made.append(version_text(ws, report.version, report.is_new))
    return "\n".join(made)


def _limit_lines(captioned: Tally) -> list[str]:
    """What the token limit did to captions, if anything."""
    at_limit = captioned.trimmed + captioned.truncated
    if not at_limit:
        return []
    return [
        f"{at_limit:,} captions came to the token limit: {captioned.trimmed:,} were cut back to "
        f"their last whole sentence, {captioned.truncated:,} end in the middle of one "
        "(policy field truncated); a higher --max-tokens makes others"
    ]


def version_text(ws: Workspace, version: Version, is_new: bool) -> str:
    """The lines that end every command that makes a version."""
    counts = ", ".join(f"{count:,} {action}" for action, count in version.counts.items() if count)
    scored = version.totals.get("num_scored", 0)
    mean = f", mean score {version.totals['score_sum'] / scored:.3f}" if scored else ""
    head = "committed" if is_new else "nothing new: the same decision is"
    lines = [
        f"{head} {version.name} ({version.id[:12]}), policy {version.policy['name']}",
        f"  {version.num_samples:,} samples: {counts}{mean}",
    ]
    if unscored := int(version.totals.get("num_unscored", 0)):
        note = f"  {unscored:,} texts have no score; this makes them, then decide again:"
        lines += [note, f"  {_scoring(ws, version)}"]
    if cut := int(version.totals.get("num_truncated", 0)):
        lines.append(f"  {cut:,} texts end where the token limit cut them")
    if version.number == 1:  # nothing to compare it with
        lines.append(f"next: {ws.command('show', version=version.name)}")
    else:
        diff = ws.command("diff", "--html", "diff.html", version=version.name)
        lines.append(f"next: {diff}")
    folder = f"{ws.dataset.root.resolve().name}-{version.name}"
    lines.append(f"next: {ws.command('export', folder, version=version.name)}")
    return "\n".join(lines)


def _scoring(ws: Workspace, version: Version) -> str:
    from curator.steps.apply_edits import scoring_command

    return scoring_command(version, ws.spec, ws.store_option, "--generated")


def score(
    dataset: o.WholeDataset,
    *,
    scorer: o.Scorer = "clip",
    language: o.Language = "en",
    generated: Annotated[
        bool, typer.Option("--generated", help="Score generated captions as well.")
    ] = False,
    device: o.Device = None,
    dtype: o.Dtype = None,
    workers: o.Workers = 1,
    batch_size: o.BatchSize = None,
    max_quarantine: o.MaxQuarantine = 0.05,
    caption_field: o.CaptionField = None,
    image_ext: o.ImageExt = None,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Score how well captions fit their images.

    Alt texts and what people wrote, and with --generated captions. Nothing is decided.

    Example:

        curator score shards/ --scorer ViT-B-32:laion2b_s34b_b79k
    """
    from dataclasses import asdict

    from curator.core.stopping import stop_on_signals
    from curator.engine.makers import checker_maker
    from curator.shards.scan import ScanOptions
    from curator.steps.index import make_index, say_index
    from curator.steps.recaption import Engine, score_all
    from curator.steps.score import summarize
    from curator.steps.workspace import open_workspace, refuse_version
    from curator.store.facts import CAPTIONS
    from curator.store.runs import open_run

    refuse_version(dataset, "score")
    checker = checker_maker(language)
    maker = checker if scorer == "text" else _scorer(scorer, device, dtype)
    makers = [checker] if maker is checker else [maker, checker]
    engine = Engine(
        num_workers=workers, score_batch_size=batch_size or 32, max_quarantine=max_quarantine
    )
    scan = ScanOptions(caption_field=caption_field, image_ext=_tuple(image_ext))
    ws = open_workspace(dataset, store, create=True)
    options = {"dataset": dataset, "scorer": maker.name}
    with stop_on_signals() as stop, open_run(ws.store, "score", options) as run:
        say_index(make_index(ws, scan, stop=stop, num_workers=workers), run)
        generators = tuple(ws.store.makers(CAPTIONS)) if generated else ()
        tally = score_all(ws, makers, engine, generators=generators, stop=stop)
    summaries = summarize(ws, maker.name, generators)
    if json:
        show_json({"made": asdict(tally), "scores": [asdict(summary) for summary in summaries]})
        return
    show(f"scores made: {tally.made:,}" if tally.made else "every score was there already")
    rows = [
        (s.source, s.num_texts, s.mean, *s.quartiles, s.weakest_sentence, s.num_truncated)
        for s in summaries
    ]
    quartiles = ["25 %", "50 %", "75 %"]
    header = ["score of", "texts", "mean", *quartiles, "weakest sentence", "over context"]
    show(table(rows, header))


def decide(
    dataset: o.WholeDataset,
    *,
    policy: _PolicyOption = "best",
    generator: Annotated[
        list[str] | None,
        typer.Option("--generator", help="Prefer this generator; repeat for an order."),
    ] = None,
    use_scorer: Annotated[
        str | None, typer.Option("--use-scorer", help="Whose scores count, if there are several.")
    ] = None,
    language: Annotated[
        str | None,
        typer.Option("--language", help="Whose text health counts, if several."),
        HARMLESS,
    ] = None,
    max_quarantine: o.MaxQuarantine = 0.05,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Apply a policy to the facts: a version in seconds.

    Loads no model.

    Example:

        curator decide shards/ --policy raw-if-good
    """
    from curator.core.registry import load
    from curator.core.stopping import stop_on_signals
    from curator.policy.model import load_policy
    from curator.steps.decide import MakerChoice
    from curator.steps.decide import decide as run
    from curator.steps.workspace import open_workspace, refuse_version
    from curator.store.runs import open_run

    refuse_version(dataset, "decide")
    chosen = load_policy(policy)
    ws = open_workspace(dataset, store)
    choice = MakerChoice(
        generators=tuple(generator or ()),
        scorer=use_scorer,
        checker=load("curator.engine.makers:checker_maker")(language).name if language else None,
        max_quarantine=max_quarantine,
    )
    options = {"dataset": dataset, "policy": chosen.name}
    with stop_on_signals() as stop, open_run(ws.store, "decide", options):
        version, is_new = run(ws, chosen, choice, stop=stop)
    if json:
        show_json({"version": _version_json(version), "new": is_new})
    else:
        show(version_text(ws, version, is_new))


def policy(
    name: Annotated[str | None, typer.Argument(help="Print the TOML of this preset.")] = None,
) -> None:
    """List the policy presets, or print one.

    Example:

        curator policy raw-if-good > mine.toml
    """
    from curator.policy.model import PRESETS, load_policy

    if name is None:
        show(table([(p, load_policy(p).description) for p in PRESETS.names()], ["policy", ""]))
    else:
        show(PRESETS.text(name))
