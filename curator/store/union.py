"""Unite sequences that grew apart, such as the logs of edits of two copies of a store."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def united(
    sequences: Sequence[Sequence[T]], *, key: Callable[[T], K], order: Callable[[T], Any]
) -> list[T]:
    """Return every item once, in an order that agrees with each of the sequences.

    Items with the same `key` are one item; the copy with the lowest `order` is taken. Where the
    sequences leave a choice, the item with the lowest `order` comes first: a time and something
    that tells two items of one time apart. The result does not depend on the order of the
    sequences, and uniting it with one of them gives it again.

    Raises:
        ValueError: two sequences have the same items in contradicting orders.
    """
    items: dict[K, T] = {}
    after: dict[K, set[K]] = {}
    num_before: dict[K, int] = {}
    for sequence in sequences:
        before: K | None = None
        for item in sequence:
            name = key(item)
            known = items.setdefault(name, item)
            if order(item) < order(known):
                items[name] = item
            num_before.setdefault(name, 0)
            if before is not None and name not in after.setdefault(before, set()):
                after[before].add(name)
                num_before[name] += 1
            before = name
    ready = [(order(items[name]), name) for name, count in num_before.items() if not count]
    heapq.heapify(ready)
    found = []
    while ready:
        _, name = heapq.heappop(ready)
        found.append(items[name])
        for later in after.get(name, ()):
            num_before[later] -= 1
            if not num_before[later]:
                heapq.heappush(ready, (order(items[later]), later))
    if len(found) < len(items):
        raise ValueError("the same items in contradicting orders")
    return found
