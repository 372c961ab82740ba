"""How good are the bundled models? Every figure of docs/results/2026-11-26-demo-captions.md.

    python -m benchmarks.demo_models
    python -m benchmarks.demo_models --scorer OUT/scorer --captioner OUT/captioner

On scenes of a world that neither training nor the demo of seed 0 has seen, by the classes that the
engine runs (`ClipScorer`, `LocalCaptioner`), with the options that `recaption` gives them.

    scorer      AUROC of good alt texts against each kind of noise, as the demo words them; of bare
                true captions against captions with one thing wrong, and how often the true one of
                a picture wins; R@1 among detailed captions, both ways
    captioner   attribute F1, hallucinated solids and right captions (docs/start/demo.md says what
                that means) by prompt, and by number of solids

Intervals are 95 % bootstrap percentiles over scenes (`scipy.stats.bootstrap`). The text score is
that of `curator score`: an empty text has none, so that kind is left out.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from benchmarks.common import parser, show
from curator.captioners import Caption, CaptionRequest
from curator.captioners.local import LocalCaptioner
from curator.captioners.prompts import get_prompt
from curator.core.auroc import auroc
from curator.core.progress import bar
from curator.demo.alttext import KINDS, alt_text, wrong
from curator.demo.bundled import bundled_model
from curator.demo.checker import CaptionCheck, check
from curator.demo.data import other_scene
from curator.demo.language import LENGTHS, Length, caption
from curator.demo.render import make_picture
from curator.demo.scene import Scene
from curator.demo.seeds import shard_seeds
from curator.engine.makers import captioner_maker, scorer_maker
from curator.scorers.clip import ClipScorer

_WORLD = 1
_BATCH = 32
_MIN_SCENES = 2  # for an interval

Array = np.ndarray[Any, np.dtype[Any]]
Statistic = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture of the world as the engine gets it, and its truth."""

    seed: int
    scene: Scene
    image: bytes


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value over `n` scenes; `interval` is None where there are too few."""

    name: str
    n: int
    value: float
    interval: tuple[float, float] | None

    def row(self) -> list[str]:
        """For the table."""
        between = "-" if self.interval is None else "{:.3f} to {:.3f}".format(*self.interval)
        return [self.name, str(self.n), f"{self.value:.3f}", between]


class Measure:
    """Makes figures, all with the same number of resamples."""

    def __init__(self, num_resamples: int) -> None:
        self._num_resamples = num_resamples

    def __call__(self, name: str, statistic: Statistic, *columns: Array) -> Figure:
        """`columns` hold one value a scene; `statistic` takes them and gives a number.

        Scenes are drawn again, and with each all its values.
        """
        n = len(columns[0])
        value = float(statistic(*columns))
        if n < _MIN_SCENES:
            return Figure(name, n, value, None)
        found = bootstrap(
            (np.arange(n),),
            lambda picked: statistic(*(column[picked] for column in columns)),
            n_resamples=self._num_resamples,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        return Figure(name, n, value, (float(found.low), float(found.high)))


def main() -> None:
    """Measure what is asked for and print it."""
    options = parser(__doc__)
    options.add_argument("--scorer", type=Path, default=bundled_model("scorer"))
    options.add_argument("--captioner", type=Path, default=bundled_model("captioner"))
    options.add_argument("--only", choices=["scorer", "captioner"])
    options.add_argument("--scenes", type=int, default=1000)
    options.add_argument("--candidates", type=int, default=200, help="for R@1")
    options.add_argument("--seed", type=int, default=_WORLD, help="which world")
    options.set_defaults(resamples=2000)
    args = options.parse_args()
    if args.quick:
        args.scenes, args.candidates, args.resamples = 12, 12, 50
    figures = list(_figures(args))
    show(
        ["measure", "n", "value", "95 % interval"],
        [figure.row() for figure in figures],
        args=args,
        details={f.name: {"n": f.n, "value": f.value, "interval": f.interval} for f in figures},
    )


def _figures(args: argparse.Namespace) -> Iterator[Figure]:
    pictures = _pictures(args.seed, args.scenes)
    measure = Measure(args.resamples)
    if args.only != "captioner":
        scorer = ClipScorer(**scorer_maker(str(args.scorer.resolve())).options)
        yield from _against_noise(scorer, pictures, measure)
        for length in LENGTHS:
            yield from _against_one_wrong(scorer, pictures, length, measure)
        yield from _retrieval(scorer, pictures[: args.candidates], measure)
    if args.only != "scorer":
        for length in LENGTHS:
            yield from _captions(args.captioner.resolve(), pictures, length, measure)


def _pictures(world: int, count: int) -> list[Shown]:
    found = []
    with bar("render pictures", count, "pictures") as advance:
        for seed in shard_seeds(world, count):
            scene, picture = make_picture(seed)
            found.append(Shown(seed, scene, picture.jpeg()))
            advance(1)
    return found


# -- scorer ----------------------------------------------------------------------------------------


def _scores(scorer: ClipScorer, pairs: list[tuple[bytes, str]]) -> Array:
    """Cosines of (image, text) pairs, in their order."""
    found: list[float] = []
    with bar("score", len(pairs), "pairs") as advance:
        for start in range(0, len(pairs), _BATCH):
            for score in scorer.score(pairs[start : start + _BATCH]):
                assert score.score is not None, score.failure
                found.append(score.score)
            advance(len(pairs[start : start + _BATCH]))
    return np.array(found)


def _against_noise(scorer: ClipScorer, pictures: list[Shown], measure: Measure) -> Iterator[Figure]:
    """Every picture gets a good alt text and one of each kind of noise."""
    kinds = [kind for kind in KINDS if kind != "empty"]
    pairs, told = [], []
    for shown in pictures:
        other = other_scene(shown.scene, shown.seed)
        for kind in kinds:
            rng = np.random.default_rng([shown.seed, KINDS.index(kind)])
            alt = alt_text(shown.scene, other, {kind: 1.0}, rng)
            pairs.append((shown.image, alt.text))
            told.append(alt.kind == kind)  # another scene's caption may happen to be true
    scores = _scores(scorer, pairs).reshape(len(pictures), -1)
    kept = np.array(told).reshape(scores.shape)
    good = scores[:, kinds.index("good")]
    for number, kind in enumerate(kinds):
        if kind != "good":
            both = kept[:, number]
            name = f"AUROC, good alt texts against {kind}"
            yield measure(name, auroc, good[both], scores[both, number])


def _against_one_wrong(
    scorer: ClipScorer, pictures: list[Shown], length: Length, measure: Measure
) -> Iterator[Figure]:
    pairs = []
    for shown in pictures:
        rng = np.random.default_rng([shown.seed, LENGTHS.index(length)])
        pairs.append((shown.image, caption(shown.scene, length, rng)))
        pairs.append((shown.image, wrong(shown.scene, rng, length)))
    right, false = _scores(scorer, pairs).reshape(-1, 2).T
    wins = np.where(right == false, 0.5, right > false)
    yield measure(f"AUROC, bare {length} captions against one thing wrong", auroc, right, false)
    yield measure(f"the right one of a pair wins, {length}", np.mean, wins)


def _retrieval(scorer: ClipScorer, pictures: list[Shown], measure: Measure) -> Iterator[Figure]:
    texts = [
        caption(shown.scene, "detailed", np.random.default_rng(shown.seed)) for shown in pictures
    ]
    pairs = [(shown.image, text) for shown in pictures for text in texts]
    given = scorer.score(pairs)  # in one call, which encodes every image and text once
    scores = np.array([score.score for score in given], float).reshape(len(pictures), -1)
    same = np.array([[a == b for b in texts] for a in texts])  # a twin's caption is as right
    rows = np.arange(len(pictures))
    for name, table in (("text of a picture", scores), ("picture of a text", scores.T)):
        found = same[rows, table.argmax(1)].astype(float)
        yield measure(f"R@1, the {name} among {len(pictures)} detailed", np.mean, found)


# -- captioner -------------------------------------------------------------------------------------


def _captions(
    folder: Path, pictures: list[Shown], length: Length, measure: Measure
) -> Iterator[Figure]:
    checks = [
        check(text, shown.scene)
        for shown, text in zip(pictures, _captioned(folder, pictures, length), strict=True)
    ]
    sizes = np.array([len(shown.scene.solids) for shown in pictures])
    yield from _judged(f"{length} captions", checks, measure)
    for size in np.unique(sizes).tolist():
        mine = [checks[number] for number in np.flatnonzero(sizes == size)]
        yield from _judged(f"{length} captions, {size} solid{'s' * (size > 1)}", mine, measure)


def _captioned(folder: Path, pictures: list[Shown], length: Length) -> Iterator[str]:
    """Captions as `recaption` would ask for them; a failure is an empty one."""
    maker = captioner_maker(model=str(folder), prompt=length)
    captioner = LocalCaptioner(**maker.options)
    requests = [
        CaptionRequest(
            hashlib.sha256(shown.image).hexdigest(), shown.image, get_prompt(length).text
        )
        for shown in pictures
    ]
    with bar(f"caption ({length})", len(requests), "captions") as advance:
        for start in range(0, len(requests), _BATCH):
            outcomes = captioner.caption(requests[start : start + _BATCH])
            advance(len(outcomes))
            for outcome in outcomes:
                yield outcome.text if isinstance(outcome, Caption) else ""


def _judged(name: str, checks: list[CaptionCheck], measure: Measure) -> Iterator[Figure]:
    """As `curator.demo.checker.total` sums them up."""
    told = [check.attributes for check in checks]
    right, claimed, in_truth = np.array([[t.right, t.claimed, t.in_truth] for t in told]).T
    solids, absent = np.array([[check.mentioned, check.hallucinated] for check in checks]).T
    yield measure(
        f"attribute F1, {name}",
        lambda r, c, t: 2 * r.sum() / max(c.sum() + t.sum(), 1),
        right,
        claimed,
        in_truth,
    )
    yield measure(f"hallucinated, {name}", lambda a, s: a.sum() / max(s.sum(), 1), absent, solids)
    yield measure(f"right, {name}", np.mean, np.array([float(one.is_right) for one in checks]))


if __name__ == "__main__":
    main()
