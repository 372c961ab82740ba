"""Score image-text pairs for alignment and texts for health. Makes facts, commits no version.

Texts edited by hand are scored like alt texts, with all edits in effect applied.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from curator.core import clock, progress
from curator.core.hashing import text_sha256
from curator.core.run_options import DEFAULTS, RunOptions
from curator.core.stopping import StopRequest
from curator.edits.apply import HUMAN
from curator.edits.log import history
from curator.engine.claims import Claims
from curator.engine.executors import Done, Executor, Failed
from curator.engine.executors.local import executor_of
from curator.engine.facts_loop import FactsLoop, Record, Tally, crash_reason
from curator.engine.makers import Maker
from curator.engine.worker import ImageRef, ScoreItem, ScoreWorker
from curator.policy.candidates import has_alt_text
from curator.policy.model import ALT_TEXT
from curator.scorers import Score, is_text_only
from curator.shards import cache
from curator.shards.dataset import ShardRef
from curator.shards.places import is_whole, sparse
from curator.steps.workspace import Workspace
from curator.store import index
from curator.store.facts import CAPTIONS, SCORES, Facts

_TEXTS_A_BATCH = 512
GENERATED_STAGE = "+generated"
"""Ends the names of the journals of scores of generated captions."""
_PAIR = {"image_sha256": pl.String, "text_sha256": pl.String, "text": pl.String}


def score(
    ws: Workspace,
    maker: Maker,
    run_options: RunOptions = DEFAULTS,
    *,
    generators: Sequence[str] = (),
    by_people: bool = True,
    words: Sequence[str] = (),
    executor: Executor | None = None,
    stop: StopRequest,
) -> Tally:
    """Score every pair that has no score from this maker yet.

    The texts are the captions of `generators`, with `by_people` also alt texts and edited texts,
    and `words`, which are scored with every image.

    Raises:
        same as `curator.engine.facts_loop.FactsLoop.run`.
    """
    facts = Facts(ws.store, SCORES, maker.name)
    ws.store.write_recipe(SCORES, maker.name, maker.recipe)
    text_only = is_text_only(maker.recipe)
    sources = [Facts(ws.store, CAPTIONS, name) for name in generators]

    numbers_of = {ref.name: number for number, ref in enumerate(ws.shards)}

    def planned(
        advance: progress.Advance, shards: Iterable[ShardRef]
    ) -> Iterator[tuple[str, list[ScoreItem]]]:
        columns = ["image_sha256", "offset", "length", "alt_text", "alt_sha256"]
        for ref in shards:
            samples = _usable(ws, ref, columns)
            parts = [_generated(samples, source) for source in sources]
            if by_people:
                parts = [_alt_texts(samples), *parts, _edited(ws, ref, samples)]
            parts += [with_words(samples, one) for one in words]
            pairs = _distinct(parts)
            if text_only:
                pairs = pairs.with_columns(image_sha256=pl.lit(""))
            pending = facts.pending(pairs)
            items = _text_items(ref, pending) if text_only else _image_items(ref, samples, pending)
            is_here = run_options.executor == "local"  # nodes of Ray fetch for themselves
            if is_here and any(item.image and is_whole(item.image.path) for item in items[:1]):
                ahead.after(numbers_of[ref.name])
            advance(num_samples[ref.name] - len(items))
            yield ref.name, items

    num_samples = {ref.name: index.shard_facts(ws.store, ref.name).num_samples for ref in ws.shards}
    total = sum(num_samples.values())
    stage = "" if by_people else GENERATED_STAGE
    with (
        progress.bar(f"score ({maker.row})", total, "samples") as advance,
        cache.Ahead([ref.path for ref in ws.shards]) as ahead,
        Claims(ws.store, SCORES, facts=facts, stage=stage) as claims,
    ):
        loop = FactsLoop(
            facts=facts,
            build=partial(ScoreWorker, maker.row, maker.options),
            to_records=_to_records,
            executor=executor or executor_of(maker.spec, run_options),
            batch_size=_TEXTS_A_BATCH if text_only else run_options.score_batch_size,
            advance=advance,
            run_options=run_options,
            stage=stage,
            forget=claims.free,
        )
        for shards in claims.rounds(ws.shards, stop=stop):
            loop.run(planned(advance, claims.take(shards)), stop=stop)
    return loop.tally


def score_all(
    ws: Workspace,
    makers: Sequence[Maker],
    run_options: RunOptions = DEFAULTS,
    *,
    generators: Sequence[str] = (),
    by_people: bool = True,
    stop: StopRequest,
) -> Tally:
    """Run `score` for each of `makers`; return the sum over those that run a model."""
    total = Tally()
    for maker in makers:
        tally = score(ws, maker, run_options, generators=generators, by_people=by_people, stop=stop)
        if not is_text_only(maker.recipe):
            total = total.plus(tally)
    return total


def _usable(ws: Workspace, ref: ShardRef, columns: list[str]) -> pl.DataFrame:
    rows = index.read(ws.store, ref.name, [*columns, "reason"])
    return rows.filter(pl.col("reason").is_null()).drop("reason")


def _alt_texts(samples: pl.DataFrame) -> pl.DataFrame:
    there = samples.filter(has_alt_text())
    return there.rename({"alt_text": "text", "alt_sha256": "text_sha256"}).select(*_PAIR)


def with_words(samples: pl.DataFrame, words: str) -> pl.DataFrame:
    """Return the same words as the text of every image: image_sha256, text_sha256, text."""
    digest = text_sha256(words)
    return samples.select("image_sha256", text_sha256=pl.lit(digest), text=pl.lit(words))


def _generated(samples: pl.DataFrame, source: Facts) -> pl.DataFrame:
    images = samples.select("image_sha256")
    return source.candidates(images, ["text", "text_sha256"]).select(*_PAIR)


def _edited(ws: Workspace, ref: ShardRef, samples: pl.DataFrame) -> pl.DataFrame:
    written = history(ws.store, ref.name).written()
    rows = [(sample.image_sha256, text_sha256(text), text) for sample, text in written]
    texts = pl.DataFrame(rows, schema=_PAIR, orient="row")
    return texts.join(samples, on="image_sha256", how="semi", maintain_order="left")


def _distinct(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return the distinct (image, text) pairs of a shard: image_sha256, text_sha256, text."""
    pairs = pl.concat([pl.DataFrame(schema=_PAIR), *parts]).drop_nulls()
    return pairs.unique(["image_sha256", "text_sha256"], keep="first", maintain_order=True)


def _text_items(ref: ShardRef, pending: pl.DataFrame) -> list[ScoreItem]:
    rows = pending.select("text", "attempt").iter_rows()
    return [ScoreItem(ref.name, None, (text,), attempt) for text, attempt in rows]


def _image_items(ref: ShardRef, samples: pl.DataFrame, pending: pl.DataFrame) -> list[ScoreItem]:
    places = samples.select("image_sha256", "offset", "length").unique(
        "image_sha256", keep="first", maintain_order=True
    )
    keys = ["image_sha256", "attempt"]
    grouped = pending.group_by(keys, maintain_order=True).agg("text")
    rows = grouped.join(places, on="image_sha256", how="left", maintain_order="left")
    path = sparse(ref.path, int(rows["length"].sum()))
    return [
        ScoreItem(ref.name, ImageRef(path, offset, length, sha256), tuple(texts), attempt)
        for sha256, attempt, texts, offset, length in rows.iter_rows()
    ]


def _to_records(outcome: Done[ScoreItem, list[Score]] | Failed[ScoreItem]) -> list[Record]:
    item = outcome.item
    if isinstance(outcome, Failed):
        lost = Score(score=None, failure=crash_reason(outcome), detail=outcome.detail)
        scores: Sequence[Score] = [lost] * len(item.texts)
    else:
        scores = outcome.result
    return [_record(item, text, found) for text, found in zip(item.texts, scores, strict=True)]


def _record(item: ScoreItem, text: str, found: Score) -> dict[str, Any]:
    return {
        "image_sha256": item.image.sha256 if item.image else "",
        "text_sha256": text_sha256(text),
        "score": found.score,
        "num_tokens": found.num_tokens,
        "truncated": found.truncated,
        "sentences": [
            {"start": part.start, "end": part.end, "score": part.score} for part in found.sentences
        ],
        "flags": list(found.flags),
        "measures": [
            {"name": name, "value": value} for name, value in sorted(found.measures.items())
        ],
        "failure": found.failure,
        "detail": _words(found.words) if found.words else found.detail[:500] or None,
        "attempt": item.attempt,
        "created": clock.now(),
    }


def _words(words: Sequence[str]) -> str:
    """Return what a judge said of each sentence as a JSON list, for the column `detail`."""
    said = json.dumps(words, ensure_ascii=False)
    return said.encode("utf-8", "replace").decode()  # a model can write half a surrogate pair


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSummary:
    """Statistics of the finite scores of one source of texts; policies use the same scores.

    `weakest_sentence` is the mean, over texts with several sentences, of the lowest sentence
    score; None where there is no such text.
    """

    source: str
    num_texts: int
    mean: float
    quartiles: tuple[float, float, float]
    num_truncated: int
    weakest_sentence: float | None


def count_flags(
    ws: Workspace, maker_name: str, generators: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Return source -> flag -> texts of a scorer of texts only; "" counts texts without a flag."""
    facts = Facts(ws.store, SCORES, maker_name)
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for source, texts in _texts_by_shard(ws, generators):
        pairs = texts.with_columns(image_sha256=pl.lit(""))
        flags = facts.match(pairs, ["flags"])["flags"].drop_nulls()
        found[source][""] += int((flags.list.len() == 0).sum())
        for flag, count in flags.explode().drop_nulls().value_counts().iter_rows():
            found[source][flag] += count
    counted = {source: +counts for source, counts in found.items()}
    return {
        source: dict(counts.most_common()) for source, counts in counted.items() if counts.total()
    }


def _texts_by_shard(ws: Workspace, generators: Sequence[str]) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield (source, its distinct image and text pairs) for each shard and source of texts.

    All sources of a shard follow each other: its index is read once.
    """
    made = {name: Facts(ws.store, CAPTIONS, name) for name in generators}
    for ref in ws.shards:
        samples = _usable(ws, ref, ["image_sha256", "alt_text", "alt_sha256"])
        yield ALT_TEXT, _distinct([_alt_texts(samples)])
        for name, source in made.items():
            yield name, _distinct([_generated(samples, source)])
        yield HUMAN, _distinct([_edited(ws, ref, samples)])


def summarize(ws: Workspace, maker_name: str, generators: Sequence[str]) -> list[ScoreSummary]:
    """Return statistics of the scores of alt texts, of each generator, and of edited texts.

    Keeps the scores in memory, and the lowest sentence score of texts with several: at most eight
    bytes a text.
    """
    facts = Facts(ws.store, SCORES, maker_name)
    columns = ["score", "truncated", "sentences"]
    scores: defaultdict[str, list[pl.Series]] = defaultdict(list)
    lowest: defaultdict[str, list[pl.Series]] = defaultdict(list)
    num_truncated: Counter[str] = Counter()
    for source, texts in _texts_by_shard(ws, generators):
        if texts.is_empty():
            continue
        scored = facts.read(texts, columns).filter(pl.col("score").is_finite())
        scores[source].append(scored["score"])
        lowest[source].append(_lowest(scored))
        num_truncated[source] += int(scored["truncated"].sum())
    found = []
    for source in (ALT_TEXT, *generators, HUMAN):
        column = pl.concat([pl.Series(dtype=pl.Float32), *scores[source]])
        if column.is_empty():
            continue
        q25, q50, q75 = (_number(column.quantile(q)) for q in (0.25, 0.5, 0.75))
        weakest = pl.concat(lowest[source])
        found.append(
            ScoreSummary(
                source=source,
                num_texts=len(column),
                mean=_number(column.mean()),
                quartiles=(q25, q50, q75),
                num_truncated=num_truncated[source],
                weakest_sentence=_number(weakest.mean()) if len(weakest) else None,
            )
        )
    return found


LIKELY = 0.5
_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptSummary:
    """What the images have for a concept. `quantiles` are those at 50, 90 and 99 %.

    `num_likely` images have at least `LIKELY`; `highest` are the keys of the first ones.
    """

    name: str
    num_images: int
    quantiles: tuple[float, float, float]
    num_likely: int
    highest: tuple[str, ...]


def summarize_concepts(
    ws: Workspace, maker_name: str, concepts: Mapping[str, Sequence[str]]
) -> list[ConceptSummary]:
    """Return statistics of the scores of concepts: each image has the highest of its wordings."""
    facts = Facts(ws.store, SCORES, maker_name)
    found = []
    for name, wordings in concepts.items():
        values = []
        top = pl.DataFrame(schema={"key": pl.String, "value": pl.Float32})
        for ref in ws.shards:
            samples = _usable(ws, ref, ["key", "image_sha256"])
            scores = [
                facts.match(with_words(samples, words), ["score"])["score"].alias(str(number))
                for number, words in enumerate(wordings)
            ]
            scored = samples.select("key", value=pl.max_horizontal(scores)).drop_nulls()
            values.append(scored["value"])
            top = pl.concat([top, scored]).top_k(_EXAMPLES, by="value")
        column = pl.concat(values)
        if column.is_empty():
            continue
        q50, q90, q99 = (_number(column.quantile(q)) for q in (0.5, 0.9, 0.99))
        found.append(
            ConceptSummary(
                name=name,
                num_images=len(column),
                quantiles=(q50, q90, q99),
                num_likely=int((column >= LIKELY).sum()),
                highest=tuple(top.sort("value", descending=True)["key"]),
            )
        )
    return found


def _lowest(scores: pl.DataFrame) -> pl.Series:
    """Return the lowest sentence score of each text with several sentences."""
    lists = scores.filter(pl.col("sentences").list.len() > 1)["sentences"]
    return lists.list.eval(pl.element().struct.field("score")).list.min()


def _number(value: Any) -> float:
    return float(value)
