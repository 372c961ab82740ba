"""Writes the pages of docs/ that are made from code; tests/project/test_docs.py checks them."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path

import typer.main

from curator.cli.app import app
from curator.cli.commands import SECTIONS
from curator.cli.output import run_app
from curator.core.reasons import REASONS
from curator.policy.fields import FIELDS
from curator.query.run import schema_of_views

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
HEAD = """# Commands

Generated from `--help` by `make docs`. [Exit codes](exit-codes.md) · [curator.toml](settings.md)
"""


QUERY_HEAD = """# The tables in SQL

`curator query DATASET "select ..."` runs one read-only SELECT (DuckDB) over these views;
`DATASET@v2` chooses the version behind `captions`. A query has no access to files, settings or
the network, and is limited to 30 s and 1 GiB of memory. Generated from the code by `make docs`.
"""
REASONS_HEAD = """# Why a sample was not used

Every quarantine row and every failed fact carries one of these codes. *Retry* says whether
`curator quarantine retry` can change anything. Generated from the code by `make docs`.

| reason | found while | retry | meaning |
|---|---|---|---|"""


FIELDS_HEAD = """# The fields of a policy

A rule asks about one of these fields, with `min`, `max` or (for `score`) `min_percentile`;
a rule on `flags` has `none_of`. A text without a value passes no rule. Every
[concept](../how-to/concepts.md) is a field too, `concept.NAME`. To add a field:
[extend](../extend/policy_field.md). Generated from the code by `make docs`.

| field | what it is | limits | needs |
|---|---|---|---|"""
NEEDS = {
    None: "",
    "scores": "`curator score`",
    "flags": "`curator score --scorer text`",
    "copies": "a pass over all images",
    "alt_text": "an alt text",
}


def commands() -> list[list[str]]:
    """Every command as the words that call it, groups before their members, as help lists them."""
    found = []
    known = typer.main.get_command(app).commands
    for name in [name for names in SECTIONS.values() for name in names]:
        command = known[name]
        found.append([name])
        found += [[name, member] for member in getattr(command, "commands", {})]
    return found


def help_of(words: list[str]) -> str:
    """What `curator WORDS --help` prints."""
    out = io.StringIO()
    with redirect_stdout(out):
        run_app(app, [*words, "--help"])
    lines = out.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines).strip()


def page() -> str:
    """The whole of docs/reference/cli.md."""
    parts = [HEAD]
    for words in ([], *commands()):
        title = " ".join(["curator", *words])
        parts.append(f"## {title}\n\n```\n{help_of(words)}\n```\n")
    return "\n".join(parts)


def query_page() -> str:
    """The whole of docs/reference/query.md."""
    return f"{QUERY_HEAD}\n```\n{schema_of_views().strip()}\n```\n"


def reasons_page() -> str:
    """The whole of docs/reference/reasons.md."""
    rows = [
        f"| `{code}` | {about.stage} | {'yes' if about.retryable else 'no'} | {about.text} |"
        for code, about in REASONS.items()
    ]
    return "\n".join([REASONS_HEAD, *rows]) + "\n"


def fields_page() -> str:
    """The whole of docs/reference/policy-fields.md."""
    rows = []
    for name, row in FIELDS.items():
        limits = f"`{'`, `'.join(row.names)}`" if row.names else f"{row.range} {row.unit}".rstrip()
        rows.append(f"| `{name}` | {row.help} | {limits} | {NEEDS[row.needs]} |")
    flags = [
        f"| `{flag}` | {about} |" for row in FIELDS.values() for flag, about in row.names.items()
    ]
    head = ["", "## Flags", "", "| flag | what is wrong with the text |", "|---|---|"]
    return "\n".join([FIELDS_HEAD, *rows, *head, *flags]) + "\n"


PAGES = {
    REFERENCE / "cli.md": page,
    REFERENCE / "query.md": query_page,
    REFERENCE / "reasons.md": reasons_page,
    REFERENCE / "policy-fields.md": fields_page,
}

if __name__ == "__main__":
    for path, make in PAGES.items():
        path.write_text(make())
