"""Writes the pages of docs/ that are made from code; tests/project/test_docs.py checks them."""

from __future__ import annotations

import ast
import io
from contextlib import redirect_stdout
from pathlib import Path

import typer.main

from curator.cli.app import app
from curator.cli.output import run_app
from curator.core.reasons import REASONS
from curator.policy.fields import FIELDS
from curator.query.run import schema_of_views

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
TREE_START, TREE_END = "## Files\n\n```\n", "\n```\n"
TREE_TAIL = (
    "curator/policy/presets/*.toml          the presets of `curator policy`",
    "curator/compare/templates/diff.html    the page of `curator diff --html`",
    "curator/compare/templates/style.html   the look of every page",
    "pretrain/recipes/*.toml                the presets of `curator pretrain`",
    "pretrain/model_configs/*.json          the small models of the presets",
    "finetune/studies/*.toml                the ready studies of `curator study`",
    "finetune/report/templates/report.html  the page of `curator report`",
    "tests/                                 mirrors the packages; contracts/ goes over each table",
    "docs/                                  guide, commands, codes, models, design, results",
)
HEAD = """# Commands

Made from `--help` by `make docs`; `make test` fails when it is out of step.
Exit codes: [exit-codes.md](exit-codes.md).
"""


QUERY_HEAD = """# The tables in SQL

`curator query DATASET "select ..."` runs one read-only SELECT (DuckDB) over these views;
`DATASET@v2` chooses the version behind `captions`. A query has no access to files, settings or
the network, 30 s and 1 GiB of memory. Made from the code by `make docs`.
"""
REASONS_HEAD = """# Why a sample was not used

Every quarantine row and every failed fact carries one of these codes. *Retry* says whether
`curator quarantine retry` can change anything. Made from the code by `make docs`.

| reason | found while | retry | meaning |
|---|---|---|---|"""


FIELDS_HEAD = """# The fields of a policy

A rule asks about one of these fields, with `min`, `max` or (for `score`) `min_percentile`;
a rule on `flags` has `none_of`. A text without a value passes no rule. To add a field:
[extend](../extend/policy_field.md). Made from the code by `make docs`.

| field | what it is | limits | needs |
|---|---|---|---|"""
NEEDS = {
    None: "",
    "scores": "`curator score`",
    "flags": "`curator score --scorer text`",
    "copies": "a pass over all images",
}


def commands() -> list[list[str]]:
    """Every command as the words that call it, groups before their members."""
    found = []
    for name, command in typer.main.get_command(app).commands.items():
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
    """The whole of docs/cli.md."""
    parts = [HEAD]
    for words in ([], *commands()):
        title = " ".join(["curator", *words])
        parts.append(f"## {title}\n\n```\n{help_of(words)}\n```\n")
    return "\n".join(parts)


def query_page() -> str:
    """The whole of docs/query.md."""
    return f"{QUERY_HEAD}\n```\n{schema_of_views().strip()}\n```\n"


def reasons_page() -> str:
    """The whole of docs/reasons.md."""
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


def tree() -> str:
    """Every file of the product with the first line of its docstring, and what lies beside it."""
    lines = []
    for package in ("curator", "pretrain", "finetune", "ui", "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
            name = path.relative_to(ROOT).as_posix()
            lines.append(f"{name:<38} {docstring.splitlines()[0] if docstring else ''}")
    return "\n".join([*lines, *TREE_TAIL])


def readme() -> str:
    """README.md with its file tree brought up to date."""
    text = (ROOT / "README.md").read_text()
    head, _, rest = text.partition(TREE_START)
    _, _, tail = rest.partition(TREE_END)
    return f"{head}{TREE_START}{tree()}{TREE_END}{tail}"


PAGES = {
    DOCS / "cli.md": page,
    DOCS / "query.md": query_page,
    DOCS / "reasons.md": reasons_page,
    DOCS / "reference" / "policy-fields.md": fields_page,
    ROOT / "README.md": readme,
}

if __name__ == "__main__":
    for path, make in PAGES.items():
        path.write_text(make())
