"""Render a comparison as text: the verdict in one sentence, and a report for the terminal.

The report fits 88 columns. Unprintable characters in texts are escaped, so that no caption can move
the cursor or recolour the screen.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from curator.compare.stats import SCORE_BIN, Distribution
from curator.compare.values import GAINED, LOST, REWORDED, Change, Diff, ScoreShift, Side
from curator.compare.words import WordCount
from curator.shards.tar import printable
from curator.store.versions import ACTIONS

WIDTH = 88
CHOOSER_NOTE = "The newer policy chose captions by this scorer, so its higher score proves little."
_BLOCKS = " ▁▂▃▄▅▆▇█"
_MAX_BARS = 60
_NUM_EXAMPLES = 5
_MAX_WORDS_LISTED = 10
_CELL = 11
_MAX_LABEL = 42
_SMALLEST_LENGTH_CHANGE = 0.05


def verdict(diff: Diff) -> str:
    """Say what changed in one sentence; "higher" or "lower" only if the interval excludes zero."""
    names = f"{diff.old.name} and {diff.new.name}"
    if diff.old.id == diff.new.id:
        return f"{names} hold the same captions."
    num_changed = sum(diff.num_changed.values())
    if diff.num_common == 0:
        return f"{names} have no sample in common."
    head = f"{num_changed:,} of {diff.num_common:,} samples {_what_happened(diff.num_changed)}"
    parts = [part for part in (_score_part(diff), _length_part(diff), _names_part(diff)) if part]
    if not parts:
        return f"{head}."
    return f"{head}: {'; '.join(parts)}."


def _what_happened(num_changed: Mapping[str, int]) -> str:
    """Return the verb for the kinds of change that occur."""
    lost, gained, reworded = (num_changed[kind] for kind in (LOST, GAINED, REWORDED))
    if lost and not gained and not reworded:
        return "lost their text"
    if gained and not lost and not reworded:
        return "gained a text"
    extra = [f"{lost:,} lost it"] if lost else []
    extra += [f"{gained:,} gained one"] if gained else []
    return "changed their text" + (f" ({', '.join(extra)})" if extra else "")


def _score_part(diff: Diff) -> str:
    scores = diff.scores
    if scores is None:
        return ""
    paired = scores.paired
    by_chooser = " by the scorer that chose them" if scores.is_chooser else ""
    if paired.low is not None and paired.high is not None and paired.mean is not None:
        spread = f"± {(paired.high - paired.low) / 2:.3f}"
        about = f"(95 %, n = {paired.n:,})"
        if paired.low > 0:
            return f"reworded ones score {paired.mean:.3f} {spread} higher {about}{by_chooser}"
        if paired.high < 0:
            return f"reworded ones score {-paired.mean:.3f} {spread} lower {about}{by_chooser}"
        return f"reworded ones score about the same, {paired.mean:+.3f} {spread} {about}"
    if scores.old.mean is None or scores.new.mean is None:
        return ""
    return (
        f"the mean score{by_chooser} is {scores.new.mean:.3f} over {scores.new.n:,} texts "
        f"(was {scores.old.mean:.3f} over {scores.old.n:,})"
    )


def _length_part(diff: Diff) -> str:
    old, new = diff.old_lengths.mean, diff.new_lengths.mean
    if old is None or new is None or abs(new - old) < _SMALLEST_LENGTH_CHANGE:
        return ""
    return f"texts have {new:.1f} words on average (was {old:.1f})"


def _names_part(diff: Diff) -> str:
    if round(diff.new_names.share, 2) == round(diff.old_names.share, 2):
        return ""
    return (
        f"{diff.new_names.share:.0%} of the names and numbers in the alt texts are missing "
        f"(was {diff.old_names.share:.0%})"
    )


def render_text(diff: Diff) -> str:
    """Return the report, ending in a newline."""
    lines = [
        f"{diff.old.name} ({policy_name(diff.old)}) → {diff.new.name} ({policy_name(diff.new)})",
        "",
        *textwrap.wrap(verdict(diff), WIDTH),
        "",
        *_sample_lines(diff),
        *(_score_lines(diff, diff.scores) if diff.scores else ["", "Scores: none in the store"]),
        *_drift_lines(diff),
        *_name_lines(diff),
        *_example_lines("Largest gains", diff.gains),
        *_example_lines("Largest losses", diff.losses),
        *_example_lines("At random", diff.picked),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def policy_name(side: Side) -> str:
    """Return the name of a version's policy."""
    return printable(str(side.policy.get("name", "?")))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Format a table: the column of labels left-aligned, the others right-aligned."""
    width = min(WIDTH - 2 - _CELL * (len(head) - 1), _MAX_LABEL)
    for label, *cells in (head, *rows):
        shown = textwrap.shorten(printable(label.strip()), width - 1, placeholder="…")
        indent = " " * (len(label) - len(label.lstrip()))
        yield f"  {indent + shown:<{width}.{width}}" + "".join(f"{cell:>{_CELL}}" for cell in cells)


def _row(label: str, old: int, new: int) -> tuple[str, ...]:
    return label, f"{old:,}", f"{new:,}", f"{new - old:+,}" if new != old else "="


def _sample_lines(diff: Diff) -> Iterator[str]:
    old, new = diff.old, diff.new
    rows = [_row(action, old.counts[action], new.counts[action]) for action in ACTIONS]
    rows += [
        _row("all samples", old.num_samples, new.num_samples),
        _row("texts", old.num_texts, new.num_texts),
    ]
    rows += [
        _row(f"  by {source}", old.sources.get(source, 0), new.sources.get(source, 0))
        for source in sorted(old.sources.keys() | new.sources.keys())
    ]
    yield from _table(("Samples", old.name, new.name, "change"), rows)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in diff.num_changed.items())
    yield f"  in both {diff.num_common:,}: {diff.num_unchanged:,} unchanged, {kinds}"
    if diff.only_old or diff.only_new:
        yield f"  only in {old.name} {diff.only_old:,}, only in {new.name} {diff.only_new:,}"
    shards = [
        f"{len(names):,} {what}"
        for names, what in (
            (diff.shards_added, "added"),
            (diff.shards_removed, "removed"),
            (diff.shards_changed, "with changed bytes"),
        )
        if names
    ]
    if shards:
        yield f"  shards: {', '.join(shards)}"
    for action, became in diff.transitions.items():
        if became:
            listed = ", ".join(f"{after} {count:,}" for after, count in became.items())
            yield f"  {action} → {listed}"


def _score_lines(diff: Diff, scores: ScoreShift) -> Iterator[str]:
    yield ""
    head = ("Score", "texts", "mean", "25 %", "50 %", "75 %")
    rows = [
        (side.name, f"{found.n:,}", *_moments(found))
        for side, found in ((diff.old, scores.old), (diff.new, scores.new))
    ]
    yield from _table(head, rows)
    low, step, old, new = histograms(scores)
    top = max((*old, *new), default=0.0)
    for side, shares in ((diff.old, old), (diff.new, new)):
        bars = "".join(_BLOCKS[-(-round(share / top * 1000) * 8 // 1000)] for share in shares)
        yield f"  {side.name:<6}{low:6.2f} {bars} {low + step * len(shares):.2f}"
    paired = scores.paired
    if paired.mean is not None:
        interval = (
            f", 95 % {paired.low:+.4f} to {paired.high:+.4f}" if paired.low is not None else ""
        )
        yield (
            f"  reworded: {paired.mean:+.4f}{interval}, n = {paired.n:,}; "
            f"{paired.improved:.0%} better, {paired.worse:.0%} worse, {paired.equal:.0%} equal"
        )
    if scores.old.num_unscored or scores.new.num_unscored:
        yield f"  without a score: {scores.old.num_unscored:,}, now {scores.new.num_unscored:,}"
    yield f"  by {printable(scores.scorer)}"
    if scores.is_chooser:
        yield f"  {CHOOSER_NOTE}"


def _moments(found: Distribution) -> list[str]:
    if found.mean is None or found.quartiles is None:
        return ["-"] * 4
    return [f"{value:.3f}" for value in (found.mean, *found.quartiles)]


def histograms(
    scores: ScoreShift, max_bars: int = _MAX_BARS
) -> tuple[float, float, list[float], list[float]]:
    """Return lower end, bin width, and each version's share per bin up to the last filled one."""
    filled = [
        place
        for place, pair in enumerate(zip(scores.old.histogram, scores.new.histogram, strict=True))
        if any(pair)
    ]
    if not filled:
        return 0.0, SCORE_BIN, [], []
    first, last = filled[0], filled[-1] + 1
    merge = -(-(last - first) // max_bars)
    old, new = (
        [
            sum(found.histogram[start : min(start + merge, last)]) / max(found.n, 1)
            for start in range(first, last, merge)
        ]
        for found in (scores.old, scores.new)
    )
    return round(first * SCORE_BIN - 1, 4), merge * SCORE_BIN, old, new


def _drift_lines(diff: Diff) -> Iterator[str]:
    yield ""
    old, new = diff.old_lengths, diff.new_lengths
    yield from _table(
        ("Words per text", "mean", "5 %", "25 %", "50 %", "75 %", "95 %"),
        (
            (side.name, f"{found.mean or 0:.2f}", *map(str, found.quantiles))
            for side, found in ((diff.old, old), (diff.new, new))
        ),
    )
    words = diff.vocabulary
    yield ""
    yield from _table(
        ("Vocabulary", "distinct", "type/token", "distinct-2"),
        (
            (side.name, f"{w.num_distinct:,}", f"{w.type_token:.4f}", f"{w.distinct_2:.4f}")
            for side, w in ((diff.old, words.old), (diff.new, words.new))
        ),
    )
    yield f"  word frequencies differ by {words.jsd_bits:.3f} bits (0: same, 1: nothing in common)"
    for label, listed in (("new words", words.gained), ("lost words", words.lost)):
        yield from _word_list(label, listed)
    openers = ", ".join(
        f"{printable(o.word)} {_share(o.old, old.num_texts)}→{_share(o.new, new.num_texts)}"
        for o in words.openers
    )
    yield from _hanging(f"openers: {openers}")


def _share(count: int, total: int) -> str:
    return f"{count / max(total, 1):.0%}"


def _word_list(label: str, words: Sequence[WordCount]) -> list[str]:
    shown = words[:_MAX_WORDS_LISTED]
    listed = ", ".join(f"{printable(w.word)} {w.old:,}→{w.new:,}" for w in shown)
    return _hanging(f"{label}: {listed or 'none'}")


def _hanging(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="      ")


def _name_lines(diff: Diff) -> Iterator[str]:
    yield ""
    rows = [
        (
            side.name,
            f"{found.num_names:,}",
            f"{found.lost_names:,}",
            f"{found.num_numbers:,}",
            f"{found.lost_numbers:,}",
            f"{found.share:.1%}",
        )
        for side, found in ((diff.old, diff.old_names), (diff.new, diff.new_names))
    ]
    yield from _table(("In the alt texts", "names", "lost", "numbers", "lost", "share"), rows)
    for example in diff.lost[:_NUM_EXAMPLES]:
        items = printable(", ".join(example.items))
        yield from _hanging(f"{items}: {printable(example.alt_text)} → {printable(example.new)}")


def _example_lines(title: str, examples: Sequence[Change]) -> Iterator[str]:
    if not examples:
        return
    yield ""
    yield f"  {title}"
    for change in examples[:_NUM_EXAMPLES]:
        gain = f"{change.gain:+.3f}" if change.gain is not None else "      "
        yield f"  {gain}  {printable(change.shard)}/{printable(change.key)}"
        for sign, action, texts in (
            ("-", change.old_action, change.old),
            ("+", change.new_action, change.new),
        ):
            shown = [f"{sign} {printable(text.text)}" for text in texts] or [f"{sign} ({action})"]
            for line in shown:
                yield from textwrap.wrap(
                    line, WIDTH, initial_indent="    ", subsequent_indent="      ", max_lines=4
                )
