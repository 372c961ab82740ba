"""Caption the images that a generator has not captioned yet. Makes facts, commits no version."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from curator.captioners import CAPTIONERS, Caption, CaptionFailure
from curator.captioners.prompts import Prompt, get_prompt, render, safe_text
from curator.captioners.stuck_detector import MAX_IMAGES, StuckDetector
from curator.captioners.words import WordRules
from curator.core import clock, progress
from curator.core.errors import QuarantineLimitError, UsageError
from curator.core.hashing import text_sha256
from curator.core.names import NOTHING, Items, items_of
from curator.core.run_options import DEFAULTS, RunOptions
from curator.core.stopping import StopRequest
from curator.engine.claims import Claims
from curator.engine.executors import Done, Executor, Failed
from curator.engine.executors.local import ProcessExecutor, executor_of
from curator.engine.executors.stream import StreamExecutor
from curator.engine.facts_loop import FactsLoop, Record, Tally, crash_reason
from curator.engine.makers import Maker
from curator.engine.serve import LocalServers
from curator.engine.worker import CaptionItem, CaptionStream, CaptionWorker, ImageRef, PrepareWorker
from curator.policy.candidates import has_alt_text
from curator.policy.model import ALT_TEXT, Policy
from curator.shards import cache
from curator.shards.dataset import ShardRef
from curator.shards.places import is_whole, sparse
from curator.steps.workspace import Workspace
from curator.store import index
from curator.store.facts import CAPTIONS, SCORES, Facts

_DECODE_SEC = 60.0
"""A worker that only reads and decodes a batch hangs when it takes longer."""

_Detectors = defaultdict[str, StuckDetector[tuple[str, int]]]
"""One per shard: it keeps every caption, and is deleted when the shard is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Only:
    """Restrict captioning to the `worst_percent` % of samples with the lowest alt-text scores."""

    worst_percent: float
    scorer: str


def generate(
    ws: Workspace,
    maker: Maker,
    run_options: RunOptions = DEFAULTS,
    *,
    candidates: int = 1,
    only: Only | None = None,
    executor: Executor | None = None,
    servers: LocalServers | None = None,
    stop: StopRequest,
) -> Tally:
    """Caption every image that has no caption from this maker yet.

    `servers` are started when there is something to caption.

    Raises:
        same as `curator.engine.facts_loop.FactsLoop.run`.
    """
    facts = Facts(ws.store, CAPTIONS, maker.name)
    ws.store.write_recipe(CAPTIONS, maker.name, maker.recipe)
    limit = _worst_limit(ws, only) if only else None
    num_samples = {ref.name: index.shard_facts(ws.store, ref.name).num_samples for ref in ws.shards}
    total = sum(num_samples.values())
    words = WordRules.of(maker.recipe)
    numbers_of = {ref.name: number for number, ref in enumerate(ws.shards)}
    detectors: _Detectors = defaultdict(StuckDetector)

    def forget(shard: str) -> None:
        detectors.pop(shard, None)
        claims.free(shard)

    from_name = maker.recipe.get("caption_from")
    captioned = Facts(ws.store, CAPTIONS, str(from_name)) if from_name else None
    keep_of = items_of if words.keep_names else lambda _alt_text: NOTHING
    num_without = 0

    def planned(
        advance: progress.Advance, shards: Iterable[ShardRef]
    ) -> Iterator[tuple[str, list[CaptionItem]]]:
        prompt = get_prompt(str(maker.recipe["prompt"]))
        numbers = pl.DataFrame({"candidate": pl.Series(range(candidates), dtype=pl.Int16)})
        nonlocal num_without
        for ref in shards:
            samples = _asked(ws, ref, only, limit)
            if captioned is not None:
                samples = _with_caption(samples, captioned)
                num_without += samples["caption"].null_count()
                samples = samples.drop_nulls("caption")
            images = samples.unique("image_sha256", keep="first", maintain_order=True)
            wanted = images.join(numbers, how="cross", maintain_order="left_right")
            pending = facts.pending(wanted)
            advance(num_samples[ref.name] * candidates - len(pending))
            place = sparse(ref.path, int(pending["length"].sum()) // candidates)
            is_ahead = is_whole(place) and not maker.recipe.get("text_only")
            if len(pending) and is_ahead and run_options.executor == "local":
                ahead.after(numbers_of[ref.name])
            yield ref.name, _items(replace(ref, path=place), prompt, pending, keep_of)

    build: Any = partial(
        CaptionWorker,
        maker.row,
        maker.options,
        prompt=maker.recipe["prompt"],
        language=maker.recipe["language"],
        words=words,
    )
    if executor is None and hasattr(CAPTIONERS.get(maker.row), "connect"):
        build = partial(PrepareWorker, maker.row, maker.options)

        def connect(stop: Callable[[], bool]) -> CaptionStream:
            if servers is not None:
                servers.start(progress.say, stop)
            return CaptionStream(
                maker.row,
                maker.options,
                prompt=str(maker.recipe["prompt"]),
                language=str(maker.recipe["language"]),
                words=words,
                stop=stop,
            )

        stall_sec = min(_DECODE_SEC, run_options.stall_timeout_sec)
        processes = ProcessExecutor(run_options.workers, stall_sec)
        executor = StreamExecutor(processes, connect)
    with (
        progress.bar(f"caption ({maker.row})", total * candidates, "captions") as advance,
        cache.Ahead([ref.path for ref in ws.shards]) as ahead,
        Claims(ws.store, CAPTIONS, facts=facts) as claims,
    ):
        loop = FactsLoop(
            facts=facts,
            build=build,
            to_records=_to_records,
            executor=executor or executor_of(maker.spec, run_options),
            batch_size=run_options.caption_batch_size,
            advance=advance,
            run_options=run_options,
            review=partial(_review, detectors),
            refuse=partial(_refuse, detectors),
            forget=forget,
        )
        for shards in claims.rounds(ws.shards, stop=stop):
            loop.run(planned(advance, claims.take(shards)), stop=stop)
    if num_without:
        progress.say(
            f"{num_without:,} of {total:,} samples have no caption by {from_name} to put into the "
            "prompt, and were left out"
        )
    tally = loop.tally
    if only_thought := tally.failures.get("vlm.reasoning_only"):
        progress.say(
            f"{only_thought:,} answers contain reasoning but no caption: "
            "raise --max-tokens, or turn off the model's thinking"
        )
    return tally


def check_failures(
    ws: Workspace,
    maker: Maker,
    policy: Policy,
    run_options: RunOptions = DEFAULTS,
    *,
    only: Only | None = None,
) -> None:
    """Check that this maker captioned enough of the images that it was asked for, in any run.

    The decision cannot see that: where this maker failed, it takes the captions that the store
    has by another one. A failure counts where the policy has no alt text to fall back on; if all
    failed, it counts everywhere, since then the run asked for nothing that it got.

    Raises:
        QuarantineLimitError: the share of failures is above `run_options.max_quarantine`.
    """
    facts = Facts(ws.store, CAPTIONS, maker.name)
    limit = _worst_limit(ws, only) if only else None
    failed = []
    num_asked = 0
    for ref in ws.shards:
        samples = _asked(ws, ref, only, limit).with_row_index("row")
        num_asked += len(samples)
        made = facts.candidates(
            samples.select("row", "image_sha256", alt=has_alt_text()), ["text", "failure"]
        )
        by_row = made.group_by("row").agg(
            pl.col("alt").first(),
            pl.col("text").is_not_null().any().alias("any_text"),
            pl.col("failure").drop_nulls().first(),
        )
        failed.append(by_row.filter(~pl.col("any_text")).select("alt", "failure"))
    lost = pl.concat(failed) if failed else pl.DataFrame({"alt": [], "failure": []})
    falls_back = ALT_TEXT in policy.sources or policy.otherwise == "keep_alt"
    if falls_back and len(lost) < num_asked:
        lost = lost.filter(~pl.col("alt"))
    if num_asked and len(lost) > run_options.max_quarantine * num_asked:
        reasons = Counter(lost["failure"].to_list()).most_common()
        raise QuarantineLimitError(
            f"{maker.name} has no usable caption for {len(lost):,} of {num_asked:,} images "
            f"({', '.join(f'{count:,}x {reason}' for reason, count in reasons)}), the limit is "
            f"{run_options.max_quarantine:.1%}",
            did="nothing was committed; all facts are kept",
            hint="`curator quarantine list` shows them; or raise --max-quarantine",
        )


def _asked(ws: Workspace, ref: ShardRef, only: Only | None, limit: float | None) -> pl.DataFrame:
    """Return the samples of a shard whose images are to be captioned."""
    columns = ["image_sha256", "offset", "length", "alt_text", "alt_sha256", "reason"]
    samples = index.read(ws.store, ref.name, columns).filter(pl.col("reason").is_null())
    if limit is not None and only is not None:
        samples = _worst(ws, samples, only, limit)
    return samples


def _with_caption(samples: pl.DataFrame, captioned: Facts) -> pl.DataFrame:
    """Add `caption`, the first caption of each image by another maker that is fit for a prompt."""
    images = samples.select("image_sha256").unique()
    made = captioned.candidates(images, ["text"]).drop_nulls("text")
    fit = pl.col("text").map_elements(lambda text: bool(safe_text(text)), return_dtype=pl.Boolean)
    first = made.filter(fit).unique("image_sha256", keep="first", maintain_order=True)
    first = first.select("image_sha256", caption="text")
    return samples.join(first, on="image_sha256", how="left", maintain_order="left")


def _items(
    ref: ShardRef, prompt: Prompt, pending: pl.DataFrame, keep_of: Callable[[str], Items]
) -> list[CaptionItem]:
    caption = pl.col("caption") if "caption" in pending.columns else pl.lit(None, pl.String)
    rows = pending.select(
        *("image_sha256", "offset", "length", "alt_text", "candidate", "attempt"),
        caption.alias("caption"),
    )
    return [
        CaptionItem(
            ref.name,
            ImageRef(ref.path, offset, length, sha256),
            render(prompt, alt_text=alt_text, caption=caption),
            number,
            attempt,
            # Of what the model is shown: cleaned, and no longer than that.
            keep_of(safe_text(alt_text or "")),
        )
        for sha256, offset, length, alt_text, number, attempt, caption in rows.iter_rows()
    ]


def _worst_limit(ws: Workspace, only: Only) -> float:
    """Return the score below which the worst `worst_percent` % of the alt texts lie."""
    facts = Facts(ws.store, SCORES, only.scorer)
    scores = []
    for ref in ws.shards:
        columns = ["image_sha256", "alt_sha256", "reason"]
        samples = index.read(ws.store, ref.name, columns).filter(pl.col("reason").is_null())
        pairs = samples.rename({"alt_sha256": "text_sha256"}).drop_nulls("text_sha256")
        scores.append(facts.match(pairs, ["score"])["score"].drop_nulls().to_numpy())
    finite = np.concatenate(scores)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        raise UsageError(
            "--only worst needs scores of the alt texts, and there are none",
            hint="drop --only, or check with `curator index` that the samples have alt texts",
            reason="only.no_scores",
        )
    return float(np.quantile(finite, only.worst_percent / 100, method="higher"))


def _worst(ws: Workspace, samples: pl.DataFrame, only: Only, limit: float) -> pl.DataFrame:
    """Select samples below the limit; samples without a usable score count as worst."""
    facts = Facts(ws.store, SCORES, only.scorer)
    pairs = samples.with_columns(text_sha256=pl.col("alt_sha256").fill_null(""))
    score = facts.match(pairs, ["score"])["score"]
    return samples.filter(score.is_null() | score.is_nan() | (score < limit))


def _review(detectors: _Detectors, shard: str, records: list[Record]) -> list[Record]:
    """Turn captions that repeat too often in a shard into failures, also those stored before."""
    detector = detectors[shard]
    reviewed: dict[tuple[str, int, int], Record] = {}
    for record in records:
        me = (record["image_sha256"], record["attempt"])
        if record["text"] is None or record["candidate"] != 0:
            reviewed[(*me, record["candidate"])] = record
            continue
        stuck = detector.note(shard, me, record["text"])
        if me not in stuck:
            reviewed[(*me, 0)] = record
        for image, attempt in stuck:
            detail = f"same caption for many images of the shard: {record['text'][:200]}"
            # A higher attempt overrides a record that the journal may have already.
            newer = {"image_sha256": image, "attempt": attempt + 1}
            reviewed[(image, attempt, 0)] = {**record, **newer, **_failed("vlm.stuck", detail)}
    return list(reviewed.values())


def _refuse(detectors: _Detectors, shard: str, rest: Sequence[CaptionItem]) -> list[Record]:
    """Return failures for the rest of a shard once the model only repeats captions."""
    detector = detectors[shard]
    if not detector.hopeless(shard):
        return []
    progress.say(
        f"{shard}: stopped, the model gives the same caption for image after image; "
        f"{len(rest):,} images were not captioned: `curator quarantine show` lists them, "
        "`curator quarantine retry --reason vlm.stuck` marks them for another attempt"
    )
    detail = f"not captioned: the shard was stopped after more than {MAX_IMAGES} repeats in a row"
    return [{**_blank(item), **_failed("vlm.stuck", detail)} for item in rest]


def _failed(reason: str, detail: str) -> dict[str, Any]:
    return {"text": None, "text_sha256": None, "failure": reason, "detail": detail[:500]}


def _to_records(
    outcome: Done[CaptionItem, Caption | CaptionFailure] | Failed[CaptionItem],
) -> list[Record]:
    record = _blank(outcome.item)
    if isinstance(outcome, Failed):
        return [{**record, **_failed(crash_reason(outcome), outcome.detail)}]
    result = outcome.result
    if isinstance(result, CaptionFailure):
        return [{**record, **_failed(result.reason, result.detail)}]
    return [
        {
            **record,
            "text": result.text,
            "text_sha256": text_sha256(result.text),
            "finish_reason": result.finish_reason,
            "num_tokens": result.num_tokens,
            "seed": result.seed,
            "detail": result.note[:500] or None,
        }
    ]


def _blank(item: CaptionItem) -> dict[str, Any]:
    return {
        "image_sha256": item.image.sha256,
        "candidate": item.candidate,
        "text": None,
        "text_sha256": None,
        "finish_reason": None,
        "num_tokens": None,
        "seed": None,
        "failure": None,
        "detail": None,
        "attempt": item.attempt,
        "created": clock.now(),
    }
