"""One enlarged sample: image, all texts with their scores and support, and their lineage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from curator.browse.catalog import Catalog
from curator.browse.sample import SampleView, TextScore, WrittenText
from curator.core.clock import iso
from curator.core.reasons import REASONS
from curator.edits.apply import HUMAN
from curator.edits.history import Edit
from curator.policy.model import ALT_TEXT
from ui.shared import context, parts

_SIDE_PX = 1024


def show(catalog: Catalog, shard: str, row: int) -> None:
    """Draw the sample at a shard and row, in the version of the catalog."""
    sample = catalog.sample(shard, row)
    left, right = st.columns([4, 5], gap="large")
    with left, st.container(key="large"):
        st.image(context.thumbnail(shard, row, _SIDE_PX), width="stretch")
        parts.facts(_image_facts(sample))
    with right:
        _outcome(sample, catalog.version.name)
        for text in sample.texts:
            _text(text, catalog)
        _changes(sample)
        _edits(sample.edits)
        _lineage(sample)


def _image_facts(sample: SampleView) -> dict[str, object]:
    facts = sample.facts
    size = f"{facts['width']} x {facts['height']} px" if facts["width"] else None
    length = facts["length"]
    known = {
        "key": sample.key,
        "shard": f"{sample.shard}, row {sample.row}",
        "size": size,
        "format": facts["image_format"],
        "bytes": f"{length:,} at {facts['offset']:,}" if length else None,
        "sha256": facts["image_sha256"],
        "flags": ", ".join(facts["flags"] or ()),
        "problem": _why(facts["reason"], facts["detail"]) if facts["reason"] else None,
    }
    return {name: value for name, value in known.items() if value}


def _why(reason: str, detail: str | None) -> str:
    about = REASONS[reason].text if reason in REASONS else ""
    return "; ".join(part for part in (reason, about, detail) if part)


def _outcome(sample: SampleView, version: str) -> None:
    kind = {"dropped": "warn", "quarantined": "bad"}.get(sample.action, "good")
    st.html(
        f'<div class="cc-head">{parts.badge_html(f"{sample.action} in {version}", kind)}'
        f'<span class="cc-about">{parts.escaped(sample.because)}</span></div>'
    )


# -- texts ----------------------------------------------------------------------------------------


def _text(text: WrittenText, catalog: Catalog) -> None:
    badges = [f'<span class="cc-source">{parts.escaped(_name(text))}</span>']
    if text.chosen:
        badges.append(parts.badge_html("chosen", "good"))
        if text.weight is not None and text.weight < 1:
            badges.append(parts.badge_html(f"weight {text.weight:.2f}"))
    for judgement in text.judgements:
        badges += _judged(judgement)
    spans = next((one.sentences for one in text.judgements if one.sentences), ())
    if text.text is None:
        why = parts.escaped(_why(text.failure or "", text.detail))
        body = f'<span class="cc-none">no text: {why}</span>'
    else:
        body = _supported(text.text, spans, catalog)
    chosen = " cc-chosen" if text.chosen else ""
    st.html(
        f'<div class="cc-caption{chosen}"><div class="cc-head">{"".join(badges)}</div>'
        f'<div class="cc-text" dir="auto">{body}</div></div>'
    )


def _name(text: WrittenText) -> str:
    candidate = text.made.get("candidate")
    names = {"": "after surgery", HUMAN: "written by a person", ALT_TEXT: "alt text"}
    name = names.get(text.source, text.source)
    return f"{name}, candidate {candidate + 1}" if candidate else name


def _judged(judgement: TextScore) -> list[str]:
    found = [parts.badge_html(flag, "warn") for flag in judgement.flags]
    if judgement.failure:
        found.append(parts.badge_html(judgement.failure, "bad"))
    if judgement.score is not None and not judgement.measures and not judgement.flags:
        found.append(
            f'<span title="{parts.escaped(judgement.scorer)}">'
            f"{parts.score_html(judgement.score)}</span>"
        )
    if judgement.truncated:
        found.append(parts.badge_html("scored in parts"))
    return found


def _supported(text: str, spans: tuple[tuple[int, int, float], ...], catalog: Catalog) -> str:
    """Return the text with each sentence coloured by its support, and its score beside it."""
    pieces, end = [], 0
    for start, stop, score in spans:
        kind = catalog.support(score)
        pieces.append(parts.escaped(text[end:start]))
        pieces.append(
            f'<span class="cc-support cc-{kind}" title="{score:.3f}">'
            f"{parts.escaped(text[start:stop])}<sup>{score:.2f}</sup></span>"
        )
        end = stop
    return "".join(pieces) + parts.escaped(text[end:])


# -- changes, edits, lineage ----------------------------------------------------------------------


def _changes(sample: SampleView) -> None:
    alt = next((text.text for text in sample.texts if text.source == ALT_TEXT), None)
    chosen = next((text for text in sample.texts if text.chosen), None)
    if alt is None or chosen is None or chosen.text == alt:
        return
    with st.expander("Alt text compared with the chosen text", expanded=True):
        parts.worddiff(alt, chosen.text)


def _edits(edits: tuple[Edit, ...]) -> None:
    if not edits:
        return
    with st.expander(f"Edits ({len(edits)})", expanded=True):
        for edit in edits:
            st.html(
                f'<div class="cc-head">{parts.badge_html(edit.action)}'
                f'<span class="cc-about">{parts.escaped(edit.by)}</span></div>'
            )
            if edit.new_text is not None:
                parts.worddiff(edit.base_text, edit.new_text)


def _lineage(sample: SampleView) -> None:
    for text in sample.texts:
        recipe = sample.recipes.get(text.source)
        if recipe is None:
            continue
        with st.expander("Generated by: " + _plain(text.source)):
            parts.facts(_recipe(recipe, text.made))
    for name, recipe in sample.recipes.items():
        if "scorer" in recipe:
            with st.expander("Scored by: " + _plain(name)):
                parts.facts(_recipe(recipe, {}))


def _plain(maker: str) -> str:
    """Escape a maker's name for a label, where Markdown would be interpreted."""
    return "".join(char for char in maker if char.isalnum() or char in "-. ")


def _recipe(recipe: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, object]:
    known: dict[str, object] = {}
    for name, value in recipe.items():
        if name == "sampling" and isinstance(value, Mapping):
            known |= {part.replace("_", " "): setting for part, setting in value.items()}
        elif name == "wordings" and isinstance(value, list):
            known["asked"] = "\n".join(dict.fromkeys(map(str, value)))
        elif value is not None:
            known[name] = value
    known |= {
        name.replace("_", " "): iso(value) if name == "created" else value
        for name, value in made.items()
    }
    return known
