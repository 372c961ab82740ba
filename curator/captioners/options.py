"""Options shared by several captioners: frozen, validated, and stored with every caption."""

from __future__ import annotations

from dataclasses import dataclass

from curator.core.errors import check_value

MAX_SEED = 2**31 - 1  # what every server accepts as a seed
MIN_TEMPERATURE = 0.01  # lower values overflow the logits and are practically greedy
MAX_TEMPERATURE = 2.0
RETRY_CANDIDATE = (
    1000  # added to the candidate number of a second try; above any real number of candidates
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Sampling parameters of a captioner.

    `max_tokens` limits the new tokens of one caption. `temperature` 0 is greedy: all candidates of
    an image are then the same. `top_p` in (0, 1] keeps the likeliest tokens that together have that
    probability. Candidate number c of an image is drawn with the seed `seed + c`.

    Raises:
        UsageError: a field is out of range; the message names it.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_value(self.max_tokens >= 1, "max_tokens", self.max_tokens, "1 or more")
        sane = self.temperature == 0 or MIN_TEMPERATURE <= self.temperature <= MAX_TEMPERATURE
        allowed = f"0 (greedy), or {MIN_TEMPERATURE} to {MAX_TEMPERATURE}"
        check_value(sane, "temperature", self.temperature, allowed)
        check_value(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        check_value(0 <= self.seed <= MAX_SEED, "seed", self.seed, f"0 to {MAX_SEED}")

    def seed_of(self, candidate: int) -> int:
        """Return the seed for candidate number `candidate` of an image."""
        return (self.seed + candidate) % (MAX_SEED + 1)
