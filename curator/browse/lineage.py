"""Trace what versions are based on: decisions on the facts, edits on another version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from curator.policy.model import ALT_TEXT
from curator.store.store import Store
from curator.store.versions import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One version. `base` is the version that it edits, None for a decision from the facts.

    A decision has no base, because it does not depend on the version before it. `sources` are the
    texts that it could choose from: "alt_text" or a maker of captions -> its display name.
    """

    version: Version
    base: Version | None
    tags: tuple[str, ...]
    sources: Mapping[str, str]


def lineage(store: Store) -> list[Node]:
    """Return all versions, oldest first."""
    versions = list(store.versions())
    by_id = {version.id: version for version in versions}
    tags: dict[int, list[str]] = {}
    for tag, number in store.tags().items():
        tags.setdefault(number, []).append(tag)
    return [
        Node(
            version=version,
            base=by_id.get(str(version.policy.get("edits_on"))),
            tags=tuple(tags.get(version.number, ())),
            sources=_sources(version),
        )
        for version in versions
    ]


def _sources(version: Version) -> dict[str, str]:
    policy = version.policy
    uses_alt = ALT_TEXT in policy.get("sources", ()) or policy.get("otherwise") == "keep_alt"
    found = {ALT_TEXT: "alt texts"} if uses_alt else {}
    for maker, recipe in version.makers.items():
        if "captioner" in recipe:
            parts = (recipe.get("model"), recipe.get("prompt"))
            found[maker] = ", ".join(str(part) for part in parts if part) or maker
    return found


def lines(nodes: list[Node]) -> list[list[Node]]:
    """Group versions into lines: a decision, followed by all edits based on it, also indirectly.

    Every version is in exactly one line. A version whose base is not among `nodes` starts a line
    too. Edits of the same version follow one another, each followed by its own edits.
    """
    edits: dict[int, list[Node]] = {}
    there = {node.version.number for node in nodes}
    starts = []
    for node in nodes:
        if node.base is not None and node.base.number in there:
            edits.setdefault(node.base.number, []).append(node)
        else:
            starts.append(node)

    def line(node: Node) -> list[Node]:
        return [node, *(one for edit in edits.get(node.version.number, ()) for one in line(edit))]

    return [line(start) for start in starts]
