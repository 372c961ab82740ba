"""Rules about the code itself that no linter knows: who writes files, the closed lists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from curator.core.reasons import REASONS
from tests.kit.paths import ROOT

PACKAGES = ("curator", "pretrain", "finetune", "ui")

FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call with its name as written: `open`, `path.write_text`, `os.rename`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


# -- only fsops writes -----------------------------------------------------------------------------

_WRITING_METHODS = frozenset(
    (
        "write_text", "write_bytes", "rename", "replace", "mkdir", "makedirs", "unlink", "rmdir",
        "touch", "symlink_to", "hardlink_to", "symlink", "link", "remove", "removedirs", "truncate",
        "rmtree", "copy", "copy2", "copyfile", "copytree", "move", "chmod",
        "NamedTemporaryFile", "TemporaryFile", "TemporaryDirectory", "mkstemp", "mkdtemp",
    )
)  # fmt: skip
# These names also belong to strings, frames, lists and dicts: only the ones of os, shutil and
# pathlib write files. A path is recognised by its name.
_COMMON = frozenset(("replace", "copy", "remove", "move", "truncate", "link", "rename", "touch"))
_MODULES = re.compile(r"(?:os|shutil|tempfile)\.")
_PATH = re.compile(r"(?:.*(?:path|folder|file|temp|root|tar))(?:\(.*\))?$|.* / .*", re.IGNORECASE)

# file -> calls there that look like writing, and why they may
ALLOWED: dict[str, dict[str, str]] = {
    "curator/cli/output.py": {"os.open": "os.devnull, for a pipe whose reader is gone"},
    "curator/shards/cache.py": {
        name: "copies of objects: all of it can be fetched again"
        for name in ("path.parent.mkdir", "part.open", "os.replace", "part.unlink", "path.unlink")
    },
    "curator/store/copies.py": {
        name: "copies of pushed files: all of it can be fetched again"
        for name in (
            "home.mkdir",
            "(home / 'lock').open",
            "(root / path).parent.mkdir",
            "os.link",
            "shutil.rmtree",
            "path.unlink",
        )
    },
    "curator/query/worker.py": {"os.open": "os.devnull; this process may write no file at all"},
}


def is_write(name: str, call: ast.Call) -> bool:
    owner, _, method = name.rpartition(".")
    is_builtin = owner in ("", "io")
    if method == "open" and (is_builtin or _PATH.match(owner)):
        modes = [*call.args[1 if is_builtin else 0 :], *call.keywords]
        found = {
            value.value
            for mode in modes
            for value in ast.walk(mode)
            if isinstance(value, ast.Constant) and isinstance(value.value, str)
        }
        return any(
            re.fullmatch("[rwaxbt+]{1,3}", text) and set(text) & set("wax+") for text in found
        )
    if name == "os.open":
        return True
    if method not in _WRITING_METHODS:
        return False
    if _MODULES.match(name):
        return True
    return method not in _COMMON if owner else False


def test_only_fsops_writes() -> None:
    found = {
        f"{name_of(path)}:{call.lineno}: {name}"
        for path in FILES
        if name_of(path) != "curator/store/fsops.py"
        for name, call in calls(path)
        if is_write(name, call) and name not in ALLOWED.get(name_of(path), {})
    }
    assert found == set()


@pytest.mark.parametrize(
    ("code", "writes"),
    [
        ("open('x', 'w')", True),
        ("open('x', mode='ab')", True),
        ("open('x')", False),
        ("open('x', 'rb')", False),
        ("path.open('xb')", True),
        ("path.open('rb')", False),
        ("path.write_text('x')", True),
        ("(a / b).mkdir()", True),
        ("os.replace(a, b)", True),
        ("text.replace('a', 'b')", False),
        ("shutil.rmtree(a)", True),
        ("tempfile.mkdtemp()", True),
        ("frame.rename({})", False),
    ],
)
def test_the_guard_against_writing_sees(code: str, writes: bool) -> None:
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert is_write(ast.unparse(call.func), call) is writes


# Libraries that write by themselves when told a path. Everything of ours hands them a buffer.
_LIBRARY_WRITERS = re.compile(
    r"(?:pq\.write_table|pq\.ParquetWriter|pa\.OSFile|torch\.save|save_file|np\.save\w*|plt\.savefig"
    r"|.*\.(?:write_parquet|write_csv|write_ndjson|sink_parquet|savefig|save_pretrained))$"
)


MAY_SAVE_MODELS = {
    "pretrain/demo_models/captioner.py": "a new model, in the files that transformers lays out",
    "pretrain/demo_models/scorer.py": "its tokenizer, in the files that transformers lays out",
}


def test_no_library_is_told_a_path_to_write_to() -> None:
    for path in FILES:
        if name_of(path) in MAY_SAVE_MODELS:
            continue
        for name, call in calls(path):
            if _LIBRARY_WRITERS.match(name):
                told = [ast.unparse(argument) for argument in call.args]
                sinks = ("sink", "buffer", "out", "file", "handle")
                assert any(argument in sinks for argument in told), f"{name_of(path)}: {name}{told}"


# -- data runs no code -----------------------------------------------------------------------------

_DANGEROUS = re.compile(
    r"(?:eval|exec|compile|__import__|os\.(?:system|popen|exec\w*|spawn\w*)|pty\.spawn"
    r"|(?:pickle|dill|joblib|cloudpickle|marshal|shelve)\.\w+|yaml\.(?:load|unsafe_load)|torch\.load"
    r"|subprocess\.\w+)$"
)
MAY_START_PROCESSES = {
    "curator/engine/serve.py": "the command that the user types for --serve, and its watcher",
    "curator/query/run.py": "our own query process: fixed arguments, no shell",
}


def test_nothing_can_run_code_from_data() -> None:
    for path in FILES:
        for name, call in calls(path):
            where = f"{name_of(path)}:{call.lineno}: {name}"
            if name.startswith("subprocess.") and name_of(path) in MAY_START_PROCESSES:
                shells = [word for word in call.keywords if word.arg == "shell"]
                assert not shells, where
                continue
            assert not _DANGEROUS.match(name), where
            for word in call.keywords:
                trusts = word.arg == "trust_remote_code" and ast.unparse(word.value) != "False"
                assert not trusts, where


# -- print, late imports ---------------------------------------------------------------------------


def test_only_the_command_line_prints() -> None:
    for path in FILES:
        for name, call in calls(path):
            assert name != "print", f"{name_of(path)}:{call.lineno}"
            speaks = name == "sys.stdout.write"
            assert not speaks or path.parent.name == "cli", f"{name_of(path)}:{call.lineno}"


# file -> why something is imported there when a function runs
LATE = {
    "curator/core/models.py": "a folder is found without huggingface_hub and without open_clip",
    "curator/engine/executors/local.py": "ray is an extra, and loads half a second",
    "curator/steps/index.py": "the same",
    "curator/core/progress.py": "rich: 0.1 s, and most commands show no bar",
    "curator/steps/identity.py": "polars: 0.1 s, and a dataset is known by its folder",
    "curator/steps/workspace.py": "Arrow: 0.1 s, and only copies of stores need it",
    "curator/query/run.py": "Arrow: the query process loads it meanwhile",
    "curator/query/tables.py": "polars: 0.1 s, and most queries need none",
    "pretrain/objectives/__init__.py": "pydantic: 0.1 s, and all help names objectives",
    "curator/engine/makers.py": "curator.core.devices loads torch, and not every maker asks it",
    "curator/steps/doctor.py": "it also runs where torch and huggingface_hub are not installed",
}


def test_imports_are_late_in_the_bodies_of_commands_only() -> None:
    """And in `curator.core.registry`, and in the files of `LATE`; no `try: import` anywhere."""
    for path in FILES:
        if path.parent.name == "cli" or name_of(path) in LATE:
            continue
        for function in ast.walk(tree(path)):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Try):
                late = [n for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)]
                assert not late, f"{name_of(path)}:{late[0].lineno}"


# -- the closed list of reasons --------------------------------------------------------------------

_STAGES = sorted({code.partition(".")[0] for code in REASONS})
_CODE = re.compile(rf"(?:{'|'.join(_STAGES)})\.[a-z0-9_]+")

# Notes on samples that are used all the same. They share a prefix with reasons and are none.
NOTES = {
    "caption.ambiguous", "caption.bidi", "caption.control", "caption.invalid_utf8",
    "caption.missing", "caption.not_text", "caption.surrogate", "image.ext_mismatch", "key.dotted",
}  # fmt: skip


def constants(path: Path) -> Iterator[str]:
    """Strings of a file, but for the reasons of errors that end a command: a list of their own."""
    of_errors = {
        id(word.value)
        for name, call in calls(path)
        for word in call.keywords
        if name.endswith("Error") and word.arg == "reason"
    }
    for node in ast.walk(tree(path)):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in of_errors:
            yield node.value


def test_every_reason_in_the_code_is_in_the_list_and_every_one_in_the_list_is_used() -> None:
    used = {
        text
        for path in FILES
        if name_of(path) != "curator/core/reasons.py"
        for text in constants(path)
        if _CODE.fullmatch(text)
    }
    assert used - set(REASONS) - NOTES == set(), "unknown reasons"
    assert set(REASONS) - used == set(), "reasons that nothing gives"
    assert NOTES - used == set(), "notes that nothing makes any more"
