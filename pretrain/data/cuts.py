"""Count the text beyond a text tower's context, which it never reads. Torch-free.

A tokenizer silently cuts a text at the context. The rest trains nothing, so an arm of long captions
may be no evidence about long captions: the cuts must be counted and reported. Each text counts as
often as it was drawn; if one sentence of a text was drawn, that sentence counts as the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

NUM_SPECIAL = 2
"""Tokens added to every text: start and end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """Counts of texts that are longer than a text tower's context.

    Of `num_texts` texts with `num_tokens` tokens (without start and end), `num_cut` are longer than
    the `context` (in tokens, start and end included); `num_tokens_cut` tokens were never read.
    """

    context: int
    num_texts: int = 0
    num_cut: int = 0
    num_tokens: int = 0
    num_tokens_cut: int = 0

    @classmethod
    def of(cls, lengths: Sequence[int], context: int) -> Cuts:
        """Count texts of these lengths in tokens, start and end included."""
        return cls(
            context=context,
            num_texts=len(lengths),
            num_cut=sum(length > context for length in lengths),
            num_tokens=sum(lengths) - NUM_SPECIAL * len(lengths),
            num_tokens_cut=sum(max(0, length - context) for length in lengths),
        )

    def __add__(self, other: Cuts) -> Cuts:
        """Add the counts; if the contexts differ, the smaller one is kept."""
        mine, theirs = self.counts(), other.counts()
        sums = {name: number + theirs[name] for name, number in mine.items()}
        return Cuts(context=min(self.context, other.context), **sums)

    def counts(self) -> dict[str, int]:
        """Return the fields that can be added up: all but the context."""
        return {name: number for name, number in asdict(self).items() if name != "context"}

    def to_json(self) -> dict[str, int]:
        """Return plain values, for `Cuts(**value)`."""
        return asdict(self)

    @property
    def share(self) -> float:
        """Return the fraction of texts that were cut, 0 to 1."""
        return self.num_cut / self.num_texts if self.num_texts else 0.0

    def sentence(self) -> str:
        """Return `31 % of 12,000 captions are longer than the 32 tokens that ...`."""
        lost = self.num_tokens_cut / self.num_tokens if self.num_tokens else 0.0
        return (
            f"{percent(self.share)} of {self.num_texts:,} captions are longer than the "
            f"{self.context} tokens that the text tower reads; {percent(lost)} of all their tokens "
            "are cut off"
        )


def percent(share: float) -> str:
    """Format as `31 %` or `0.4 %`; never 0 for more than none, nor 100 for less than all."""
    if 0 < share < 0.001:  # noqa: PLR2004 - the smallest with one decimal
        return "under 0.1 %"
    if 0.999 < share < 1:  # noqa: PLR2004 - as above
        return "over 99.9 %"
    digits = 1 if share < 0.1 or 0.99 < share < 1 else 0  # noqa: PLR2004 - small ones need a decimal
    return f"{share * 100:.{digits}f}".removesuffix(".0") + " %"
