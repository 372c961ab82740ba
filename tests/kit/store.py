"""A small real store with several versions, made by the real parts: no model, no fakes.

    kit = small_store(tmp_path)          # two shards, ten samples, four versions
    kit.versions["best"]                 # by its name in `POLICIES`

The samples, with the scores that stand in for a model's:

    shard key  alt text                                    generated                        scores
    00000 a0   Two dogs run on the beach near Brighton     two dogs running on a beach      .30 .32
    00000 a1   IMG_2034.JPG                                a man in a red hat               .05 .28
    00000 a2   a man riding a bike                         a man on a bicycle               .31 .29
    00000 a3   (none)                                      a woman holding a cat                .27
    00000 a4   A plate with 3 apples                       (failed: vlm.refusal)            .26
    00000 a5   cheap flights book now                      a plane in the sky               .08 .30
    00001 b0   Three kids with Anna in Paris               three children in front of a tower
                                                                                            .29 .25
    00001 b1   a red car                                   a red car                        .33 .33
    00001 b2   (the image is cut off: image.truncated)
    00001 b3   a <b>bold</b> sign                          a sign with the words "a & b"    .20 .24
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from curator.core import hashing
from curator.core.hashing import digest
from curator.core.run_options import RunOptions
from curator.core.stopping import StopRequest
from curator.policy.model import Policy, parse_policy
from curator.shards.scan import ScanOptions
from curator.steps.decide import MakerChoice, decide
from curator.steps.index import make_index
from curator.steps.workspace import Workspace, open_workspace
from curator.store.facts import CAPTIONS, SCORES, Facts
from curator.store.store import MAKER_DIGEST_CHARS
from curator.store.versions import Version
from tests.kit import tars

GENERATOR_RECIPE = {
    "captioner": "local",
    "model": "tiny-vlm",
    "revision": "sha256:" + "0" * 64,
    "prompt": "short",
    "wordings": ["Describe this image in one short sentence."],
    "sampling": {"max_tokens": 64, "temperature": 0.0, "top_p": 1.0, "seed": 0},
}
SCORER_RECIPE = {
    "scorer": "clip",
    "model": "tiny-clip",
    "revision": "sha256:" + "1" * 64,
    "version": 1,
}


def maker_name(label: str, recipe: Mapping[str, object]) -> str:
    """A maker's name ends in the digest of its recipe."""
    return f"{label}-{digest(recipe)[:MAKER_DIGEST_CHARS]}"


GENERATOR = maker_name("local-tiny-vlm-short", GENERATOR_RECIPE)
SCORER = maker_name("clip-tiny", SCORER_RECIPE)

# "top" and not "best": that is the name of a preset with a rule more, and reserved for it.
POLICIES = {
    "alt": 'name = "alt"\nsources = ["alt_text"]\npick = "first"\n',
    "best": 'name = "top"\nsources = ["generated", "alt_text"]\npick = "best"\n',
    "all": 'name = "all"\nsources = ["alt_text", "generated"]\npick = "all"\n',
    "strict": """
name = "strict"
sources = ["alt_text"]
pick = "first"

[[rule]]
name = "aligned"
field = "score"
min = 0.27
""",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One sample: alt text, generated caption (or `failure`), the score of each."""

    key: str
    alt: str | None = None
    generated: str | None = None
    alt_score: float | None = None
    generated_score: float | None = None
    failure: str | None = None
    broken: bool = False


SHARDS: dict[str, tuple[Row, ...]] = {
    "00000": (
        Row(
            "a0",
            "Two dogs run on the beach near Brighton",
            "two dogs running on a beach",
            0.30,
            0.32,
        ),
        Row("a1", "IMG_2034.JPG", "a man in a red hat", 0.05, 0.28),
        Row("a2", "a man riding a bike", "a man on a bicycle", 0.31, 0.29),
        Row("a3", None, "a woman holding a cat", None, 0.27),
        Row("a4", "A plate with 3 apples", None, 0.26, failure="vlm.refusal"),
        Row("a5", "cheap flights book now", "a plane in the sky", 0.08, 0.30),
    ),
    "00001": (
        Row(
            "b0",
            "Three kids with Anna in Paris",
            "three children in front of a tower",
            0.29,
            0.25,
        ),
        Row("b1", "a red car", "a red car", 0.33, 0.33),
        Row("b2", "a cut image", broken=True),
        Row("b3", "a <b>bold</b> sign", 'a sign with the words "a & b"', 0.20, 0.24),
    ),
}


@dataclass(slots=True)
class Kit:
    """A dataset with its store; `versions` by the name of the policy."""

    ws: Workspace
    versions: dict[str, Version] = field(default_factory=dict)

    def decide(self, policy: str | Policy) -> Version:
        """Commit one more version: a name of `POLICIES`, TOML text, or a policy."""
        key = policy if isinstance(policy, str) and policy in POLICIES else None
        if isinstance(policy, str):
            policy = parse_policy(POLICIES.get(policy, policy), where="test")
        version, _ = decide(
            self.ws, policy, MakerChoice(), RunOptions(max_quarantine=1.0), stop=StopRequest()
        )
        self.versions[key or policy.name] = version
        return version


def image(key: str) -> bytes:
    """The picture of a sample: one colour for each key."""
    return tars.image_bytes(int(hashlib.sha256(key.encode()).hexdigest()[:4], 16))


def write_shards(folder: Path, shards: Mapping[str, Sequence[Row]] = SHARDS) -> None:
    """Write the tars."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in shards.items():
        files: tars.Files = []
        for row in rows:
            data = image(row.key)
            # 12 bytes are too few for the header, so it is unusable when it is indexed.
            files.append((f"{row.key}.jpg", data[:12] if row.broken else data))
            if row.alt is not None:
                files.append((f"{row.key}.txt", row.alt.encode()))
        (folder / f"{name}.tar").write_bytes(tars.tar(files))


def open_kit(
    folder: Path,
    shards: Mapping[str, Sequence[Row]] = SHARDS,
    *,
    store: Path | None = None,
) -> Kit:
    """Write the shards into `folder`, index them, and add the facts; no version yet."""
    write_shards(folder, shards)
    kit = Kit(open_workspace(str(folder), store, create=True))
    make_index(kit.ws, ScanOptions(), stop=StopRequest())
    kit.ws.store.write_recipe(CAPTIONS, GENERATOR, GENERATOR_RECIPE)
    kit.ws.store.write_recipe(SCORES, SCORER, SCORER_RECIPE)
    captions = Facts(kit.ws.store, CAPTIONS, GENERATOR)
    scores = Facts(kit.ws.store, SCORES, SCORER)
    for name, rows in shards.items():
        add_facts(captions, name, [row for row in map(caption_fact, rows) if row])
        add_facts(scores, name, [fact for row in rows for fact in score_facts(row)])
    return kit


def small_store(
    folder: Path, policies: Sequence[str] = tuple(POLICIES), *, store: Path | None = None
) -> Kit:
    """The store of the module's table, with a version for each of `policies`, in that order."""
    kit = open_kit(folder, store=store)
    for policy in policies:
        kit.decide(policy)
    return kit


def add_facts(facts: Facts, shard: str, records: Sequence[Mapping[str, object]]) -> None:
    """Write facts as a finished file."""
    writer = facts.writer(shard)
    writer.add(records)
    writer.finish()


def caption_fact(row: Row) -> dict[str, object] | None:
    """The caption fact of a sample, None if nobody tried."""
    if row.generated is None and row.failure is None:
        return None
    text = row.generated
    return {
        "image_sha256": hashlib.sha256(image(row.key)).hexdigest(),
        "candidate": 0,
        "text": text,
        "text_sha256": hashing.text_sha256(text) if text is not None else None,
        "finish_reason": "stop" if text is not None else None,
        "num_tokens": len(text.split()) if text is not None else 0,
        "seed": 0,
        "failure": row.failure,
        "detail": "it said no" if row.failure else None,
        "attempt": 0,
        "created": 1_700_000_000.0,
    }


def score_facts(row: Row) -> list[dict[str, object]]:
    """The score facts of a sample, one a different text."""
    scored = {row.alt: row.alt_score, row.generated: row.generated_score}
    return [
        score_fact(image(row.key), text, score)
        for text, score in scored.items()
        if text is not None and score is not None
    ]


def score_fact(data: bytes, text: str, score: float | None) -> dict[str, object]:
    """One score fact for an encoded image and a text."""
    return {
        "image_sha256": hashlib.sha256(data).hexdigest(),
        "text_sha256": hashing.text_sha256(text),
        "score": score,
        "num_tokens": len(text.split()),
        "truncated": False,
        "sentences": [],
        "flags": [],
        "measures": [],
        "failure": None if score is not None else "score.not_finite",
        "detail": None,
        "attempt": 0,
        "created": 1_700_000_000.0,
    }
