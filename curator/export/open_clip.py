"""All captions of an image for open_clip_train: one field of KEY.json for each, and the flags.

open_clip_train takes `--json-text-key "A;B;C" --json-text-key-probs 0.4 0.3 0.3` (its repository of
June 2026, src/open_clip_train/data.py; release 3.3.0 does not). For each sample it draws the keys
by these probabilities without replacement, and takes the first that the sample has. So among the
keys that a sample has, each comes first in proportion to its probability.

The probabilities are the same for all samples, but the weights of a version are not: an alt text
has 0.4 beside a generated caption and 1 alone. Therefore the weight is a part of the key,

    curator:alt_text:0.4    curator:GENERATOR:0.3    curator:GENERATOR:0.3:2    curator:alt_text:1

and is its probability: within one sample the probabilities are the weights (to four digits).

KEY.txt, which every release reads, is one caption drawn by weight: the same in every epoch, and
over all samples in the proportions of the policy.
"""

from __future__ import annotations

import random
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import groupby
from typing import Any

from curator.export.samples import ExportSample, TextFiles
from curator.shards.places import Place, Remote, below

PREFIX = "curator:"
TRAIN = ("python", "-m", "open_clip_train.main")
_DEFAULT_WORKERS = 4
_KEY = re.compile(r"curator:[\w.-]+:[0-9.e+-]+(:[0-9]+)?")
_NUMBERED = re.compile(r"(.*?)([0-9]+)")
_BRACES = re.compile(r"[{},\\]")


def text_files(sample: ExportSample, version_id: str) -> TextFiles:
    """Return every caption under the key of its source and weight, and one drawn as KEY.txt."""
    fields: dict[str, str] = {}
    met: Counter[str] = Counter()
    for one in sample.texts:
        name = f"{PREFIX}{re.sub(r'[^a-zA-Z0-9_.-]', '_', one.source)}:{one.weight:.4g}"
        met[name] += 1
        fields[name if met[name] == 1 else f"{name}:{met[name]}"] = one.text
    weights = [one.weight for one in sample.texts]
    drawn = sample.texts[0]
    if any(weights):
        (drawn,) = random.Random(f"{version_id}/{sample.key}").choices(sample.texts, weights)
    return TextFiles(txt=drawn.text, fields=fields, counted=tuple(fields))


def without_text_keys(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of KEY.json without the keys that an earlier export wrote."""
    return {name: value for name, value in fields.items() if not _KEY.fullmatch(name)}


def about(keys: Collection[str]) -> str:
    """Return what the command of `command` needs and does."""
    if not _has_several(keys):
        return "train with open_clip; add --model and the like"
    return (
        "train with open_clip from its repository (June 2026 or newer); add --model and the like."
        " Release 3.3.0 does not know the two flags of keys: without them it reads the .txt, one"
        " caption an image, drawn by weight"
    )


def command(out: Place, sizes: Mapping[Place, int], keys: Collection[str]) -> str:
    """Return the start of a training with all captions of an export, quoted for a shell.

    `sizes` are the tars with their numbers of samples, `keys` the text keys that occur.
    """
    probabilities = {name: _probability(name) for name in sorted(keys)}
    words = [*TRAIN, *data_flags(out, sizes)]
    if _has_several(keys):
        words += ["--json-text-key", ";".join(probabilities)]
        words += ["--json-text-key-probs", *probabilities.values()]
    return shlex.join(words)


def _probability(key: str) -> str:
    return key.split(":")[2]


def _has_several(keys: Collection[str]) -> bool:
    """Whether a sample has several captions: alone, a caption has the weight 1."""
    return any(_probability(key) != "1" for key in keys)


def data_flags(out: Place, sizes: Mapping[Place, int]) -> list[str]:
    """Return the flags that name the tars, their format and their number of samples."""
    words = ["--train-data", train_data(out, sizes), "--dataset-type", "webdataset"]
    words += ["--train-num-samples", str(sum(sizes.values()))]
    if len(sizes) < _DEFAULT_WORKERS:  # each worker needs a shard of its own
        words += ["--workers", str(len(sizes))]
    return words


def train_data(out: Place, paths: Iterable[Place]) -> str:
    """Return the tars as one expression with braces, the folders separated by `::`.

    Remote tars are read through a pipe, as webdataset has no reader of its own for s3.
    """
    names = [below(path, out).removesuffix(".tar").rpartition("/") for path in paths]
    folders = groupby(sorted(names), key=lambda name: name[0])
    patterns = [_pattern(["".join(name) for name in members]) for _, members in folders]
    root = _BRACES.sub(r"\\\g<0>", str(out).rstrip("/"))
    return "::".join(_piped(out, f"{root}/{pattern}.tar") for pattern in patterns)


def _piped(out: Place, url: str) -> str:
    commands = {"s3": f"pipe:aws s3 cp {url} -", "gs": f"pipe:gcloud storage cat {url}"}
    return commands.get(url.partition("://")[0], url) if isinstance(out, Remote) else url


def _pattern(names: list[str]) -> str:
    """Return a brace expression of names of one folder, with runs of numbers as `{00..17}`."""
    runs: list[tuple[str, str, str]] = []  # what stands before the number, first number, last
    for name in names:
        found = _NUMBERED.fullmatch(name)
        head, number = (found[1], found[2]) if found else (name, "")
        if runs and number:
            before, first, last = runs[-1]
            follows = before == head and len(last) == len(number) and int(number) == int(last) + 1
            if last and follows:
                runs[-1] = (before, first, number)
                continue
        runs.append((head, number, number))
    parts = [_run(*run) for run in runs]
    return parts[0] if len(parts) == 1 else "{" + ",".join(parts) + "}"


def _run(head: str, first: str, last: str) -> str:
    head = _BRACES.sub(r"\\\g<0>", head)
    return f"{head}{first}" if first == last else f"{head}{{{first}..{last}}}"
