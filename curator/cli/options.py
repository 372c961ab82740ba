"""Arguments and options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated

import typer

from curator.cli.trust import BUNDLED_MODEL, HARMLESS, INSIDE, PRESET_POLICY
from curator.core.model_spec import ModelSpec
from curator.core.registry import Registry
from curator.core.run_options import DEFAULTS, ExecutorName
from curator.scorers import OF_MODELS, SCORERS, ScorerSpec


def rows(table: Registry[ModelSpec] | Registry[ScorerSpec]) -> str:
    """Return the names and help texts of a table as one sentence for --help."""
    return "; ".join(f"{name}: {spec.help}" for name, spec in table.rows.items())


Dataset = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        help="Folder, glob or brace pattern of .tar shards, also s3://, gs://, az:// or https://; "
        "@v2 names a version.",
    ),
]
WholeDataset = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        help="Folder, glob or brace pattern of .tar shards, also s3://, gs://, az:// or https://.",
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="FOLDER|URL",
        envvar="CURATOR_STORE",  # here too, so that it beats a curator.toml
        show_envvar=False,
        help="Folder of the store (default: $CURATOR_STORE, else DATASET/.curator; of a URL, a "
        "folder by that URL below ~/.local/share/caption-curator). Commands that only read also "
        "take s3://, gs:// or az://, where `curator push` put a copy.",
    ),
    INSIDE,
]


StoreUrl = Annotated[
    str,
    typer.Argument(metavar="URL", help="Where the copy is: s3://BUCKET/FOLDER, gs:// or az://."),
]


def _to_environment(variable: str) -> Callable[[str | float | None], None]:
    """Return a callback that passes an option on to this process and those it starts."""

    def put(value: str | float | None) -> None:
        if value is not None:
            os.environ[variable] = str(value)

    return put


CacheDir = Annotated[
    str | None,
    typer.Option(
        "--cache-dir",
        metavar="FOLDER",
        expose_value=False,
        callback=_to_environment("CURATOR_CACHE_DIR"),
        help="Where shards of an object store are kept (default: $CURATOR_CACHE_DIR, else "
        "~/.cache/caption-curator/shards).",
    ),
]
CacheSize = Annotated[
    float | None,
    typer.Option(
        "--cache-size",
        metavar="GB",
        expose_value=False,
        callback=_to_environment("CURATOR_CACHE_SIZE"),
        help="Gigabytes of them to keep, the latest used (default: $CURATOR_CACHE_SIZE, else 20).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Policy = Annotated[
    str,
    typer.Option("--policy", help="Preset (see `curator policy`) or path of a .toml file."),
    PRESET_POLICY,
]
Scorer = Annotated[
    str | None,
    typer.Option(
        "--scorer",
        metavar="SCORER|SCORER=MODEL|MODEL",
        help=f"Scorer to use (default: the policy's, else {OF_MODELS}), with its model if not the "
        f"default; or only the model for {OF_MODELS}: an open_clip NAME:TAG, a hub id org/name, "
        f"or a folder. {rows(SCORERS)}.",
    ),
    BUNDLED_MODEL,
]
ScorerUrl = Annotated[
    list[str] | None,
    typer.Option(
        "--scorer-url",
        metavar="URL",
        help="Base URL of an OpenAI-compatible server that runs the model of the scorer "
        f"({', '.join(name for name, spec in SCORERS.rows.items() if spec.served)}); may be "
        "repeated.",
    ),
]
Language = Annotated[
    str,
    typer.Option("--language", help="Language that captions should be in: en, de, ja, ..."),
    HARMLESS,
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="cuda, cuda:1 or cpu (default: a GPU if there is one)."),
]
Dtype = Annotated[
    str | None, typer.Option("--dtype", help="fp32, bf16 or fp16 (default: depends on the device).")
]
ShardSlice = Annotated[
    str | None,
    typer.Option(
        "--shard-slice",
        metavar="I/N",
        help="Work on one of N equal parts of the shards, counted from 0: 0/10, ..., 9/10. Other "
        "machines do the other parts; `curator merge` unites their stores.",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        min=1,
        help="Number of worker processes; each loads the model on a GPU of its own.",
    ),
]
Executor = Annotated[
    ExecutorName,
    typer.Option("--executor", help="local: this machine; ray: a Ray cluster (extra ray)."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="Ray cluster (default: RAY_ADDRESS, else the one of this machine, else a new one).",
    ),
]
Gpus = Annotated[
    float | None,
    typer.Option(
        "--gpus",
        min=0,
        help="GPUs of a worker on Ray; 0.5: two share one (default: 1, where there are any).",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        min=1,
        help=f"Images per batch (default: {DEFAULTS.score_batch_size} scoring, "
        f"{DEFAULTS.caption_batch_size} captioning).",
    ),
]
StallTimeout = Annotated[
    float,
    typer.Option(
        "--stall-timeout", min=1, help="Restart a model that does not answer for this many seconds."
    ),
]
MaxQuarantine = Annotated[
    float,
    typer.Option(
        "--max-quarantine",
        min=0,
        max=1,
        help="Stop when more than this fraction of the samples is unusable.",
    ),
]
CaptionField = Annotated[
    str | None,
    typer.Option(
        "--caption-field",
        metavar="FIELD",
        help="Source of the alt text: a field of the .json (caption, syn_text.0) or a file (.cap)"
        " (default: as indexed before; the first time .txt).",
    ),
    HARMLESS,
]
ImageExt = Annotated[
    list[str] | None,
    typer.Option(
        "--image-ext",
        metavar="EXT",
        help="Extension of the image to use where a sample has several (default: as indexed "
        "before; the first time any).",
    ),
    HARMLESS,
]
