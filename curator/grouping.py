"""Tar members -> the files of each sample, by WebDataset's rule.

The rule: a member name is split at the FIRST dot of its base name. What stands before it, with
the folders, is the key; what stands behind is the extension, so `a/img_0.25.jpg` is extension
`25.jpg` of key `a/img_0` (flag `key.dotted`, since this is rarely what was meant). The files of a
sample lie next to each other.

Every file ends in exactly one place: in a fragment, in a problem, or in the count of members of
an unsafe type, which are never read, and copied nowhere. A sample that lost a file to damage is
marked, so that half of it is not taken for the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from curator.sample import Member
from curator.tarfiles import Problem, TarMember, printable

MAX_KEY_BYTES = 255
# Reading one of these means running code that lies in it.
UNSAFE_EXT = frozenset(("pkl", "pickle", "pyd", "pth", "pt", "dill", "joblib"))

# After these, files that belong to the neighbouring samples may be missing.
LOSSES = frozenset(
    ("tar.truncated", "tar.no_eof", "tar.bad_header", "tar.premature_eof", "tar.header_too_large")
)
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(slots=True)
class Fragment:
    """Neighbouring members of one key; the whole sample unless `reason` says otherwise.

    `key` is printable. `loss` is the damage next to it: its missing files may have been lost there.
    """

    key: str
    members: list[Member] = field(default_factory=list)
    reason: str | None = None
    detail: str = ""
    loss: Problem | None = None

    def refuse(self, reason: str, detail: str) -> None:
        """Mark the fragment as unusable, unless it already is."""
        if self.reason is None:
            self.reason, self.detail = reason, detail


def split_name(name: str) -> tuple[str, str] | None:
    """(key, extension) of a member name; None when it has no key or no extension."""
    folder, slash, base = name.rpartition("/")
    stem, _, ext = base.partition(".")
    return (folder + slash + stem, ext) if stem and ext else None


class Grouping:
    """One pass over what `tarfiles.walk` finds in one shard.

    A member that cannot be used makes its sample unusable. A name that comes again is left out and
    reported; a key that comes again with new files makes all its fragments unusable, which is
    known at the end only.
    """

    def __init__(self) -> None:
        self.num_unsafe = 0
        self._fragments: list[Fragment] = []
        self._problems: list[tuple[Problem, int]] = []
        self._num_members = 0
        self._rows_of_key: dict[str, list[int]] = {}
        self._current_key: str | None = None
        self._loss: Problem | None = None

    def run(self, found: Iterable[TarMember | Problem]) -> Iterator[Fragment]:
        """Yield the fragments in file order, each as soon as the next one begins."""
        num_done = 0
        for item in found:
            if isinstance(item, Problem):
                self._problem(item)
            else:
                self._member(item)
            if len(self._fragments) > num_done + 1:
                yield self._fragments[num_done]
                num_done += 1
        yield from self._fragments[num_done:]

    def problems(self) -> list[Problem]:
        """After `run`: what is wrong with the shard, in file order, names printable.

        A loss says how many members were read before and behind it.
        """
        return [
            _with_counts(problem, before, self._num_members - before)
            if problem.reason in LOSSES
            else problem
            for problem, before in self._problems
        ]

    def scattered(self) -> Iterator[tuple[int, str]]:
        """After `run`: (row, detail) of every fragment whose key has other fragments."""
        for rows in self._rows_of_key.values():
            for row in rows if len(rows) > 1 else ():
                if self._fragments[row].reason is None:
                    yield row, f"its files lie in {len(rows)} places"

    def _problem(self, problem: Problem) -> None:
        named = split_name(problem.member) if problem.member else None
        is_loss = problem.reason in LOSSES
        if is_loss and self._fragments:
            self._fragments[-1].loss = problem
        if is_loss or named is None:
            self._report(problem)
        if named is not None:
            what = f"{printable(problem.member or '')}: {problem.detail}"
            self._fragment(named[0], problem.member or "").refuse(problem.reason, what)
        if is_loss:
            self._loss = problem

    def _report(self, problem: Problem) -> None:
        name = None if problem.member is None else printable(problem.member)
        self._problems.append((replace(problem, member=name), self._num_members))

    def _member(self, member: TarMember) -> None:
        name, offset, length = member
        self._num_members += 1
        named = split_name(name)
        if named is None:
            reason = "path.traversal" if _points_outside(name) else "key.invalid"
            self._report(Problem(reason, "belongs to no sample", offset, name))
            return
        key, ext = named[0], printable(named[1])
        lower = ext.lower()
        if lower.rpartition(".")[2] in UNSAFE_EXT:
            self.num_unsafe += 1
            return
        for row in self._rows_of_key.get(key, ()):
            if any(one.ext.lower() == lower for one in self._fragments[row].members):
                detail = f"{length} bytes left out, the first one is used"
                self._report(Problem("key.duplicate_member", detail, offset, name))
                return
        self._fragment(key, name).members.append(Member(ext, offset, length))

    def _fragment(self, key: str, name: str) -> Fragment:
        loss, self._loss = self._loss, None
        if key != self._current_key:
            self._current_key = key
            self._rows_of_key.setdefault(key, []).append(len(self._fragments))
            self._fragments.append(Fragment(printable(key), loss=loss))
        fragment = self._fragments[-1]
        if _points_outside(name):
            fragment.refuse("path.traversal", printable(name)[:500])
        elif not (name.isprintable() and _is_key_valid(key)):
            fragment.refuse("key.invalid", printable(name)[:500])
        return fragment


def _with_counts(problem: Problem, before: int, behind: int) -> Problem:
    counts = f"{before} members read before it, {behind} behind it"
    return replace(problem, detail=f"{problem.detail}; {counts}")


def _points_outside(name: str) -> bool:
    return (
        name.startswith("/")
        or "\\" in name
        or (".." in name and ".." in name.split("/"))
        or _DRIVE.match(name) is not None
    )


def _is_key_valid(key: str) -> bool:
    """No space, at most `MAX_KEY_BYTES`; `key` is printable, so: UTF-8, no NUL, no line break."""
    return " " not in key and len(key.encode()) <= MAX_KEY_BYTES
