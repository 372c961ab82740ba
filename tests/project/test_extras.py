"""The core works without the extras; what needs one says which, in one line."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest

from curator.core.errors import MissingExtraError
from curator.core.package import EXTRAS, INCLUDED, missing_extra, require
from curator.engine.executors.local import ProcessExecutor
from tests.kit import tars
from tests.kit.paths import ROOT, STUB_SERVER

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_of(requirement: str) -> str:
    """The normalised name in a requirement such as `open_clip_torch>=3.3`."""
    found = re.match(r"[\w.-]+", requirement)
    assert found
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def closure(names: list[str]) -> set[str]:
    """These distributions and all that they require here, without extras."""
    found: set[str] = set()
    todo = [name_of(name) for name in names]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needed = requires(name) or []
        except PackageNotFoundError:  # for another platform
            continue
        todo += [name_of(line) for line in needed if "extra ==" not in line]
    return found


MODULES = {
    module: {name_of(name) for name in names} for module, names in packages_distributions().items()
}
CORE = closure(PROJECT["dependencies"]) | {"caption-curator"}
HIDDEN = sorted(module for module, names in MODULES.items() if not names & CORE)


def test_the_table_of_extras_agrees_with_the_project_file() -> None:
    extras = PROJECT["optional-dependencies"]
    for extra, modules in EXTRAS.items():
        listed = {name_of(line) for line in extras[extra]} - {"caption-curator"}
        assert listed == {min(MODULES[module]) for module in modules}, extra
    for extra, parts in INCLUDED.items():
        assert f"caption-curator[{','.join(parts)}]" in extras[extra]
    assert {"torch", "streamlit", "scipy"} <= set(HIDDEN)
    assert not {"polars", "typer", "matplotlib"} & set(HIDDEN)


def test_every_import_belongs_to_the_core_or_to_an_extra() -> None:
    known = {module for modules in EXTRAS.values() for module in modules}
    for package in ("curator", "pretrain", "finetune", "ui"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names: list[str] = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                for name in {name.partition(".")[0] for name in names}:
                    ours = name in sys.stdlib_module_names or (ROOT / name).is_dir()
                    core = bool(MODULES.get(name, set()) & CORE)
                    assert ours or core or name in known, f"{path.name}: {name}"


# -- all of it with the extras hidden --------------------------------------------------------------

_HIDE = """
import importlib.machinery, json, os, sys
hidden = frozenset(json.loads(os.environ["HIDDEN_MODULES"]))
class Without(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            return None
        return importlib.machinery.PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [
    Without if one is importlib.machinery.PathFinder else one
    for one in sys.meta_path
    if not getattr(one, "__module__", "").startswith("__editable__")
]
"""

_DRIVER = """
import contextlib, io, json, sys
from curator.cli.app import app
from curator.cli.output import run_app
if __name__ == "__main__":
    told = []
    for argv in json.loads(sys.argv[1]):
        with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(
            io.StringIO()
        ):
            code = run_app(app, argv)
        told.append([code, err.getvalue()])
    print(json.dumps(told))
    assert not {"torch", "scipy", "streamlit", "huggingface_hub"} & set(sys.modules)
"""


@pytest.fixture
def lean(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine on which only the core is installed, worker processes too."""
    (tmp_path / "lean").mkdir()
    (tmp_path / "lean" / "sitecustomize.py").write_text(_HIDE)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "lean"), str(ROOT)]),
        "HIDDEN_MODULES": json.dumps(HIDDEN),
    }


@pytest.fixture
def server() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, STUB_SERVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    process.kill()
    process.wait()
    process.stdout.close()


def commands_of_the_core(folder: Path, url: str) -> list[list[str]]:
    """What the core promises, from an empty folder; each of them ends with 0."""
    shards = folder / "shards"
    shards.mkdir()
    tars.write(shards, tars.tar(tars.samples(6)))
    images, dataset = folder / "images", str(shards)
    images.mkdir()
    for name, data in tars.samples(2):
        (images / name).write_bytes(data)
    server = ["--captioner", "server", "--url", url, "--model", "stub", "--policy", "replace"]
    return [
        ["index", dataset],
        ["decide", dataset, "--policy", "as-is"],
        ["recaption", dataset, *server],
        ["score", dataset, "--scorer", "text"],
        ["diff", f"{dataset}@v1", f"{dataset}@v2", "--html", str(folder / "diff.html")],
        ["query", dataset, "select count(*) from captions"],
        ["export", f"{dataset}@v2", str(folder / "exported")],
        ["export", f"{dataset}@v2", str(folder / "table"), "--to", "parquet"],
        ["log", dataset],
        ["show", f"{dataset}@v2"],
        ["tag", f"{dataset}@v2", "good"],
        ["fsck", dataset, "--deep"],
        ["gc", dataset],
        ["policy", "best"],
        ["quarantine", "list", dataset],
        ["edits", "list", dataset],
        ["pack", str(images), str(folder / "packed")],
        ["doctor", dataset, "--scorer", "text", "--url", url],
        [],
        ["--version"],
    ]


def what_needs_more(folder: Path) -> list[tuple[list[str], str, str]]:
    """Command, what it names as missing, the extra that it names."""
    shards = str(folder / "shards")
    return [
        (["recaption", shards, "--captioner", "local", "--policy", "replace"], "torch", "models"),
        (["score", shards, "--scorer", "clip"], "torch", "models"),
        (["pretrain", shards, "--out", str(folder / "run")], "torch", "train"),
        (["finetune", "random:x", "--task", "depth", "--data", shards], "torch", "train"),
        (["study", "demo", "--set", f"demo={folder}"], "torch", "train"),
        (["report", str(folder)], "scipy", "train"),
        (["demo", "run", str(folder / "demo")], "pycocotools", "train"),
        (["ui", shards], "streamlit", "ui"),
    ]


def test_the_core_works_alone_and_the_rest_names_its_extra(
    tmp_path: Path, lean: dict[str, str], server: str
) -> None:
    fine = commands_of_the_core(tmp_path, server)
    more = what_needs_more(tmp_path)
    script = tmp_path / "driver.py"  # a file, so that worker processes can start
    script.write_text(_DRIVER)
    done = subprocess.run(
        [sys.executable, script, json.dumps(fine + [argv for argv, _, _ in more])],
        env=lean,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for argv, (code, err) in zip(fine, told, strict=False):
        assert code == 0, f"{argv}: {err}"
    for (argv, module, extra), (code, err) in zip(more, told[len(fine) :], strict=True):
        assert code == MissingExtraError.code, f"{argv}: {err}"
        line = err.splitlines()[-1]
        assert line.startswith("error[extra.missing]: "), line
        assert f"needs {module}, which is not installed" in line, line
        assert line.endswith(f"pip install 'caption-curator[{extra}]'"), line


def test_a_package_of_no_extra_is_no_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_extra(ModuleNotFoundError("no", name="nonsense"), "pretrain") is None
    assert missing_extra(ImportError("cannot import name"), "pretrain") is None
    inside = missing_extra(ModuleNotFoundError("no", name="torch.nn"))
    assert inside is not None
    assert inside.what == "curator needs torch, which is not installed"
    monkeypatch.setitem(EXTRAS, "models", ("nonsense",))
    with pytest.raises(MissingExtraError, match=r"--captioner local needs nonsense"):
        require("models", "--captioner local")


def build_without_torch() -> Any:
    """What a worker process meets where an import was not foreseen."""
    raise ModuleNotFoundError("No module named 'torch'", name="torch")


def test_an_import_that_fails_in_a_worker_process_names_its_extra() -> None:
    """The error keeps the module's name on its way to the process that shows it."""
    executor = ProcessExecutor(1, 60.0)
    outcomes = executor.run(build_without_torch, [[1]], probe=str, stop=lambda: False)
    with pytest.raises(ModuleNotFoundError) as raised:
        list(outcomes)
    found = missing_extra(raised.value, "recaption")
    assert found is not None
    assert found.what == "curator recaption needs torch, which is not installed"
    assert found.hint == "install it with: pip install 'caption-curator[models]'"


# -- a real environment ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_core_works_in_an_environment_of_its_own(tmp_path: Path, server: str) -> None:
    """What `pip install caption-curator` gives, from the package index."""
    source, home = tmp_path / "source", tmp_path / "venv"
    source.mkdir()  # pip builds in the folder it is given
    for name in ("curator", "pretrain", "finetune", "ui"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    venv.create(home, with_pip=True)
    pins = ["-c", str(ROOT / "requirements.txt")]
    install = [home / "bin" / "pip", "install", "--quiet", *pins, str(source)]
    installed = subprocess.run(install, capture_output=True, text=True, check=False)
    if installed.returncode != 0 and "No matching distribution" in installed.stderr:
        pytest.skip("the package index is out of reach")
    assert installed.returncode == 0, installed.stderr
    env: dict[str, Any] = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(argv: list[str]) -> subprocess.CompletedProcess[str]:
        command = [home / "bin" / "curator", *argv]
        return subprocess.run(
            command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    for argv in commands_of_the_core(tmp_path, server):
        done = run(argv)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
    for argv, module, extra in what_needs_more(tmp_path):
        done = run(argv)
        assert done.returncode == MissingExtraError.code, f"{argv}: {done.stderr}"
        assert f"needs {module}, which is not installed" in done.stderr
        assert f"caption-curator[{extra}]" in done.stderr
