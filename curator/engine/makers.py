"""Makers: a model with its settings. A maker's name contains a digest of them: facts never mix.

A recipe holds everything that changes an answer (model, revision, prompt, sampling) and nothing
that does not (device, batch size, server address, number of candidates, requests at once).

How candidates are asked for is not in it: candidate c has the seed `seed + c` in a request of its
own, and also in one for several, at servers that count seeds up as vLLM does. Other servers draw
it from the same distribution with a seed of theirs (`curator.captioners.server`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from curator.captioners import CAPTIONERS, DEFAULT_CAPTIONER
from curator.captioners.examples import load_examples
from curator.captioners.options import Sampling
from curator.captioners.prompts import Prompt, get_prompt
from curator.captioners.words import NO_RULES, WordRules
from curator.core.errors import CuratorError, EngineError, UsageError, nearest
from curator.core.hashing import digest
from curator.core.model_spec import ModelSpec
from curator.core.models import ModelIdentity, identify, locate
from curator.core.package import require
from curator.core.registry import Registry
from curator.core.run_options import DEFAULTS
from curator.scorers import CHECKER, OF_MODELS, SCORERS
from curator.scorers.language import is_wrong_language
from curator.store.store import MAKER_DIGEST_CHARS

_MAX_TOKENS = {"short": 64, "grounded": 96, "fuse": 96}
_MAX_TOKENS_LONG = 192
_SLUG_CHARS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """A captioner or scorer of a table, to be built with `options`.

    Attributes:
        name: name of the folder of its facts; ends in the digest of `recipe`.
        row: its name in CAPTIONERS or SCORERS; `spec` is the table's entry.
    """

    name: str
    row: str
    spec: ModelSpec
    recipe: Mapping[str, Any]
    options: Mapping[str, Any]


_KEYWORDS: dict[str, dict[str, tuple[str, ...]]] = {
    CAPTIONERS.kind: {
        "nothing": ("sampling", "language"),
        "model": ("model", "revision", "device", "dtype", "sampling"),
        "server": ("model", "url", "stall_timeout_sec", "sampling"),
    },
    SCORERS.kind: {
        "nothing": ("language",),
        "model": ("model", "revision", "device", "dtype"),
    },
}
"""Kind of a table -> `needs` of a row -> what its class is built with."""


def check_row(table: Registry[Any], row: str) -> Any:
    """Return a row of CAPTIONERS or SCORERS once its class can be built and called.

    Raises:
        UsageError: an unknown row, `needs` is none of the allowed ones, or its class or its
            constructor breaks the contract.
    """
    spec = table.spec(row)
    by_needs = _KEYWORDS[table.kind]
    if spec.needs not in by_needs:
        raise UsageError(
            f"{table.kind} {row!r}: its row in the table says needs = {spec.needs!r}",
            hint=nearest(str(spec.needs), by_needs),
            reason=f"{table.kind}.contract",
        )
    table.check(row)
    keywords = by_needs[spec.needs]
    if table.kind == SCORERS.kind and spec.needs == "nothing":
        keywords = keywords if spec.language else ()
    elif table.kind == SCORERS.kind:
        keywords = (*keywords, *(("url",) if spec.served else ()))
    elif spec.needs == "nothing":  # a captioner takes those that it has
        taken = inspect.signature(table.get(row)).parameters
        keywords = tuple(name for name in keywords if name in taken)
    table.check_constructor(row, keywords)
    return spec


def all_of(*makers: Callable[[], Maker | None]) -> list[Maker | None]:
    """Call every function and return the makers; report the errors of all of them at once.

    What is wrong on the command line comes first: with a UsageError, only UsageErrors are told.

    Raises:
        CuratorError: the first error, with the messages of the others in its hint.
    """
    found: list[Maker | None] = []
    errors: list[CuratorError] = []
    for make in makers:
        try:
            found.append(make())
        except CuratorError as error:
            errors.append(error)
    if errors:
        first, *others = [error for error in errors if isinstance(error, UsageError)] or errors
        hints = [first.hint] if first.hint else []
        for other in others:
            if other.hint in hints:
                other.hint = None  # told already
            hints.append(f"also: {other}")
        first.hint = "; ".join(dict.fromkeys(hints)) or None
        raise first
    return found


def scorer_maker(
    scorer: str | None,
    *,
    of_models: str = OF_MODELS,
    language: str = "en",
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    url: str | Sequence[str] | None = None,
) -> Maker:
    """Return the maker for `--scorer`: SCORER, SCORER=MODEL, or a model for the scorer `of_models`.

    SCORER is a name of SCORERS. With `url` the model is one of these servers.

    Raises:
        UsageError: unknown scorer, or its class does not satisfy the protocol.
        UsageError, NotFoundError, EngineError: the model cannot be found; see
        `curator.core.models`.
    """
    scorer = scorer or OF_MODELS
    row, model = split_scorer(scorer)
    row = of_models if row == OF_MODELS else row
    if url:
        return _served_scorer(row, model, [url] if isinstance(url, str) else list(url))
    if SCORERS.rows[row].needs == "model":
        require("models", f"--scorer {scorer}")
    spec = check_row(SCORERS, row)
    recipe: dict[str, Any] = {"scorer": row}
    options: dict[str, Any] = {}
    if spec.needs == "nothing":
        label = ""
        if spec.language:
            is_wrong_language("", language)  # raises for unknown codes
            recipe["language"] = options["language"] = label = language
        recipe["rules"] = spec.version
    else:
        from curator.core.devices import dtype_name  # loads torch

        model, identity = _find_model("scorer", row, spec, model, revision, device)
        # Scores are compared with each other, and bf16 and fp16 change their second or third
        # decimal: unlike for captions, the dtype is part of the recipe.
        exact = dtype_name(dtype, device)
        label = identity.name
        recipe |= {
            "model": identity.name,
            "revision": identity.revision,
            "dtype": exact,
            "version": spec.version,
        }
        options = {"model": model, "revision": revision, "device": device, "dtype": exact}
    return Maker(name=_name(row, label, recipe), row=row, spec=spec, recipe=recipe, options=options)


def split_scorer(scorer: str) -> tuple[str, str | None]:
    """Return the row of SCORERS and the model that `--scorer` names.

    Raises:
        UsageError: unknown scorer, or a model for one that takes none.
    """
    row, is_given, model = scorer.partition("=")
    if row not in SCORERS:
        row, model = OF_MODELS, scorer
        if ":" not in scorer and "/" not in scorer:
            raise UsageError(
                f"unknown scorer {scorer!r}",
                hint=f"{nearest(scorer.partition('=')[0], SCORERS)}; or a folder, org/name, or "
                "ViT-B-32:tag",
                reason="scorer.unknown",
            )
    elif is_given and (not model or SCORERS.rows[row].needs != "model"):
        takers = ", ".join(name for name, one in SCORERS.rows.items() if one.needs == "model")
        raise UsageError(
            f"--scorer is {scorer!r}" + (f", and {row!r} takes no model" if model else ""),
            hint=f"write SCORER=MODEL with one of: {takers}; or --scorer {row}",
            reason="option.value",
        )
    return row, model or None


def _served_scorer(row: str, model: str | None, urls: Sequence[str]) -> Maker:
    """Return the maker of a scorer whose model is at servers."""
    spec = check_row(SCORERS, row)
    if not spec.served:
        able = [name for name, one in SCORERS.rows.items() if one.served]
        raise UsageError(
            f"--scorer-url is for scorers that a server can run, and {row!r} is none",
            hint=f"drop --scorer-url, or take --scorer {'=MODEL or --scorer '.join(able)}=MODEL",
            reason="option.value",
        )
    if model is None:
        raise UsageError(
            f"--scorer {row} with --scorer-url needs the model's name there",
            hint=f"e.g. --scorer {row}=Qwen/Qwen2.5-VL-7B-Instruct",
            reason="option.missing",
        )
    for one in urls:
        check_url("--scorer-url", one)
    recipe = {"scorer": row, "model": model, "served": True, "version": spec.version}
    options = {"model": model, "url": urls[0] if len(urls) == 1 else list(dict.fromkeys(urls))}
    name = _name(row, model, recipe)
    return Maker(name=name, row=row, spec=spec, recipe=recipe, options=options)


def check_url(option: str, url: str) -> None:
    """Raise a UsageError unless `url` can be that of a server."""
    if not re.match(r"https?://[^/]", url):
        raise UsageError(
            f"{option} is {url!r}",
            hint="allowed: http://HOST:PORT/v1 or https://...",
            reason="option.value",
        )


def checker_maker(language: str) -> Maker:
    """Return the maker of the text checker for captions in this language, an ISO 639-1 code.

    Raises:
        UsageError: unknown code, or a language that the detector does not support.
    """
    return scorer_maker(CHECKER, language=language)


def captioner_maker(
    captioner: str = DEFAULT_CAPTIONER,
    *,
    model: str | None = None,
    revision: str | None = None,
    url: str | Sequence[str] | None = None,
    prompt: str = "short",
    language: str = "en",
    max_tokens: int | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    stall_timeout_sec: float = DEFAULTS.stall_timeout_sec,
    server_wait_sec: float = DEFAULTS.server_wait_sec,
    concurrency: int | None = None,
    max_pixels: int | None = None,
    candidates: int = 1,
    caption_from: str | None = None,
    text_only: bool = False,
    system: str | None = None,
    examples: str | None = None,
    words: WordRules = NO_RULES,
) -> Maker:
    """Return the maker for `--captioner`, a name of CAPTIONERS, and its options.

    `examples` is the path of a file for `curator.captioners.examples`; `caption_from` is the maker
    whose captions stand for `{caption}` in the prompt.

    Raises:
        UsageError: conflicting options, or a class that does not satisfy the protocol.
        Others: see `curator.core.models`.
    """
    known = CAPTIONERS.rows.get(captioner)
    if known is not None and known.needs == "model":
        require("models", f"--captioner {captioner}")
    spec = check_row(CAPTIONERS, captioner)
    asked = get_prompt(prompt)
    sampling = Sampling(
        max_tokens=max_tokens or _MAX_TOKENS.get(asked.name, _MAX_TOKENS_LONG),
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    if candidates > 1 and sampling.temperature == 0 and spec.needs != "nothing":
        raise UsageError(
            f"{candidates} candidates at temperature 0 would all be the same",
            hint="add --temperature 0.7, or use --candidates 1",
            reason="option.value",
        )
    servers = " or ".join(name for name, row in CAPTIONERS.rows.items() if row.needs == "server")
    of_servers = {"--url": url, "--concurrency": concurrency, "--max-pixels": max_pixels}
    for option, value in of_servers.items():
        if value and spec.needs != "server":
            raise UsageError(
                f"{option} works only with --captioner {servers}",
                hint=f"add --captioner {servers}",
                reason="option.value",
            )
    _check_stage(
        captioner,
        asked,
        caption_from,
        asks={
            "--text-only": text_only,
            "--system": system is not None,
            "--examples": examples is not None,
        },
    )
    pinned: str | None
    options: dict[str, Any]
    if spec.needs == "nothing":
        if model is not None:
            raise UsageError(
                f"--captioner {captioner} uses no model, but --model is {model!r}",
                hint=f"drop --model, or drop --captioner {captioner}",
                reason="option.value",
            )
        named, pinned = captioner, str(spec.version)
        taken = inspect.signature(CAPTIONERS.get(captioner)).parameters
        offered = {"sampling": sampling, "language": language}
        options = {name: value for name, value in offered.items() if name in taken}
        label = asked.name
    elif spec.needs == "server":
        options = {
            "model": model,
            "url": _checked_url(captioner, url, model),
            "stall_timeout_sec": stall_timeout_sec,
            "sampling": sampling,
        }
        taken = inspect.signature(CAPTIONERS.get(captioner)).parameters
        more = {
            "concurrency": concurrency,
            "max_pixels": max_pixels,
            "server_wait_sec": server_wait_sec,
            "text_only": text_only,
        }
        options |= {name: value for name, value in more.items() if name in taken}
        named, pinned = str(model), revision
        label = f"{named}-{asked.name}"
    else:
        try:
            model, identity = _find_model("captioner", captioner, spec, model, revision, device)
        except EngineError as error:
            error.hint = (
                f"{error.hint}; or use a server: --captioner {servers} --url URL --model NAME"
            )
            raise
        named, pinned = identity.name, identity.revision
        options = {
            "model": model,
            "revision": revision,
            "device": device,
            "dtype": dtype,
            "sampling": sampling,
        }
        label = f"{named}-{asked.name}"
    recipe: dict[str, Any] = {
        "captioner": captioner,
        "model": named,
        "revision": pinned,
        "prompt": asked.name,
        "wordings": list(asked.wordings),
        "language": language,
        "sampling": asdict(sampling),
    }
    if system is not None:
        recipe["system"] = options["system"] = system
    if examples is not None:
        options["examples"] = load_examples(examples, asked, text_only=text_only)
        recipe["examples"] = [example.to_recipe() for example in options["examples"]]
    more_recipe = {"caption_from": caption_from, "text_only": text_only, "words": words.to_recipe()}
    # Only what is set: the names of makers from before these options were there do not change.
    recipe |= {name: value for name, value in more_recipe.items() if value}
    if max_pixels is not None:
        recipe["max_pixels"] = max_pixels
    if spec.needs != "nothing" and spec.version > 1:
        recipe["version"] = spec.version
    return Maker(
        name=_name(captioner, label, recipe),
        row=captioner,
        spec=spec,
        recipe=recipe,
        options=options,
    )


def check_stages(prompts: Sequence[str], caption_from: str | None, *, text_only: bool) -> None:
    """Raise a UsageError for options about `{caption}` where no prompt has it."""
    if any(get_prompt(prompt).needs_caption for prompt in prompts):
        return
    given = {"--caption-from": caption_from is not None, "--text-only": text_only}
    for option in (option for option, is_given in given.items() if is_given):
        raise UsageError(
            f"{option} is for prompts with {{caption}}, and no --prompt has it",
            hint=f"add --prompt fuse, or a prompt of your own with {{caption}}; or drop {option}",
            reason="option.value",
        )


def _check_stage(
    captioner: str, prompt: Prompt, caption_from: str | None, *, asks: Mapping[str, bool]
) -> None:
    """Raise a UsageError if a prompt lacks captions, or its captioner an option of `asks`."""
    if prompt.needs_caption and caption_from is None:
        raise UsageError(
            "the prompt has {caption}, and it is not said whose captions those are",
            hint="add --caption-from GENERATOR (`curator query DATASET 'select distinct generator "
            "from generated'` lists them), or name the prompt that makes them before it: "
            "--prompt detailed --prompt fuse",
            reason="option.missing",
        )
    taken = inspect.signature(CAPTIONERS.get(captioner)).parameters
    for option, is_set in asks.items():
        name = option.removeprefix("--").replace("-", "_")
        if is_set and name not in taken:
            able = [row for row in CAPTIONERS.rows if name in _parameters(row)]
            raise UsageError(
                f"--captioner {captioner} has no {option}",
                hint=f"drop {option}, or take --captioner {' or '.join(able)}",
                reason="option.value",
            )


def _parameters(captioner: str) -> Collection[str]:
    """Return what the class of a row is built with; nothing where it cannot be imported."""
    try:
        return inspect.signature(CAPTIONERS.get(captioner)).parameters
    except (ImportError, CuratorError):
        return ()


def _checked_url(
    captioner: str, url: str | Sequence[str] | None, model: str | None
) -> str | list[str]:
    """Return the URL, or the list of several."""
    urls = [url] if isinstance(url, str) else list(dict.fromkeys(url or ()))
    if not urls or not model:
        raise UsageError(
            f"--captioner {captioner} needs --url and --model",
            hint="e.g. --url http://localhost:8000/v1 --model Qwen/Qwen2.5-VL-7B-Instruct",
            reason="option.missing",
        )
    for one in urls:
        check_url("--url", one)
    return urls[0] if len(urls) == 1 else urls


def _find_model(
    kind: str,
    row: str,
    spec: ModelSpec,
    model: str | None,
    revision: str | None,
    device: str | None,
) -> tuple[str, ModelIdentity]:
    """Return the named model, else the row's default, after making sure its files are here."""
    model = model or default_model(spec, device)
    option = "--model" if kind == "captioner" else "--scorer"
    if model is None:
        raise UsageError(
            f"--{kind} {row} needs {option}",
            hint="a folder, a hub repository (org/name), or an open_clip NAME:TAG",
            reason="option.missing",
        )
    locate(model, revision=revision, files=spec.files, option=option)
    return model, identify(model, revision=revision)


def default_model(spec: ModelSpec, device: str | None) -> str | None:
    """Return the default model of a row on this device; None if it has none."""
    if spec.default_model_gpu is not None:
        from curator.core.devices import choose_device  # loads torch

        if choose_device(device).type == "cuda":
            return spec.default_model_gpu
    return spec.default_model


def _name(row: str, label: str, recipe: Mapping[str, Any]) -> str:
    slug = re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-.")[:_SLUG_CHARS].strip("-.")
    return "-".join(part for part in (row, slug, digest(recipe)[:MAKER_DIGEST_CHARS]) if part)
