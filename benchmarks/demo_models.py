"""How good are the bundled models? Every figure of docs/results/2026-11-30-demo-captions.md.

    python -m benchmarks.demo_models
    python -m benchmarks.demo_models --scorer OUT/scorer --captioner OUT/captioner

On scenes of a world that neither training nor the demo of seed 0 has seen, by the classes that the
engine runs (`ClipScorer`, `LocalCaptioner`), with the options that `recaption` gives them.

    scorer      AUROC of good alt texts against each noise, as the demo words them; of bare true
                captions against captions with one detail wrong, of any kind and of each, and how
                often the true one of an image wins; R@1 among detailed captions, both ways
    captioner   attribute F1, hallucinated things and right captions (docs/start/demo.md says what
                that means) by prompt, and by number of things

Intervals are 95 % bootstrap percentiles over scenes (`scipy.stats.bootstrap`). The text score is
that of `curator score`: an empty text has none, so that noise is left out. On fewer scenes,
tests/demo/test_models.py holds the models to their goals with the same functions.
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
from curator.demo.alttext import NOISES, alt_text, wrong
from curator.demo.bundled import bundled_model
from curator.demo.checker import CaptionCheck, check
from curator.demo.data import materials, other_scene
from curator.demo.language import LENGTHS, Length, caption
from curator.demo.render import make_image
from curator.demo.scene import PLAIN, Material, Scene
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
    """An image of the world as the engine gets it, and its truth."""

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
    options.add_argument("--patterns", action="store_true", help="also striped and dotted things")
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
    used = materials(args.patterns)
    images = shown_images(args.seed, args.scenes, used)
    measure = Measure(args.resamples)
    if args.only != "captioner":
        scorer = ClipScorer(**scorer_maker(str(args.scorer.resolve())).options)
        yield from against_noise(scorer, images, measure, used)
        for length in LENGTHS:
            for detail in (None, *(("kind", "ground", "sky") if length == "kinds" else ())):
                yield from against_one_wrong(scorer, images, length, detail, measure)
        yield from _retrieval(scorer, images[: args.candidates], measure)
    if args.only != "scorer":
        for length in LENGTHS:
            yield from captions(args.captioner.resolve(), images, length, measure)


def shown_images(world: int, count: int, materials: tuple[Material, ...] = PLAIN) -> list[Shown]:
    """Render the first `count` images of a world's shards."""
    found = []
    with bar("render images", count, "images") as advance:
        for seed in shard_seeds(world, count):
            scene, image = make_image(seed, materials=materials)
            found.append(Shown(seed, scene, image.jpeg()))
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


def against_noise(
    scorer: ClipScorer,
    images: list[Shown],
    measure: Measure,
    materials: tuple[Material, ...] = PLAIN,
) -> Iterator[Figure]:
    """Every image gets a good alt text and one of each noise; another image's shares no kind."""
    noises = [noise for noise in NOISES if noise != "empty"]
    pairs = []
    for shown in images:
        other = other_scene(shown.scene, shown.seed, materials)
        for noise in noises:
            rng = np.random.default_rng([shown.seed, NOISES.index(noise)])
            alt = alt_text(shown.scene, other, {noise: 1.0}, rng)
            assert alt.noise == noise
            pairs.append((shown.image, alt.text))
    scores = dict(zip(noises, _scores(scorer, pairs).reshape(len(images), -1).T, strict=True))
    for noise in noises[1:]:
        name = f"AUROC, good alt texts against {noise}"
        yield measure(name, auroc, scores["good"], scores[noise])


def against_one_wrong(
    scorer: ClipScorer,
    images: list[Shown],
    length: Length,
    detail: str | None,
    measure: Measure,
) -> Iterator[Figure]:
    """Every image gets a true caption and a false one; `detail` as in `alttext.wrong`."""
    pairs = []
    for shown in images:
        rng = np.random.default_rng([shown.seed, LENGTHS.index(length)])
        pairs.append((shown.image, caption(shown.scene, length, rng)))
        pairs.append((shown.image, wrong(shown.scene, rng, length, detail)))
    right, false = _scores(scorer, pairs).reshape(-1, 2).T
    wins = np.where(right == false, 0.5, right > false)
    what = f"one wrong {detail or 'detail'}"
    yield measure(f"AUROC, bare {length} captions against {what}", auroc, right, false)
    yield measure(f"the true one of a pair wins, {length}, {what}", np.mean, wins)


def _retrieval(scorer: ClipScorer, images: list[Shown], measure: Measure) -> Iterator[Figure]:
    texts = [
        caption(shown.scene, "detailed", np.random.default_rng(shown.seed)) for shown in images
    ]
    pairs = [(shown.image, text) for shown in images for text in texts]
    given = scorer.score(pairs)  # in one call, which encodes every image and text once
    scores = np.array([score.score for score in given], float).reshape(len(images), -1)
    same = np.array([[a == b for b in texts] for a in texts])  # a twin's caption is as right
    rows = np.arange(len(images))
    for name, table in (("text of an image", scores), ("image of a text", scores.T)):
        found = same[rows, table.argmax(1)].astype(float)
        yield measure(f"R@1, the {name} among {len(images)} detailed", np.mean, found)


# -- captioner -------------------------------------------------------------------------------------


def captions(
    folder: Path, images: list[Shown], length: Length, measure: Measure
) -> Iterator[Figure]:
    """Caption every image with the preset of this length and check the captions."""
    checks = [
        check(text, shown.scene)
        for shown, text in zip(images, _captioned(folder, images, length), strict=True)
    ]
    sizes = np.array([len(shown.scene.things) for shown in images])
    yield from _judged(f"{length} captions", checks, measure)
    for size in np.unique(sizes).tolist():
        mine = [checks[number] for number in np.flatnonzero(sizes == size)]
        yield from _judged(f"{length} captions, {size} thing{'s' * (size > 1)}", mine, measure)


def _captioned(folder: Path, images: list[Shown], length: Length) -> Iterator[str]:
    """Captions as `recaption` would ask for them; a failure is an empty one."""
    maker = captioner_maker(model=str(folder), prompt=length)
    captioner = LocalCaptioner(**maker.options)
    requests = [
        CaptionRequest(
            hashlib.sha256(shown.image).hexdigest(), shown.image, get_prompt(length).text
        )
        for shown in images
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
    named, absent = np.array([[check.mentioned, check.hallucinated] for check in checks]).T
    yield measure(
        f"attribute F1, {name}",
        lambda r, c, t: 2 * r.sum() / max(c.sum() + t.sum(), 1),
        right,
        claimed,
        in_truth,
    )
    yield measure(f"hallucinated, {name}", lambda a, n: a.sum() / max(n.sum(), 1), absent, named)
    yield measure(f"right, {name}", np.mean, np.array([float(one.is_right) for one in checks]))


if __name__ == "__main__":
    main()
