"""Is a judge of the family of what it judges? Known by configs and model cards, not by names.

A judge prefers what a model of its own family wrote or chose. Two models are of one family if they
are the same, if one was made from the other or both from the same model (`base_model` of their
cards), or if they have the same architecture (`model_type` of config.json). What the files do not
say, and what a server runs, is unknown, and is said to be unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator.captioners import CAPTIONERS
from curator.core import models, progress
from curator.engine.makers import Maker
from curator.scorers import SCORERS
from curator.steps.workspace import Workspace
from curator.store.facts import CAPTIONS, SCORES, Facts

_CARD = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
_BASE = re.compile(r"^base_model:[ \t]*([^\n]*)((?:\n[ \t]*-[^\n]*)*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Lineage:
    """What is known of a model: its weights, its architecture, and the models it was made from.

    `architecture` is None if no config is here. `origins` are its own hub name and the
    `base_model` of its card; `has_card` tells whether there is a card at all.
    """

    name: str
    weights: str | None
    architecture: str | None
    origins: frozenset[str]
    has_card: bool


def lineage_of(
    name: str, weights: str | None, folder: Path | None, *, is_hub_name: bool = False
) -> Lineage:
    """Return what the files in `folder` say of a model; None: it is not here."""
    origins = {name} if is_hub_name else set()
    card = _text(folder / "README.md") if folder else None
    if card is not None:
        origins |= set(base_models(card))
    return Lineage(
        name=name,
        weights=weights,
        architecture=_architecture(folder) if folder else None,
        origins=frozenset(origins),
        has_card=card is not None,
    )


def base_models(card: str) -> list[str]:
    """Return the `base_model` entries of the header of a model card (one name, or a list)."""
    header = _CARD.match(card)
    found = _BASE.search(header[1]) if header else None
    if found is None:
        return []
    listed = [line.strip().removeprefix("-") for line in found[2].splitlines()]
    names = [*found[1].strip().strip("[]").split(","), *listed]
    return [name for name in (one.strip().strip("'\"") for one in names) if name]


def kinship(judge: Lineage, other: Lineage) -> str | None:
    """Return why two models are of one family, "" if they are not, None if it is unknown."""
    if judge.weights is not None and judge.weights == other.weights:
        return "it is the same model"
    if judge.name == other.name and judge.weights is None:  # of two servers
        return "it has the same name"
    if common := judge.origins & other.origins:
        return f"both come from {min(common)}"
    if judge.architecture is not None and judge.architecture == other.architecture:
        return f"both are {judge.architecture!r} models"
    known = (judge.architecture, other.architecture)
    return "" if None not in known and judge.has_card and other.has_card else None


def say_kinship(ws: Workspace, judge: Maker, others: Sequence[Maker] | None = None) -> None:
    """Warn where a judge is of the family of a captioner, or of the scorer that chose the texts.

    `others` are those of this run; None: those with facts in the store. Scorers that are no judges
    are left alone.
    """
    if not SCORERS.spec(judge.row).judge:
        return
    own = _of(judge.recipe, judge.options)
    found: Iterable[tuple[str, Lineage | None]]
    if others is None:
        found = _of_store(ws, judge.name)
    else:
        found = [(one.name, _of(one.recipe, one.options)) for one in others if one != judge]
    unknown = []
    for name, other in found:
        if other is None or own is None:
            continue
        why = kinship(own, other)
        if why:
            progress.say(
                f"warning: the judge {judge.name} is of the family of {name} ({why}): it may "
                "prefer what that one wrote or chose"
            )
        elif why is None:
            unknown.append(name)
    if unknown:
        progress.say(
            f"note: whether the judge {judge.name} is of the family of {', '.join(unknown)} is "
            "unknown: no config or no model card is here that says what they were made from"
        )


def _of_store(ws: Workspace, judge: str) -> list[tuple[str, Lineage | None]]:
    makers = [(CAPTIONS, name) for name in ws.store.makers(CAPTIONS)]
    newest = ws.store.newest()
    chooser = newest.policy.get("scorer_facts") if newest is not None else None
    if chooser and chooser != judge and chooser in ws.store.makers(SCORES):
        makers.append((SCORES, str(chooser)))
    return [
        (name, _of(ws.store.recipe(kind, name), {}))
        for kind, name in makers
        if Facts(ws.store, kind, name).any_there()
    ]


def _of(recipe: Mapping[str, Any], options: Mapping[str, Any]) -> Lineage | None:
    """Return the lineage of a maker's model; None if it has none."""
    table, row = (CAPTIONERS, "captioner") if "captioner" in recipe else (SCORERS, "scorer")
    spec = table.rows.get(str(recipe.get(row)))
    if spec is None or spec.needs == "nothing":
        return None
    name = str(recipe["model"])
    pinned = recipe.get("revision")
    revision = str(pinned) if pinned else None
    is_folder = revision is not None and revision.startswith("sha256:")
    if recipe.get("served") or options.get("url") or spec.needs == "server":
        return lineage_of(name, None, None)
    if is_folder:
        folder = models.at_hand(str(options["model"])) if options.get("model") else None
    else:
        folder = models.at_hand(name, revision=revision)
    weights = f"{'' if is_folder else name}@{revision}"
    return lineage_of(name, weights, folder, is_hub_name=not is_folder)


def _architecture(folder: Path) -> str | None:
    for file, key in (("config.json", "model_type"), ("open_clip_config.json", "model_cfg")):
        try:
            found = json.loads(_text(folder / file) or "null")
        except ValueError:
            continue
        if isinstance(found, dict) and found.get(key):
            return str(found[key]) if key == "model_type" else "open_clip"
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return None
