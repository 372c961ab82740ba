"""Health of the page Overview: damage, duplicates, lengths, languages, flags, model failures.

Reading it takes seconds per million rows, so it runs in the background while the rest of the page
is shown, and is cached for five minutes. When it arrives, only this part is redrawn: whatever the
user has opened meanwhile stays open.
"""

from __future__ import annotations

import traceback
from concurrent.futures import Future, wait
from dataclasses import dataclass

import streamlit as st

from curator.browse import health, languages
from curator.browse.catalog import Catalog
from curator.browse.languages import Languages
from curator.core import progress
from curator.core.errors import CuratorError
from curator.core.reasons import REASONS
from curator.scorers.text import FLAGS
from curator.steps.index import IndexReport, report
from curator.steps.workspace import Workspace
from curator.store.versions import Version
from ui.shared import context, parts, plots

_KEPT_SEC = 300
_LOOK_SEC = 0.2
"""Longest time in seconds that a click waits while the figures are read."""
_MOST = 8
_MOST_LANGUAGES = 5
_PLACEHOLDERS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Health:
    index: IndexReport
    places: dict[str, tuple[str, int]]
    lengths: list[health.SourceLengths]
    flags: list[health.FlagShare]
    alt_flags: list[health.FlagShare]
    failures: list[health.Failures]
    alt_languages: Languages
    languages: Languages


@st.cache_resource(max_entries=3, ttl=_KEPT_SEC, show_spinner=False)
def _reading(root: str, version_id: str, _ws: Workspace, _catalog: Catalog) -> Future[_Health]:
    assert root, version_id
    return context.in_background(lambda: _read(_ws, _catalog))


def _read(ws: Workspace, catalog: Catalog) -> _Health:
    found = report(ws)
    return _Health(
        index=found,
        places=health.examples(ws, list(found.placeholders)[:_PLACEHOLDERS]),
        lengths=health.lengths(catalog.columns),
        flags=health.flag_shares(catalog.columns),
        alt_flags=health.alt_flag_shares(ws, catalog.columns, catalog.shelf),
        failures=health.failures(ws.store, catalog.shelf),
        alt_languages=languages.of_alt_texts(ws),
        languages=languages.of_version(catalog.columns),
    )


def show(version: Version) -> None:
    """Draw the health of the dataset and of the texts of a version."""
    parts.section("Health", "of the shards when they were indexed, and of the texts")
    ws = context.workspace()
    reading = _reading(str(ws.store.root), version.id, ws, context.catalog(version))
    st.fragment(_arriving, parallel=True)(reading, version)


def _arriving(reading: Future[_Health], version: Version) -> None:
    """Draw the figures when they arrive; runs as a fragment beside the page."""
    place = st.empty()
    while not wait([reading], timeout=_LOOK_SEC).done:
        # Streamlit ends this run here on a click.
        place.html('<div class="cc-small" role="status">Reading the data ...</div>')
    with place.container():
        error = reading.exception()
        if isinstance(error, CuratorError):
            parts.error(error)
        elif error is not None:
            progress.say("".join(traceback.format_exception(error)))
            parts.failed()
        else:
            _show(reading.result(), version)


def _show(found: _Health, version: Version) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        _damage(found.index)
        _failures(found)
        _placeholders(found)
        _languages("Languages of the alt texts", found.alt_languages)
        _languages(f"Languages of {version.name}", found.languages)
    with right:
        _lengths(found.lengths, version)
        _flags(found, version)


def _damage(found: IndexReport) -> None:
    parts.metrics(
        {
            "unusable samples": found.num_unusable,
            "problems in shards": sum(found.problems.values()),
            "duplicate images": found.num_duplicate_images,
            "keys in two shards": found.num_cross_shard_keys,
        }
    )
    if found.num_ignored_members:
        st.html(
            f'<div class="cc-small">{found.num_ignored_members:,} members that may contain code '
            "are never opened.</div>"
        )
    rows = _reasons({**found.problems, **found.reasons}, out_of=found.num_samples)
    if rows:
        st.html(plots.rows_html(rows, color="quarantined"))
    else:
        st.html('<div class="cc-small">No shard is damaged and every sample can be used.</div>')


def _reasons(counts: dict[str, int], *, out_of: int) -> list[tuple[str, float, str]]:
    most = sorted(counts.items(), key=lambda item: -item[1])[:_MOST]
    return [
        (
            f"{reason}: {REASONS[reason].text}" if reason in REASONS else reason,
            count / max(out_of, 1),
            f"{count:,}",
        )
        for reason, count in most
    ]


def _failures(found: _Health) -> None:
    for failed in found.failures:
        st.html(f'<div class="cc-sub">In quarantine by {parts.escaped(failed.maker)}</div>')
        rows = _reasons(failed.reasons, out_of=found.index.num_samples)
        st.html(plots.rows_html(rows, color="quarantined"))


def _placeholders(found: _Health) -> None:
    copies = found.index.placeholders
    if not copies:
        return
    st.html('<div class="cc-sub">Possible placeholders: images that occur in many rows</div>')
    shown = [(prefix, place) for prefix, place in found.places.items() if prefix in copies]
    pictures = context.thumbnails([place for _, place in shown])
    with parts.grid("placeholders"):
        for (prefix, _), picture in zip(shown, pictures, strict=True):
            parts.tile(picture, f"{copies[prefix]:,} rows", key=f"copy_{prefix}", opens=None)


def _lengths(found: list[health.SourceLengths], version: Version) -> None:
    st.html(f'<div class="cc-sub">Words per text in {version.name}</div>')
    for one in found[:_MOST]:
        low, middle, high = one.quartiles
        source = parts.escaped(one.source.replace("_", " "))
        st.html(
            f'<div class="cc-head"><span class="cc-source">{source}</span>'
            f'<span class="cc-about">{one.num_texts:,} texts, half of them '
            f"{low:.0f} to {high:.0f} words, median {middle:.0f}</span></div>"
            + plots.histogram_html(one.counts, labels=["0", "15", "30", "45", "60 and more"])
        )
    if not found:
        st.html('<div class="cc-small">This version has no text.</div>')


def _languages(title: str, found: Languages) -> None:
    if not found.num_read:
        return
    most = dict(list(found.counts.items())[:_MOST_LANGUAGES])
    rest = {
        "other languages": sum(found.counts.values()) - sum(most.values()),
        "too short or unclear": found.num_untold,
    }
    shown = {**most, **{name: count for name, count in rest.items() if count}}
    rows = [
        (name, count / found.num_read, f"{count / found.num_read:.1%}")
        for name, count in shown.items()
    ]
    of = f"{found.num_read:,} texts"
    of = f"in a random sample of {of}" if found.num_read == languages.MAX_READ else f"in all {of}"
    st.html(
        f'<div class="cc-sub">{title}</div><div class="cc-small">{of}</div>' + plots.rows_html(rows)
    )


def _flags(found: _Health, version: Version) -> None:
    for title, shares in (
        ("Flags of the alt texts", found.alt_flags),
        (f"Flags of {version.name}, texts and images", found.flags),
    ):
        st.html(f'<div class="cc-sub">{title}</div>')
        rows = [
            (
                f"{share.flag}: {FLAGS[share.flag]}" if share.flag in FLAGS else share.flag,
                share.num_texts / max(share.out_of, 1),
                f"{share.num_texts:,} ({share.num_texts / max(share.out_of, 1):.1%})",
            )
            for share in shares[:_MOST]
        ]
        if rows:
            st.html(plots.rows_html(rows, color="dropped"))
        else:
            st.html('<div class="cc-small">None among the texts checked so far.</div>')
