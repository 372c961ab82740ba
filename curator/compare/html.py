"""Render a comparison as one self-contained HTML page: images inline, no script, no request.

Captions are untrusted text: the template escapes everything, and a content security policy
allows only inline styles and `data:` images. The same comparison gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from curator.compare.marks import text_parts
from curator.compare.plots import length_plot, score_plot
from curator.compare.text import CHOOSER_NOTE, policy_name, verdict
from curator.compare.values import Diff, Side
from curator.core import images
from curator.core.errors import DamageError, Unusable
from curator.policy.fields import FIELDS
from curator.policy.model import ALT_TEXT
from curator.shards.dataset import Dataset
from curator.shards.places import by_ranges, read_each
from curator.store import index
from curator.store.store import Store
from curator.store.versions import ACTIONS

THUMBNAIL_SIDE_PX = 320
_JPEG_QUALITY = 82
_ONE_DECIMAL_BELOW = 0.1


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small image as a `data:` URI, or in `note` the reason why there is none."""

    uri: str | None
    note: str = ""


Thumbnails = Mapping[tuple[str, int], Thumbnail]
"""By shard and row."""


def thumbnails(store: Store, dataset: Dataset, diff: Diff) -> dict[tuple[str, int], Thumbnail]:
    """Return thumbnails of all examples in `diff`, at most 320 pixels wide and high.

    An image that can no longer be read is replaced by a note.

    Raises:
        StorageError: the storage fails.
    """
    paths = {ref.name: by_ranges(ref.path) for ref in dataset.shards}
    places = {(one.shard, one.row) for one in (*diff.gains, *diff.losses, *diff.picked)}
    places |= {(one.shard, one.row) for one in diff.lost}
    wanted: dict[str, set[int]] = {}
    for shard, row in places:
        wanted.setdefault(shard, set()).add(row)
    found: dict[tuple[str, int], Thumbnail] = {}
    for shard, rows in sorted(wanted.items()):
        samples = index.read(store, shard, ["row", "offset", "length", "image_sha256"])
        picked = samples.filter(pl.col("row").is_in(rows))
        if shard not in paths:
            none = Thumbnail(None, "the shard is not in this dataset")
            found |= dict.fromkeys(((shard, row) for row in picked["row"]), none)
            continue
        read = read_each(paths[shard], list(picked.select("offset", "length").iter_rows()))
        for (row, _, _, sha256), data in zip(picked.iter_rows(), read, strict=True):
            try:
                if isinstance(data, DamageError):
                    raise data
                if hashlib.sha256(data).hexdigest() != sha256:
                    raise Unusable("source.changed", "the shard changed since it was indexed")
                found[shard, row] = Thumbnail(_data_uri(images.decode(data).image))
            except (Unusable, DamageError) as error:
                found[shard, row] = Thumbnail(None, error.reason)
    return found


def _data_uri(image: Image.Image) -> str:
    image.thumbnail((THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def render_html(diff: Diff, thumbnails: Thumbnails) -> str:
    """Return the whole page."""
    environment = Environment(
        loader=PackageLoader("curator.compare"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": _count, "share": _share, "signed": _signed, "source": _source}
    environment.filters["decimal"] = _decimal
    galleries = [
        ("Largest gains", "Samples whose first text gained most in score.", diff.gains),
        ("Largest losses", "Samples whose first text lost most in score.", diff.losses),
        ("At random", "Drawn from all samples whose texts changed.", diff.picked),
    ]
    scores = diff.scores
    return environment.get_template("diff.html").render(
        diff=diff,
        verdict=verdict(diff),
        policy_name=policy_name,
        actions=ACTIONS,
        alt_text=ALT_TEXT,
        num_changed=sum(diff.num_changed.values()),
        score_plot=score_plot(scores) if scores and scores.old.n + scores.new.n else None,
        length_plot=length_plot(diff.old_lengths, diff.new_lengths),
        chooser_note=CHOOSER_NOTE,
        galleries=[
            (title, about, [(change, *text_parts(change)) for change in changes])
            for title, about, changes in galleries
            if changes
        ],
        thumbnails=thumbnails,
        no_picture=Thumbnail(None, "no image"),
        made=[(side, policy_lines(side), maker_lines(side)) for side in (diff.old, diff.new)],
    )


# -- how a version was made ---------------------------------------------------------------------


def policy_lines(side: Side) -> list[tuple[str, str]]:
    """Describe a policy as (label, value) lines."""
    policy = side.policy
    lines = [
        ("texts", " or ".join(map(_source, policy.get("sources", ())))),
        ("takes", _PICKS.get(str(policy.get("pick")), str(policy.get("pick")))),
    ]
    for rule in policy.get("rule", ()):
        lines.append((str(rule["name"]), _rule(rule, side.thresholds)))
    surgery = policy.get("surgery")
    if surgery:
        lines.append(("surgery", f"sentences that score below {_limit(surgery)} are removed"))
    if policy.get("pick") == "all":
        weights = policy.get("weights") or {}
        lines.append(("weights", ", ".join(f"{_source(k)} {v:g}" for k, v in weights.items())))
    kept = policy.get("otherwise") == "keep_alt"
    lines.append(("otherwise", "keeps the alt text" if kept else "drops the sample"))
    return lines


_PICKS = {
    "best": "the best by score",
    "first": "the first that passes",
    "all": "all that pass",
}


def _rule(rule: Mapping[str, Any], thresholds: Mapping[str, float]) -> str:
    row = FIELDS.get(rule["field"])  # None: the version was decided by another release
    unit = f" {row.unit}" if row and row.unit else ""
    parts = []
    if rule.get("none_of"):
        parts.append("none of " + ", ".join(rule["none_of"]))
    if rule.get("min") is not None:
        parts.append(f"at least {rule['min']:g}{unit}")
    if rule.get("max") is not None:
        parts.append(f"at most {rule['max']:g}{unit}")
    if rule.get("min_percentile") is not None:
        values = [
            f"{value:.3f} for {_source(key.partition('@')[2])}"
            for key, value in thresholds.items()
            if key.partition("@")[0] == rule["name"]
        ]
        reached = f" ({', '.join(values)})" if values else ""
        parts.append(f"at or above percentile {rule['min_percentile']:g}{reached}")
    whose = "" if rule.get("source", "any") == "any" else f" of {_source(rule['source'])}"
    by = f" by {rule['scorer']}" if rule.get("scorer") else ""
    return f"{row.label if row else rule['field']}{by}{whose}: {', '.join(parts)}"


def _limit(surgery: Mapping[str, Any]) -> str:
    if surgery.get("min_score") is not None:
        return f"{surgery['min_score']:g}"
    return f"percentile {surgery['min_percentile']:g}"


def maker_lines(side: Side) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return every generator and scorer with its recipe as (key, value)."""
    return [
        (name, [(key, _plain(value)) for key, value in sorted(recipe.items())])
        for name, recipe in sorted(side.makers.items())
    ]


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in sorted(value.items()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " / ".join(dict.fromkeys(map(_plain, value)))
    return str(value)


def _source(source: str) -> str:
    return {"alt_text": "alt text", "generated": "generated"}.get(source, source)


def _count(value: int) -> str:
    return f"{value:,}"


def _share(value: float, total: float = 1.0) -> str:
    share = value / total if total else 0.0
    percent = f"{share:.1%}" if share < _ONE_DECIMAL_BELOW and share else f"{share:.0%}"
    return percent.replace("%", "\u202f%")


def _decimal(value: float) -> str:
    return f"{value:.3f}".replace("-", "\u2212")


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\u2212")
