"""How much of the texts a text tower never reads: what lies beyond its context. Torch-free.

A tokenizer cuts a text at the context without a word. What is cut off trains nothing, so an arm of
long captions is then no evidence about long captions: it has to be counted and reported. Counted is
every text that was drawn, as often as it was drawn; a text of which one sentence was drawn counts
as that sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

NUM_SPECIAL = 2
"""Tokens that every text has beside its own: start and end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """Of `num_texts` texts with `num_tokens` tokens of their own, `num_cut` are longer than the
    `context` tokens that a text tower reads, start and end among them; `num_tokens_cut` tokens were
    never read.
    """

    context: int
    num_texts: int = 0
    num_cut: int = 0
    num_tokens: int = 0
    num_tokens_cut: int = 0

    @classmethod
    def of(cls, lengths: Sequence[int], context: int) -> Cuts:
        """Of texts of these lengths, start and end among them."""
        return cls(
            context=context,
            num_texts=len(lengths),
            num_cut=sum(length > context for length in lengths),
            num_tokens=sum(lengths) - NUM_SPECIAL * len(lengths),
            num_tokens_cut=sum(max(0, length - context) for length in lengths),
        )

    def __add__(self, other: Cuts) -> Cuts:
        """Both together; of runs with other contexts the smaller one is reported."""
        mine, theirs = self.counts(), other.counts()
        sums = {name: number + theirs[name] for name, number in mine.items()}
        return Cuts(context=min(self.context, other.context), **sums)

    def counts(self) -> dict[str, int]:
        """What adds up: all but the context."""
        return {name: number for name, number in asdict(self).items() if name != "context"}

    def to_json(self) -> dict[str, int]:
        """Plain values, as `Cuts(**value)` takes them."""
        return asdict(self)

    @property
    def share(self) -> float:
        """Of the texts that were cut, 0 to 1."""
        return self.num_cut / self.num_texts if self.num_texts else 0.0

    def sentence(self) -> str:
        """`31 % of 12,000 captions are longer than the 32 tokens that ...`; for any number cut."""
        lost = self.num_tokens_cut / self.num_tokens if self.num_tokens else 0.0
        return (
            f"{percent(self.share)} of {self.num_texts:,} captions are longer than the "
            f"{self.context} tokens that the text tower reads; {percent(lost)} of all their tokens "
            "are cut off"
        )


def percent(share: float) -> str:
    """`31 %`, `0.4 %`; never 0 for something, nor 100 for less than all."""
    if 0 < share < 0.001:  # noqa: PLR2004 - what one decimal tells
        return "under 0.1 %"
    if 0.999 < share < 1:  # noqa: PLR2004 - as above
        return "over 99.9 %"
    digits = 1 if share < 0.1 or 0.99 < share < 1 else 0  # noqa: PLR2004 - small shares need one
    return f"{share * 100:.{digits}f}".removesuffix(".0") + " %"
