"""Group tar members into the files of each sample, by WebDataset's rule.

The rule is in `curator.shards.keys`: `a/img_0.25.jpg` is extension `25.jpg` of key `a/img_0` (flag
`key.dotted`, since this is rarely intended). The files of a sample must be adjacent.

Every file ends in exactly one place: in a fragment, in a problem, or in the count of members of
unsafe types, which are never read or copied. A sample that lost a file to damage is marked, so that
a part of it is not taken for the whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from curator.shards.keys import escaped, points_outside, problem_of, spelling, split_name
from curator.shards.samples import Member
from curator.shards.tar import Problem, TarMember, printable

# Reading one of these runs the code in it.
UNSAFE_EXT = frozenset(("pkl", "pickle", "pyd", "pth", "pt", "dill", "joblib"))

# After one of these, files of the neighbouring samples may be missing.
LOSSES = frozenset(
    ("tar.truncated", "tar.no_eof", "tar.bad_header", "tar.premature_eof", "tar.header_too_large")
)


@dataclass(slots=True)
class Fragment:
    """Adjacent members of one key; the whole sample unless `reason` says otherwise.

    `key` is as in the shard, or printable if it is refused. `loss` is damage next to the fragment,
    where its missing files may have been lost.
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


class Grouping:
    """One pass over what `tar.walk` finds in one shard.

    A member that cannot be used makes its sample unusable. A repeated name is left out and
    reported; a key that recurs with new files, or in another spelling, makes all its fragments
    unusable, which is known only at the end.
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
        """Return, after `run`, the problems of the shard in file order, with printable names.

        A loss says how many members were read before and after it.
        """
        return [
            _with_counts(problem, before, self._num_members - before)
            if problem.reason in LOSSES
            else problem
            for problem, before in self._problems
        ]

    def unusable_keys(self) -> Iterator[tuple[int, str, str]]:
        """Yield, after `run`, (row, reason, detail) of every fragment whose key is not unique."""
        spellings: dict[str, list[str]] = defaultdict(list)
        for key, rows in self._rows_of_key.items():
            spellings[spelling(key)].append(key)
            detail = f"its files are in {len(rows)} places"
            yield from self._mark(rows if len(rows) > 1 else (), "key.not_adjacent", detail)
        for keys in spellings.values():
            for key in keys if len(keys) > 1 else ():
                others = ", ".join(ascii(other) for other in keys if other != key)
                detail = f"unpacked, {key!a} is the same file as {others}"[:500]
                yield from self._mark(self._rows_of_key[key], "key.ambiguous", detail)

    def _mark(
        self, rows: Iterable[int], reason: str, detail: str
    ) -> Iterator[tuple[int, str, str]]:
        return ((row, reason, detail) for row in rows if self._fragments[row].reason is None)

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
            reason = "path.traversal" if points_outside(name) else "key.invalid"
            self._report(Problem(reason, "belongs to no sample", offset, name))
            return
        key, ext = named[0], escaped(named[1])
        lower = ext.lower()
        if lower.rpartition(".")[2] in UNSAFE_EXT:
            self.num_unsafe += 1
            return
        for row in self._rows_of_key.get(key, ()):
            if any(one.ext.lower() == lower for one in self._fragments[row].members):
                detail = f"{length} bytes left out, the first file is used"
                self._report(Problem("key.duplicate_member", detail, offset, name))
                return
        self._fragment(key, name).members.append(Member(ext, offset, length))

    def _fragment(self, key: str, name: str) -> Fragment:
        loss, self._loss = self._loss, None
        if key != self._current_key:
            self._current_key = key
            self._rows_of_key.setdefault(key, []).append(len(self._fragments))
            self._fragments.append(Fragment(key, loss=loss))
        fragment = self._fragments[-1]
        reason = problem_of(name, key)
        if reason is not None:
            fragment.key = printable(key)
            fragment.refuse(reason, printable(name)[:500])
        return fragment


def _with_counts(problem: Problem, before: int, behind: int) -> Problem:
    counts = f"{before} members read before it, {behind} after it"
    return replace(problem, detail=f"{problem.detail}; {counts}")
