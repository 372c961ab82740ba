"""Captions in the layout of DataCompDR, which Apple's patch of open_clip reads for MobileCLIP.

KEY.txt is the alt text, and KEY.syn.json is `{"syn_text": [...]}` with the generated captions
(apple/ml-mobileclip, training/open_clip_v2.patch). The patch takes one of syn_text at random, and
with `--dataset-reinforcement-mix-synthetic` that one or KEY.txt by a fixed ratio. It skips a sample
without KEY.txt and fails on an empty list. So a sample with only one kind of text has it in both
places: then every ratio gives the same.

DataCompDR also holds embeddings of teachers (KEY.npz) and augmentations (KEY.paug.json). An export
has none: embeddings belong to their texts. The patch does without both where it runs the teacher
itself (`--distill-model`, `--distill-pretrained`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping

from curator.export.open_clip import TRAIN, data_flags
from curator.export.samples import ExportSample, TextFiles
from curator.policy.model import ALT_TEXT
from curator.shards.places import Place

ABOUT = (
    "train with open_clip as patched by apple/ml-mobileclip (training/open_clip_v2.patch). Add"
    " --model, --dataset-reinforcement-config, and --distill-model with --distill-pretrained,"
    " because the export has no embeddings of a teacher"
)
BOTH = "both:"
"""Before the share of the generated captions in the weights of a sample that has both kinds."""


def text_files(sample: ExportSample, _version_id: str) -> TextFiles:
    """Return the alt text as KEY.txt and the other captions as KEY.syn.json."""
    alt = [one for one in sample.texts if one.source == ALT_TEXT]
    generated = [one for one in sample.texts if one.source != ALT_TEXT]
    counted = "alt_text" if alt else "generated"
    if alt and generated:
        whole = sum(one.weight for one in sample.texts)
        share = sum(one.weight for one in generated) / whole if whole else 0.5
        counted = f"{BOTH}{share:.4g}"
    syn_text = [one.text for one in generated or alt]
    return TextFiles(
        txt=(alt or generated)[0].text,
        members={"syn.json": json.dumps({"syn_text": syn_text}).encode()},
        counted=(counted,),
    )


def mix_ratio(counted: Mapping[str, int]) -> float:
    """Return the mean share of the generated captions over the samples that have both kinds."""
    both = {float(name[len(BOTH) :]): n for name, n in counted.items() if name.startswith(BOTH)}
    number = sum(both.values())
    return sum(share * n for share, n in both.items()) / number if number else 0.0


def command(out: Place, sizes: Mapping[Place, int], counted: Mapping[str, int]) -> str:
    """Return the start of a training with Apple's open_clip, quoted for a shell."""
    words = [*TRAIN, *data_flags(out, sizes), "--dataset-reinforcement"]
    words += ["--dataset-reinforcement-syn-text-key-regex", "^syn_text$"]
    words += ["--dataset-reinforcement-mix-synthetic"]
    words += ["--dataset-reinforcement-mix-synthetic-ratio", f"{mix_ratio(counted):.4g}"]
    return shlex.join(words)
