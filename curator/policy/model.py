"""Policies: rules for deciding, in a small TOML file. A policy is data and runs no code.

    name = "best"
    sources = ["generated", "alt_text"]   # which texts compete; for `first`, in this order
    pick = "best"                         # best (by score) | first (that passes) | all
    otherwise = "drop"                    # drop | keep_alt: when no text passes
    scorer = "clip"                       # which scorer's scores to use

    [[rule]]                              # a text that fails any rule is discarded
    name = "healthy"                      # shown as the reason
    source = "any"                        # alt_text | generated | any
    field = "flags"
    none_of = ["refusal", "spam"]

    [[rule]]
    name = "aligned"
    field = "score"
    min_percentile = 30                   # within each generator, over this dataset

    [[rule]]
    name = "shown"
    field = "score"
    scorer = "vqa"                        # of another scorer than the policy's
    min = 0.5

    [surgery]                             # drop unsupported sentences, keep the rest
    min_percentile = 10

    [weights]                             # for pick = "all"
    alt_text = 0.4
    generated = 0.6

    [[concept]]                           # gives rules the field concept.maps
    name = "maps"
    words = ["a map", "a satellite photo"]

A single score threshold would delete the longer captions that help dense tasks: scorers give them
lower scores than short ones (GBC, arXiv 2407.06723: 0.33 short, 0.26 detailed). Therefore
percentiles are computed within each generator.

A caption that the token limit cut in mid-sentence is chosen only if no complete text passes, unless
a rule on `truncated` says otherwise (`max = 0`: never; `max = 1`: like any other).
"""

from __future__ import annotations

import tomllib
from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from curator.core.errors import UsageError, nearest
from curator.core.presets import Presets
from curator.core.validation import explain
from curator.policy.fields import FIELDS, field_of
from curator.scorers import SCORERS, concepts

MAX_NAME_CHARS = 60
CHANGED = "+"
"""Separates a preset's name from the names of what was changed in it."""
ALT_TEXT = "alt_text"
GENERATED = "generated"

Source = Literal["alt_text", "generated"]
_STRICT = ConfigDict(extra="forbid", frozen=True)


class Rule(BaseModel):
    """One condition on a row of `curator.policy.fields.FIELDS`.

    `scorer`, for the field `score`, is the scorer that is asked; None: the policy's.
    A text without a value for `field` (for example, never scored) fails the rule.
    """

    model_config = _STRICT

    name: str = Field(min_length=1, max_length=60)
    source: Source | Literal["any"] = "any"
    field: str
    scorer: str | None = None
    min: float | None = None
    max: float | None = None
    min_percentile: float | None = Field(default=None, ge=0, le=100)
    none_of: tuple[str, ...] = ()

    @field_validator("field")
    @classmethod
    def _is_in_the_table(cls, name: str) -> str:
        if name not in FIELDS and not name.startswith(concepts.FIELD_PREFIX):
            raise ValueError(nearest(name, FIELDS))
        return name

    @model_validator(mode="after")
    def _its_limits_are_allowed(self) -> Self:
        row = field_of(self.field)
        limits = [self.min, self.max, self.min_percentile]
        if row.names:
            if not self.none_of or any(limit is not None for limit in limits):
                raise ValueError(f"a rule on {self.field} takes `none_of` and nothing else")
            for name in self.none_of:
                if name not in row.names:
                    raise ValueError(
                        f"`none_of` has an unknown name {name!r}: {nearest(name, row.names)}"
                    )
        elif self.none_of or all(limit is None for limit in limits):
            raise ValueError(f"a rule on {self.field} takes `min`, `max` or `min_percentile`")
        for bound, limit in (("min", self.min), ("max", self.max)):
            # Also refuses NaN: every comparison with it is false.
            if limit is not None and not row.lowest <= limit <= row.highest:
                raise ValueError(f"`{bound}` of {self.field} is {limit:g}; allowed: {row.range}")
        for key, value in (("min_percentile", self.min_percentile), ("scorer", self.scorer)):
            if value is not None and self.field != "score":
                raise ValueError(f"`{key}` is only for field = 'score'")
        return self

    @field_validator("scorer")
    @classmethod
    def _gives_scores(cls, name: str | None) -> str | None:
        of_pairs = [row for row, spec in SCORERS.rows.items() if not spec.text_only]
        if name is not None and name not in of_pairs:
            raise ValueError(nearest(name, of_pairs))
        return name

    @model_serializer(mode="wrap")
    def _without_what_is_new(self, plain: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out a scorer that is not named: the ids of versions without one do not change."""
        found: dict[str, object] = plain(self)
        if self.scorer is None:
            found.pop("scorer", None)
        return found


class Surgery(BaseModel):
    """Remove the sentences of a text that score below the limit; single-sentence texts stay."""

    model_config = _STRICT

    min_score: float | None = None
    min_percentile: float | None = Field(default=None, ge=0, le=100)

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.min_score is None) == (self.min_percentile is None):
            raise ValueError("surgery takes either `min_score` or `min_percentile`")
        return self


class Weights(BaseModel):
    """Sampling weights for `pick = "all"`, divided among the texts of a source."""

    model_config = _STRICT

    alt_text: float = Field(default=1.0, ge=0)
    generated: float = Field(default=1.0, ge=0)


class Concept(BaseModel):
    """What the rules call `concept.NAME`: an image has the highest value of these words."""

    model_config = _STRICT

    name: str
    words: tuple[str, ...]

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        try:
            concepts.check_concept(self.name, self.words)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self


class Policy(BaseModel):
    """A complete policy. The module docstring has an example with every key."""

    model_config = _STRICT

    name: str = Field(min_length=1, max_length=MAX_NAME_CHARS)
    description: str = ""
    sources: tuple[Source, ...] = Field(min_length=1)
    pick: Literal["best", "first", "all"]
    otherwise: Literal["drop", "keep_alt"] = "drop"
    scorer: str = "clip"
    rule: tuple[Rule, ...] = ()
    surgery: Surgery | None = None
    weights: Weights = Weights()
    concept: tuple[Concept, ...] = ()

    @model_validator(mode="after")
    def _its_concepts_are_known(self) -> Self:
        own = [one.name for one in self.concept]
        if len(set(own)) < len(own):
            raise ValueError("two concepts have the same name")
        known = {*own, *concepts.PRESETS}
        for name in self._concept_names:
            if name not in known:
                raise ValueError(
                    f"no concept is called {name!r}: {nearest(name, known)}; or say what it is in"
                    " a table [[concept]] with name and words"
                )
        return self

    @property
    def concepts(self) -> dict[str, tuple[str, ...]]:
        """The words of every concept that a rule asks about, by name."""
        own = {one.name: one.words for one in self.concept}
        return {name: own.get(name) or concepts.PRESETS[name] for name in self._concept_names}

    @property
    def _concept_names(self) -> list[str]:
        prefix = concepts.FIELD_PREFIX
        fields = (rule.field for rule in self.rule if rule.field.startswith(prefix))
        return list(dict.fromkeys(field.removeprefix(prefix) for field in fields))

    @property
    def needs_score(self) -> bool:
        """Whether the decision depends on scores of the policy's own scorer."""
        own = any(
            field_of(rule.field).needs == "scores" and self.other_scorer(rule) is None
            for rule in self.rule
        )
        return self.pick == "best" or self.surgery is not None or own

    @property
    def other_scorers(self) -> tuple[str, ...]:
        """Return the scorers that rules ask besides the policy's own, in their order."""
        asked = (self.other_scorer(rule) for rule in self.rule)
        return tuple(dict.fromkeys(scorer for scorer in asked if scorer is not None))

    def other_scorer(self, rule: Rule) -> str | None:
        """Return the scorer that a rule asks, None if it is the policy's own."""
        return None if rule.scorer == self.scorer else rule.scorer

    @property
    def needs_flags(self) -> bool:
        """Whether the decision depends on flags of the text checker."""
        return self._has_rule_with("flags")

    @property
    def has_rule_on_truncated(self) -> bool:
        """Whether a rule decides about captions cut at the token limit.

        Without such a rule they are chosen only if there is no complete text.
        """
        return any(rule.field == "truncated" for rule in self.rule)

    @property
    def needs_generated(self) -> bool:
        """Whether generated captions can be chosen."""
        return GENERATED in self.sources

    @property
    def needs_copies(self) -> bool:
        """Whether the decision depends on duplicate images."""
        return self._has_rule_with("copies")

    @property
    def needs_alt_text(self) -> bool:
        """Whether a rule compares texts with the alt text of their sample."""
        return self._has_rule_with("alt_text")

    def _has_rule_with(self, needs: str) -> bool:
        return any(field_of(rule.field).needs == needs for rule in self.rule)


PRESETS = Presets("policy", "curator.policy", "presets")
"""Policies that are bundled with the tool."""


def load_policy(name_or_path: str) -> Policy:
    """Read a preset by name, or a TOML file by path.

    Raises:
        UsageError: no such policy, invalid TOML, or a key or value that is not allowed.
    """
    return parse_policy(PRESETS.read(name_or_path), where=name_or_path)


def under_its_own_name(policy: Policy) -> Policy:
    """Return the policy as it is committed: a changed preset does not keep the preset's name.

    `best` with another rule `healthy` and another `otherwise` becomes `best+healthy,otherwise`:
    the names of the changed rules and keys, or `best+changed` if that is too long. So a policy
    named `best` is always the preset of this tool, whatever file, option or page it came from.
    Changing only the description changes nothing.
    """
    base = policy.name.partition(CHANGED)[0]
    if base not in PRESETS.names():
        return policy
    preset = load_policy(base)
    differing = _differing(policy, preset)
    if not differing:
        return policy.model_copy(update={"name": base})
    name = f"{base}{CHANGED}{','.join(differing)}"
    if len(name) > MAX_NAME_CHARS:
        name = f"{base}{CHANGED}changed"
    description = policy.description
    if description == preset.description:
        description = f"The preset {base} with other {', '.join(differing)}. {description}"
    return policy.model_copy(update={"name": name, "description": description})


def _differing(policy: Policy, preset: Policy) -> list[str]:
    """Return the names of keys and rules in which two policies decide differently, sorted."""
    keys = [name for name in Policy.model_fields if name not in ("name", "description", "rule")]
    found = {key for key in keys if getattr(policy, key) != getattr(preset, key)}
    if policy.rule != preset.rule:
        ours, theirs = set(policy.rule), set(preset.rule)
        names = {rule.name for rule in ours ^ theirs}
        found |= names or {"rule"}  # the same rules in another order
    return sorted(found)


def parse_policy(text: str, *, where: str) -> Policy:
    """Parse and validate the TOML text of a policy."""
    try:
        return Policy.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"not valid TOML ({error})", where=where, reason="policy.invalid"
        ) from error
    except ValidationError as error:
        raise UsageError(
            explain(error, Policy), where=f"policy {where}", reason="policy.invalid"
        ) from error
