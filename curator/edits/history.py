"""Edits as values: which edits of a sample are in effect, and which new edits come too late.

An edit is about one text of one sample. Edits build on each other: of "x -> y" and "y -> z" both
are in effect, and a version that has any of the three texts gets z. Nothing here reads or writes a
file; `curator.edits.log` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from curator.core.clock import iso
from curator.core.errors import ConflictError, UsageError
from curator.core.text import clean_str

EDIT: Final = "edit"
ACCEPT: Final = "accept"
REJECT: Final = "reject"
UNDO: Final = "undo"
Action = Literal["edit", "accept", "reject"]
MAX_CHARS = 10_000
MAX_WHO_CHARS = 60
_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRef:
    """One image of one shard. Row and key locate it, the hash verifies it."""

    shard: str
    row: int
    key: str
    image_sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An edit that a person wants to make.

    `base_text` is the text it changes, as the writer saw it (None: the sample has none); `new_text`
    is set only for `edit`. `seen` is the number of the newest edit of this text that the writer
    knew of.

    Raises:
        UsageError: on creation, if action and texts do not match.
    """

    sample: SampleRef
    action: Action
    base_text: str | None
    new_text: str | None = None
    seen: int | None = None

    def __post_init__(self) -> None:
        if self.action not in (EDIT, ACCEPT, REJECT):
            raise UsageError(
                f"action is {self.action!r}", hint=f"allowed: {EDIT}, {ACCEPT}, {REJECT}"
            )
        if self.action == EDIT:
            object.__setattr__(self, "new_text", clean_new_text(self.new_text, self.base_text))
        elif self.new_text is not None:
            raise UsageError(f"new_text is only for {EDIT!r}, not for {self.action!r}")
        elif self.base_text is None:
            raise UsageError(
                f"{self.sample.key!r} has no text to {self.action}",
                hint="write a text, or leave it as it is",
                reason="edits.no_text",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One acknowledged edit, a line of the log. `undoes` is the number of the edit it undoes.

    `batch` names the find-and-replace that the edit is part of.
    """

    number: int
    shard: str
    row: int
    key: str
    image_sha256: str | None
    action: str
    base_text: str | None
    new_text: str | None
    who: str
    created: float
    undoes: int | None = None
    batch: str | None = None

    @property
    def id(self) -> str:
        """Return the id for people: `00000#12`."""
        return f"{self.shard}#{self.number}"

    @property
    def sample(self) -> SampleRef:
        """Return the sample it is about."""
        return SampleRef(
            shard=self.shard, row=self.row, key=self.key, image_sha256=self.image_sha256
        )

    @property
    def result(self) -> str | None:
        """Return the text after the edit; for a rejected one, the removed text."""
        return self.new_text if self.action == EDIT else self.base_text

    @property
    def by(self) -> str:
        """Return who made it and when, for messages."""
        return f"{self.who!r} at {iso(self.created)}"


class History:
    """All edits of one shard in the order they were made, and which of them are in effect."""

    def __init__(self, shard: str, edits: Sequence[Edit] = ()) -> None:
        self.shard = shard
        self.edits: list[Edit] = []
        self._undone: dict[int, Edit] = {}
        self._by_sample: dict[SampleRef, list[Edit]] = {}
        for edit in edits:
            self.add(edit)

    def add(self, edit: Edit) -> None:
        """Add an edit made just now."""
        self.edits.append(edit)
        if edit.undoes is not None:
            self._undone[edit.undoes] = edit
        else:
            self._by_sample.setdefault(edit.sample, []).append(edit)

    @property
    def samples(self) -> list[SampleRef]:
        """Return the samples with an edit in effect, by row."""
        found = [sample for sample in self._by_sample if self.in_effect(sample)]
        return sorted(found, key=lambda sample: sample.row)

    def undone_by(self, number: int) -> Edit | None:
        """Return the undo of an edit, or None."""
        return self._undone.get(number)

    def in_effect(self, sample: SampleRef) -> list[Edit]:
        """Return the edits of a sample that were not undone, oldest first."""
        return [e for e in self._by_sample.get(sample, []) if e.number not in self._undone]

    def heads(self) -> Iterator[Edit]:
        """Yield the edits in effect that no later one builds on: the current result."""
        for sample in self.samples:
            yield from heads(self.in_effect(sample))

    def written(self) -> Iterator[tuple[SampleRef, str]]:
        """Yield the texts written by people in edits in effect, each once per sample."""
        for sample in self.samples:
            edits = self.in_effect(sample)
            ends = [follow(edits, edit.base_text)[-1] for edit in edits if edit.action == EDIT]
            for text in dict.fromkeys(end.result for end in ends if end.action != REJECT):
                assert text is not None, "an edit leaves a text"
                yield sample, text

    def builds_on(self, edit: Edit) -> Edit | None:
        """Return a later edit in effect of the text that this one made, or None."""
        if edit.result == edit.base_text:
            return None
        later = [e for e in self.in_effect(edit.sample) if e.number > edit.number]
        return next((e for e in later if e.base_text == edit.result), None)


def heads(edits: Sequence[Edit]) -> list[Edit]:
    """Return the edits of one sample that no later one builds on or repeats."""
    return [
        edit
        for place, edit in enumerate(edits)
        if all(later.base_text not in (edit.result, edit.base_text) for later in edits[place + 1 :])
    ]


def follow(edits: Sequence[Edit], text: str | None) -> list[Edit]:
    """Return the chain of edits that applies to a text; the last one gives the result."""
    applied: list[Edit] = []
    for edit in edits:
        if edit.base_text == (applied[-1].result if applied else text):
            applied.append(edit)
    return applied


# -- what is refused -------------------------------------------------------------------------------


def clean_who(who: str) -> str:
    """Return a reviewer's name on one clean line.

    Raises:
        UsageError: it is empty or too long.
    """
    name = clean_str(who).text
    if not 0 < len(name) <= MAX_WHO_CHARS:
        raise UsageError(
            f"the reviewer's name is {name[:_SHOWN_CHARS]!r}",
            hint=f"give a name of 1 to {MAX_WHO_CHARS} characters",
            reason="edits.who",
        )
    return name


def clean_new_text(new_text: str | None, base_text: str | None) -> str:
    """Return the text of an edit on one clean line.

    Raises:
        UsageError: it is empty, too long or unchanged.
    """
    clean = clean_str(new_text or "").text
    what = None
    if not clean:
        what, hint = "the new text is empty", f"{REJECT} it instead"
    elif len(clean) > MAX_CHARS:
        what, hint = (
            f"the new text has {len(clean):,} characters",
            f"at most {MAX_CHARS:,} are allowed",
        )
    elif clean == base_text:
        what, hint = "the new text equals the old one", f"{ACCEPT} it instead"
    if what:
        raise UsageError(what, hint=hint, reason="edits.text")
    return clean


def unseen(past: History, draft: Draft) -> list[Edit]:
    """Return the edits of the draft's text that its writer had not seen."""
    seen = -1 if draft.seen is None else draft.seen
    here = past.in_effect(draft.sample)
    return [edit for edit in here if edit.number > seen and edit.base_text == draft.base_text]


def agrees(edit: Edit, draft: Draft) -> bool:
    """Whether an edit and a draft want the same result for one text."""
    return (edit.action, edit.new_text) == (draft.action, draft.new_text)


def why_stale(past: History, draft: Draft) -> ConflictError | None:
    """Return why a draft is refused: its text has changed; the same change is not a conflict."""
    if draft.seen is not None:
        known = past.edits[draft.seen] if draft.seen < len(past.edits) else None
        if known is None or (known.sample, known.result) != (draft.sample, draft.base_text):
            return _conflict(draft, f"is not the result of edit {draft.seen}")
        if before := past.undone_by(draft.seen):
            return _conflict(draft, f"was restored by {before.by}")
    since = unseen(past, draft)
    if not since or agrees(since[-1], draft):
        return None
    last = since[-1]
    became = f" to {_short(last.new_text)}" if last.new_text is not None else ""
    return _conflict(draft, f"was {_DONE[last.action]} by {last.by}{became}")


_DONE = {EDIT: "changed", ACCEPT: "accepted", REJECT: "rejected"}


def _conflict(draft: Draft, what: str) -> ConflictError:
    sample = draft.sample
    return ConflictError(
        f"the text {_short(draft.base_text)} of {sample.key!r} (shard {sample.shard}) {what}",
        did="your edit was not recorded",
        hint="reload, and edit the current text",
        reason="edits.stale",
    )


def why_kept(past: History, edit: Edit) -> ConflictError | None:
    """Return why an edit cannot be undone, or None."""
    if before := past.undone_by(edit.number):
        what = f"{edit.id} was already undone by {before.by}"
        return ConflictError(what, did="nothing was recorded", reason="edits.undone")
    if later := past.builds_on(edit):
        return ConflictError(
            f"{later.by} has built on {edit.id} since",
            did="nothing was recorded",
            hint=f"undo {later.id} first",
            reason="edits.stale",
        )
    return None


def _short(text: str | None) -> str:
    if text is None:
        return "(none)"
    return repr(text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…")
