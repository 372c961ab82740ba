"""What starting costs: help loads nothing heavy, and nothing happens when a module is imported."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from curator.cli.app import app
from tests.kit.paths import ROOT
from tests.kit.store import Row, open_kit

# Milliseconds each when first imported (design notes): torch 2,951, polars 316, rich 140, ...
HEAVY = frozenset(
    (
        "torch", "torchvision", "transformers", "open_clip", "timm", "polars", "pyarrow", "duckdb",
        "numpy", "rich", "PIL", "matplotlib", "pandas", "httpx", "huggingface_hub", "webdataset",
        "streamlit", "jinja2", "lingua", "pebble", "aiohttp",
    )
)  # fmt: skip  # not pydantic: typer loads it to read the arguments
LEAVES = frozenset(
    f"curator.{name}"
    for name in (
        "captioners.coca", "captioners.families", "captioners.local", "captioners.sampling",
        "core.devices", "core.open_clip_names", "judges.ask", "judges.claims", "judges.itm",
        "judges.vqa", "scorers.clip", "scorers.clip_model", "scorers.concept",
    )
)  # fmt: skip  # the modules that may import torch
MODEL_CODE = frozenset(
    f"pretrain.{name}"
    for name in (
        "checks", "data.batches", "data.loader", "demo_models", "distributed", "loop.checkpoint",
        "loop.flops", "loop.loop", "loop.onednn_workaround", "loop.runlog", "objectives.clip",
        "objectives.images",
        "objectives.mae", "objectives.masked", "objectives.siglip", "objectives.simmim", "run",
        "towers",
    )
) | frozenset(
    f"finetune.{name}"
    for name in (
        "augment", "feeding", "grid", "heads", "images", "necks", "probes", "run", "scaling",
        "sliding_window", "study.runner", "synced_norms", "tasks.base", "tasks.depth",
        "tasks.detection", "tasks.segmentation",
    )
)  # fmt: skip  # what may import torch there; a package stands for all that is in it
MAX_MODULES = 300


def commands(found: typer.core.TyperGroup, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every verb and sub-verb, e.g. ("quarantine", "list")."""
    verbs = [before]
    for name, command in found.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            verbs += commands(command, (*before, name))
        else:
            verbs.append((*before, name))
    return verbs


VERBS = commands(typer.main.get_command(app))  # type: ignore[arg-type]  # an app with commands

_HELP_OF_ALL = """
import contextlib, io, json, sys
from curator.cli.app import app
from curator.cli.output import run_app
loaded = {}
for verb in json.loads(sys.argv[1]):
    before = set(sys.modules)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = run_app(app, [*verb, "--help"])
    assert code == 0, verb
    assert "Usage: " in said.getvalue(), verb
    loaded[" ".join(verb)] = sorted(set(sys.modules) - before)
loaded["import"] = sorted(before)
print(json.dumps(loaded))
"""


def test_no_help_loads_a_heavy_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HELP_OF_ALL, json.dumps(VERBS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for verb, modules in json.loads(done.stdout).items():
        heavy = {module.partition(".")[0] for module in modules} & HEAVY
        assert not heavy, f"curator {verb} --help loads {sorted(heavy)}"


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_help_says_what_it_does_and_shows_an_example(verb: tuple[str, ...]) -> None:
    command = typer.main.get_command(app)
    for name in verb:
        command = command.commands[name]  # type: ignore[attr-defined]  # a group, by construction
    assert command.help
    is_group = isinstance(command, typer.core.TyperGroup)
    assert is_group or f"curator {' '.join(verb)}" in command.help.partition("Example")[2]


def test_finding_the_shards_loads_no_heavy_library() -> None:
    """Every command does so; a query that counts does little else."""
    code = "import sys, curator.steps.workspace; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {name.partition(".")[0] for name in done.stdout.split()} & (HEAVY | {"pydantic"})


STARTS = (["-m", "curator"], ["-c", "from curator.cli.app import main; main()"])


@pytest.mark.parametrize("start", STARTS, ids=["module", "script"])
def test_help_loads_little(start: list[str]) -> None:
    """What takes its time is imports (0.3 s for 190 modules); their number is the same anywhere."""
    command = [sys.executable, "-X", "importtime", *start, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert len(modules) < MAX_MODULES
    assert not HEAVY & {module.partition(".")[0] for module in modules}


_IMPORT_ALL = """
import importlib.machinery, json, os, pkgutil, sys, threading, warnings
warnings.simplefilter("error", ResourceWarning)
import curator
before = sorted(os.listdir("."))
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "transformers", "open_clip"):
            return importlib.machinery.ModuleSpec(name, self)  # polars asks whether it is there
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        raise ImportError("the leaf modules that run models take ten seconds to import")
sys.meta_path.insert(0, NoTorch())
leaves = []
for found in pkgutil.walk_packages(curator.__path__, "curator."):
    if not found.name.endswith("__main__"):
        try:
            importlib.import_module(found.name)
        except ImportError:
            leaves.append(found.name)
mine = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
print(json.dumps({"files": sorted(os.listdir(".")) != before, "threads": mine, "leaves": leaves}))
"""


@pytest.mark.long
def test_importing_any_module_does_nothing(tmp_path: Path) -> None:
    """No output, no file, no thread; and torch is needed by leaf modules only."""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    leaves = found.pop("leaves")
    assert found == {"files": False, "threads": []}
    assert set(leaves) <= LEAVES


_IMPORT_WITHOUT_MODELS = """
import importlib, json, pkgutil, sys
leaves, packages = map(set, json.loads(sys.argv[1]))
def walk(path, prefix):
    for found in pkgutil.iter_modules(path, prefix):
        if found.name in leaves or found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        loaded = {"torch", "transformers", "open_clip"} & set(sys.modules)
        if loaded:
            sys.exit(f"importing {found.name} loads {sorted(loaded)}")
        if found.ispkg:
            walk(module.__path__, found.name + ".")
for package in packages:
    walk(importlib.import_module(package).__path__, package + ".")
"""


def test_torch_is_loaded_where_models_run_only() -> None:
    """Recipes, plans, results and reports start at once, and read on a machine without torch."""
    asked = json.dumps([sorted(LEAVES | MODEL_CODE), ["curator", "pretrain", "finetune"]])
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_WITHOUT_MODELS, asked],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_what_says_it_needs_no_torch_is_held_to_it() -> None:
    """The docstrings agree with the lists above, and the lists name modules that exist."""
    told: dict[str, str] = {}
    for path in (*ROOT.glob("pretrain/**/*.py"), *ROOT.glob("finetune/**/*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        told[name] = ast.get_docstring(ast.parse(path.read_text())) or ""
    free = {name for name, doc in told.items() if re.search(r"(?i)torch-free|\bno torch\b", doc)}
    assert {"pretrain.recipe", "finetune.report.stats", "finetune.report.write"} <= free
    assert not {
        name for name in free if any(f"{name}.".startswith(f"{one}.") for one in MODEL_CODE)
    }
    assert told.keys() >= MODEL_CODE


_RUN = """
import sys
from curator.cli.commands import app
from curator.cli.output import run_app
code = run_app(app, sys.argv[1:])
print(code, sorted({"torch", "transformers", "open_clip"} & set(sys.modules)))
"""


def test_mistakes_in_what_is_trained_on_are_told_before_torch_is_loaded(tmp_path: Path) -> None:
    """Loading torch took most of a minute on a busy machine, and only then came the mistake."""
    kit = open_kit(tmp_path / "shards", {"00000": [Row("k0", "a red car")]})
    kit.decide("alt")
    (tmp_path / "empty").mkdir()
    finetune = ("finetune", "random:tiny-conv", "--task", "segmentation", "--data")
    for code, arguments in (
        (10, (*finetune, str(tmp_path / "none"))),
        (2, (*finetune, str(tmp_path / "empty"))),
        (10, ("pretrain", f"{kit.ws.spec}@v77", "--recipe", "demo")),
    ):
        done = subprocess.run(
            [sys.executable, "-c", _RUN, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == f"{code} []\n", done.stderr
