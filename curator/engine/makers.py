"""Makers: who makes facts. A maker's name digests its recipe, so facts never mix.

A recipe holds everything that changes an answer (model, revision, prompt, sampling) and nothing
that does not (device, batch size, server address, number of candidates).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from curator.captioners import CAPTIONERS
from curator.captioners.options import Sampling
from curator.captioners.prompts import get_prompt
from curator.core.errors import CuratorError, EngineError, UsageError, nearest
from curator.core.hashing import digest
from curator.core.models import (
    CAPTIONER_FILES,
    DEFAULT_CAPTIONER,
    DEFAULT_CAPTIONER_GPU,
    DEFAULT_SCORER,
    DEFAULT_SCORER_GPU,
    SCORER_FILES,
    identify,
    locate,
)
from curator.core.package import require
from curator.core.registry import load
from curator.scorers import SCORERS
from curator.store.store import MAKER_DIGEST_CHARS

SCORING_VERSION = 1
"""Raised when the same model would give the same pair another score (windows, cleaning)."""

TEXT_RULES_VERSION = 3
"""Raised when curator.scorers.text would flag a text differently."""

ECHO_VERSION = 1

_MAX_TOKENS = {"short": 64, "grounded": 96}
_MAX_TOKENS_LONG = 192
_SLUG_CHARS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """`port` is a name of CAPTIONERS or SCORERS, `options` what its class is built with."""

    name: str
    port: str
    recipe: Mapping[str, Any]
    options: Mapping[str, Any]


def all_of(*makers: Callable[[], Maker | None]) -> list[Maker | None]:
    """What each of them gives; what is wrong with several is said at once.

    Raises:
        CuratorError: of the kind of the first one that failed, with the words of all.
    """
    found: list[Maker | None] = []
    errors: list[CuratorError] = []
    for make in makers:
        try:
            found.append(make())
        except CuratorError as error:
            errors.append(error)
    if errors:
        first, *others = errors
        hints = [first.hint, *(f"also: {other}" for other in others)]
        first.hint = "; ".join(hint for hint in hints if hint)
        raise first
    return found


def scorer_maker(
    scorer: str, *, revision: str | None = None, device: str | None = None, dtype: str | None = None
) -> Maker:
    """The maker for `--scorer`: a name of SCORERS, or the model of a `clip` scorer.

    Raises:
        UsageError, NotFoundError, EngineError: the model cannot be found; see
        `curator.core.models`.
    """
    if scorer == "text":
        return checker_maker("en")
    require("models", f"--scorer {scorer}")
    model = _default(DEFAULT_SCORER, DEFAULT_SCORER_GPU, device) if scorer == "clip" else scorer
    if ":" not in model and "/" not in model:
        raise UsageError(
            f"unknown scorer {scorer!r}",
            hint=f"{nearest(scorer, SCORERS)}; or a folder, org/name, or ViT-B-32:tag",
            reason="scorer.unknown",
        )
    locate(model, revision=revision, files=SCORER_FILES, option="--scorer")
    identity = identify(model, revision=revision)
    # Scores are compared with each other, and the short formats move them in the second or third
    # decimal: unlike for captions, the format is part of who says it.
    exact: str = load("curator.core.devices:dtype_name")(dtype, device)
    recipe = {
        "scorer": "clip",
        "model": identity.name,
        "revision": identity.revision,
        "dtype": exact,
        "version": SCORING_VERSION,
    }
    return Maker(
        name=_name("clip", identity.name, recipe),
        port="clip",
        recipe=recipe,
        options={"model": model, "revision": revision, "device": device, "dtype": exact},
    )


def checker_maker(language: str) -> Maker:
    """The maker of text health for captions in this language, an ISO 639-1 code.

    Raises:
        UsageError: no such code, or a language that cannot be told from others.
    """
    load("curator.scorers.language:is_wrong_language")("", language)  # raises for unknown codes
    recipe = {"scorer": "text", "language": language, "rules": TEXT_RULES_VERSION}
    return Maker(
        name=_name("text", language, recipe),
        port="text",
        recipe=recipe,
        options={"language": language},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionerChoice:
    """What the user asked for on the command line. None means: the default."""

    captioner: str = "local"
    model: str | None = None
    revision: str | None = None
    url: str | None = None
    prompt: str = "short"
    language: str = "en"
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    device: str | None = None
    dtype: str | None = None
    stall_timeout_sec: float = 600.0


def captioner_maker(choice: CaptionerChoice, *, candidates: int = 1) -> Maker:
    """The maker for `--captioner` and its options.

    Raises:
        UsageError: options that do not go together. Others: see `curator.core.models`.
    """
    prompt = get_prompt(choice.prompt)
    sampling = Sampling(
        max_tokens=choice.max_tokens or _MAX_TOKENS.get(prompt.name, _MAX_TOKENS_LONG),
        temperature=choice.temperature,
        top_p=choice.top_p,
        seed=choice.seed,
    )
    if candidates > 1 and sampling.temperature == 0 and choice.captioner != "echo":
        raise UsageError(
            f"{candidates} candidates at temperature 0 would all be the same",
            hint="add --temperature 0.7, or ask for one",
            reason="option.value",
        )
    model, revision, options = _model_of(choice)
    recipe = {
        "captioner": choice.captioner,
        "model": model,
        "revision": revision,
        "prompt": prompt.name,
        "wordings": list(prompt.wordings),
        "language": choice.language,
        "sampling": asdict(sampling),
    }
    return Maker(
        name=_name(choice.captioner, f"{model}-{prompt.name}".removeprefix("echo-"), recipe),
        port=choice.captioner,
        recipe=recipe,
        options={**options, "sampling": sampling},
    )


def _model_of(choice: CaptionerChoice) -> tuple[str | None, str | None, dict[str, Any]]:
    if choice.captioner not in CAPTIONERS:
        CAPTIONERS.get(choice.captioner)  # raises, with the nearest name
    if choice.url is not None and choice.captioner != "server":
        raise UsageError(
            "--url is for --captioner server", hint="add --captioner server", reason="option.value"
        )
    if choice.captioner == "echo":
        return "echo", str(ECHO_VERSION), {}
    if choice.captioner == "server":
        if not choice.url or not choice.model:
            raise UsageError(
                "--captioner server needs --url and --model",
                hint="e.g. --url http://localhost:8000/v1 --model Qwen/Qwen2.5-VL-7B-Instruct",
                reason="option.missing",
            )
        if not re.match(r"https?://[^/]", choice.url):
            raise UsageError(
                f"--url is {choice.url!r}",
                hint="allowed: http://HOST:PORT/v1 or https://...",
                reason="option.value",
            )
        timeout = choice.stall_timeout_sec
        options = {"model": choice.model, "url": choice.url, "stall_timeout_sec": timeout}
        return choice.model, choice.revision, options
    require("models", f"--captioner {choice.captioner}")
    model = choice.model
    if model is None and choice.captioner == "local":
        model = _default(DEFAULT_CAPTIONER, DEFAULT_CAPTIONER_GPU, choice.device)
    if model is None:
        raise UsageError(
            f"--captioner {choice.captioner} needs --model",
            hint="e.g. --model coca_ViT-L-14:mscoco_finetuned_laion2b_s13b_b90k, or a folder",
            reason="option.missing",
        )
    files = CAPTIONER_FILES if choice.captioner == "local" else SCORER_FILES
    try:
        locate(model, revision=choice.revision, files=files)
    except EngineError as error:
        server = "--captioner server --url URL --model NAME asks a server instead"
        error.hint = f"{error.hint}; {server}"
        raise
    identity = identify(model, revision=choice.revision)
    options = {
        "model": model,
        "revision": choice.revision,
        "device": choice.device,
        "dtype": choice.dtype,
    }
    return identity.name, identity.revision, options


def _default(cpu: str, gpu: str, device: str | None) -> str:
    """The default model for the device that the work will run on."""
    return gpu if load("curator.core.devices:choose_device")(device).type == "cuda" else cpu


def _name(kind: str, label: str, recipe: Mapping[str, Any]) -> str:
    slug = re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-.")[:_SLUG_CHARS].strip("-.")
    return "-".join(part for part in (kind, slug, digest(recipe)[:MAKER_DIGEST_CHARS]) if part)
