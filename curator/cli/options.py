"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curator.cli.trust import BUNDLED_MODEL, HARMLESS, INSIDE

Dataset = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        help="Folder, glob or brace pattern of .tar shards; @v2 names a version.",
    ),
]
WholeDataset = Annotated[
    str,
    typer.Argument(metavar="DATASET", help="Folder, glob or brace pattern of .tar shards."),
]
StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="FOLDER",
        envvar="CURATOR_STORE",  # here too, so that it beats a curator.toml
        show_envvar=False,
        help="Where the store lies; default $CURATOR_STORE or DATASET/.curator.",
    ),
    INSIDE,
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Scorer = Annotated[
    str,
    typer.Option(
        "--scorer",
        metavar="MODEL",
        help="clip (the default model), an open_clip NAME:TAG, hub id org/name, or folder.",
    ),
    BUNDLED_MODEL,
]
Language = Annotated[
    str,
    typer.Option("--language", help="Language that captions should be in, e.g. en, de, ja."),
    HARMLESS,
]
Device = Annotated[
    str | None, typer.Option("--device", help="cuda, cuda:1, cpu; default: a GPU if there is one.")
]
Dtype = Annotated[
    str | None, typer.Option("--dtype", help="fp32, bf16 or fp16; default: by device.")
]
Workers = Annotated[
    int, typer.Option("--workers", min=1, help="Worker processes; each has its own model and GPU.")
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Images a batch; default: by stage.")
]
MaxQuarantine = Annotated[
    float,
    typer.Option(
        "--max-quarantine", min=0, max=1, help="Stop above this share of unusable samples."
    ),
]
CaptionField = Annotated[
    str | None,
    typer.Option(
        "--caption-field",
        metavar="FIELD",
        help="Where the alt text is: a field of the .json (caption, syn_text.0) or a file (.cap);"
        " default: as before, at first .txt.",
    ),
    HARMLESS,
]
ImageExt = Annotated[
    list[str] | None,
    typer.Option(
        "--image-ext",
        metavar="EXT",
        help="Which image counts where a sample has several; default: as before, at first any.",
    ),
    HARMLESS,
]
