"""Versions and what they stand on: a decision stands on the facts, edits stand on a version."""

from __future__ import annotations

from dataclasses import dataclass

from curator.store import Store
from curator.versions import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One version. `base` is the version that it edits, None for a decision from the facts.

    A decision does not depend on the version before it, so that one is no base.
    """

    version: Version
    base: Version | None
    tags: tuple[str, ...]


def lineage(store: Store) -> list[Node]:
    """All versions, oldest first."""
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
        )
        for version in versions
    ]


def chains(nodes: list[Node]) -> list[list[Node]]:
    """The lines of descent by edits, each from a decision to a version nobody edited further.

    Versions without any edits, before or after, are in none.
    """
    by_number = {node.version.number: node for node in nodes}
    bases = {node.base.number for node in nodes if node.base is not None}
    found = []
    for node in nodes:
        if node.base is None or node.version.number in bases:
            continue
        line = [node]
        while (base := line[0].base) is not None:
            line.insert(0, by_number[base.number])
        found.append(line)
    return found
