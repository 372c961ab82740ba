"""Security promise S4: no key, password or token in anything that is written or said.

Twelve canaries are where secrets lie in practice. The commands succeed, fail in every way that
prints something of what was typed, and crash; then every byte of the store and of what was exported
is searched, tables and journals by their values.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curator.core.errors import mask_secrets
from tests.kit import tars
from tests.kit.audit import Audited, audited
from tests.kit.paths import STUB_SERVER

ENVIRONMENT = {
    "CURATOR_API_KEY": "canary-curator-key-1f9a",
    "OPENAI_API_KEY": "sk-proj-CANARYopenai2b8c",
    "HF_TOKEN": "hf_CANARYhuggingface3c7d",
    "AWS_ACCESS_KEY_ID": "AKIACANARYACCESS4D6E",
    "AWS_SECRET_ACCESS_KEY": "canary/aws+secret/5e5f",
    "AWS_SESSION_TOKEN": "canary-aws-session-6f4a",
    "DATABASE_URL": "postgres://admin:canary-database-7a3b@db/prod",
    "GITHUB_TOKEN": "ghp_CANARYgithub8b2c",
}
PASSWORD = "canary-url-pass%40word-9c1d"  # %40 is an @ inside the password
USER = "canary-url-user-ad0e"
QUERY_KEY = "canary-query-key-be9f"
SIGNATURE = "canary-presigned-cf8a"
CANARIES = (
    *(value for name, value in ENVIRONMENT.items() if name != "DATABASE_URL"),
    "canary-database-7a3b", PASSWORD, USER, QUERY_KEY, SIGNATURE,
)  # fmt: skip


def start(mode: str, log: Path) -> tuple[subprocess.Popen[str], int]:
    script = str(STUB_SERVER)
    process = subprocess.Popen(
        [sys.executable, script, "--mode", mode, "--log", str(log)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """A server that answers, and one that refuses and repeats the key, as some do."""
    log = tmp_path_factory.mktemp("servers") / "log.jsonl"
    started = {mode: start(mode, log) for mode in ("ok", "unauthorized")}
    yield {mode: port for mode, (_, port) in started.items()}
    for process, _ in started.values():
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def url(port: int, query: str = f"?api_key={QUERY_KEY}") -> str:
    return f"http://{USER}:{PASSWORD}@127.0.0.1:{port}/v1{query}"


@pytest.fixture(scope="module")
def runs(ports: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Audited]:
    """The folder with all that was written, and what was said."""
    folder = tmp_path_factory.mktemp("secrets")
    shards, blocked = folder / "shards", folder / "blocked"
    shards.mkdir()
    blocked.mkdir()
    for where in (shards, blocked):
        (where / "00000.tar").write_bytes(tars.tar(tars.samples(3)))
    (blocked / ".curator").write_text("a file where a folder should be")
    presigned = f"https://bucket.s3.amazonaws.com/00000.tar?X-Amz-Signature={SIGNATURE}"

    def recaption(address: str, *more: object) -> tuple[object, ...]:
        server = ("--captioner", "server", "--url", address, "--model", "tiny")
        return ("recaption", shards, *server, "--policy", "replace", *more)

    refused = recaption(url(ports["unauthorized"], ""), "--seed", "1", "--json")
    down = recaption(url(9), "--seed", "2")  # the discard port: nobody listens
    echo = ("--captioner", "echo", "--policy", "replace")
    done = audited(
        [
            recaption(url(ports["ok"], ""), "--json"),
            ("export", shards, folder / "out"),
            ("show", shards),
            refused,
            down,
            ("recaption", shards, "--url", url(9), *echo, "--json"),
            recaption(url(9).replace("http", "ftp")),
            ("index", presigned, "--json"),
            ("index", f"pipe:curl {url(9)}"),
            ("index", f"https://{USER}:{PASSWORD}@host/{{0..3}}.tar"),
            ("recaption", blocked, *echo),
            ("recaption", shards, "--policy", url(9), "--json"),
            ("recaption", shards, "--no-such-option", url(9)),
        ],
        folder,
        env=ENVIRONMENT,
    )
    return folder, done


def searchable(path: Path) -> bytes:
    """The bytes of a file; of a table also its values, which are compressed in the file."""
    data = path.read_bytes()
    if path.suffix == ".parquet":
        rows = pq.read_table(path, partitioning=None).to_pylist()
        data += json.dumps(rows, default=str).encode()
    return data


def test_the_commands_ended_as_planned(runs: tuple[Path, Audited]) -> None:
    _, done = runs
    #  fine, exported, shown, 401, down, --url for echo, ftp, presigned, pipe, https, blocked, ...
    assert done.codes[:10] == [0, 0, 0, 30, 30, 2, 2, 2, 2, 2], done.err
    assert done.codes[10:13] == [20, 2, 2], done.err
    assert "http://***@127.0.0.1" in done.err, "the address itself is said"
    assert "***" in next(line for line in done.err.splitlines() if "401" in line)


def test_no_canary_is_said(runs: tuple[Path, Audited]) -> None:
    _, done = runs
    assert len(CANARIES) == 12
    for canary in CANARIES:
        assert canary not in done.out + done.err


def test_no_canary_is_written(runs: tuple[Path, Audited]) -> None:
    folder, done = runs
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "run.json" for path in files)
    assert any(path.name == "log.jsonl" for path in files)
    written = {path: searchable(path) for path in files if path.name != "run_all.py"}
    for canary in CANARIES:
        forms = (canary.encode(), base64.b64encode(canary.encode()), canary.encode().hex().encode())
        hits = [str(path) for path, data in written.items() if any(f in data for f in forms)]
        assert hits == [], canary
    # nor in the arguments or the names of anything a process was told or created
    for event in done.events:
        assert not any(canary in str(event.arguments) for canary in CANARIES)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("see https://u:p@host/x.tar for more", "see https://***@host/x.tar for more"),
        ("s3://key:sec/ret@bucket/x", "s3://key:sec/ret@bucket/x"),  # a / ends the host: no secret
        ("https://u:p@ss@host/x", "https://***@host/x"),
        ("'https://host/x?X-Amz-Signature=abc&y=1'", "'https://host/x?***'"),
        ('{"url": "http://u:p@h/v1?k=v"}', '{"url": "http://***@h/v1?***"}'),
        ("a @ b, 3 > 2? no://", "a @ b, 3 > 2? no://"),
    ],
)
def test_mask_secrets(text: str, masked: str) -> None:
    assert mask_secrets(text) == masked
