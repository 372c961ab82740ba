"""curator.toml: where it is looked for, what beats it, and what is refused.

Most tests ask a small command line that prints the options it was given; the last ones ask the
real one.
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.cli import options as o
from curator.cli import settings as of_settings
from curator.cli import trust
from curator.cli.app import app
from curator.cli.output import run_app, show_json
from curator.cli.settings import SettingsGroup, find_file
from curator.core.errors import UsageError
from curator.demo.bundled import bundled_model
from tests.kit import tars
from tests.kit.cli import Said, check_whole, curator

SCORER = bundled_model("scorer")

probe = typer.Typer(cls=SettingsGroup)
group = typer.Typer()
probe.add_typer(group, name="group")


@probe.command()
def look(
    dataset: o.Dataset,
    *,
    model: str | None = None,
    language: o.Language = "en",
    batch_size: o.BatchSize = None,
    max_quarantine: o.MaxQuarantine = 0.05,
    image_ext: o.ImageExt = None,
    strict: bool = False,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Print what was given."""
    show_json({name: value for name, value in locals().items() if value not in (None, (), [])})


@group.command()
def inner(dataset: o.Dataset, *, limit: Annotated[int, typer.Option()], extra: str = "") -> None:
    """Print what was given."""
    show_json({"limit": limit, "extra": extra})


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `demo` with `shards` in it, below the current folder; a clean environment.

    Every file counts as the reader's own: what a stranger's may set has tests of its own.
    """
    monkeypatch.setattr(of_settings, "_is_own", lambda _path, _dataset: True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CURATOR_CONFIG", raising=False)
    monkeypatch.delenv("CURATOR_STORE", raising=False)
    shards = tmp_path / "demo" / "shards"
    shards.mkdir(parents=True)
    (shards / "00000.tar").write_bytes(tars.tar(tars.samples(2)))
    return tmp_path / "demo"


def ask(*arguments: object) -> Said:
    """Run the small command line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_app(probe, [str(argument) for argument in arguments])
    return Said(code, out.getvalue(), err.getvalue())


def write(folder: Path, text: str) -> None:
    (folder / "curator.toml").write_text(text, "utf-8")


def look_at(*arguments: object) -> dict[str, Any]:
    said = ask("look", *arguments)
    assert said.code == 0, said.err
    found: dict[str, Any] = said.json
    return found


# -- where it is looked for ------------------------------------------------------------------------


def test_no_file_changes_nothing(demo: Path) -> None:
    said = ask("look", "demo/shards")
    assert said.err == ""
    assert said.json == {
        "dataset": "demo/shards", "language": "en", "max_quarantine": 0.05, "strict": False,
        "json": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dataset", "places"),
    [
        ("demo/shards", ["demo/shards", "demo", "."]),
        ("demo/shards/", ["demo/shards", "demo", "."]),
        ("demo/shards@v2", ["demo/shards", "demo", "."]),
        ("demo/shards/@v2", ["demo/shards", "demo", "."]),
        ("demo/shards/00000.tar", ["demo/shards", "demo", "."]),
        ("demo/shards/{00000..00003}.tar", ["demo/shards", "demo", "."]),
        ("demo/*/0000[0-3].tar", ["demo", "."]),
        ("demo/new", ["demo", "."]),
        (".", ["."]),
    ],
)
@pytest.mark.long
def test_the_places_in_their_order(demo: Path, dataset: str, places: list[str]) -> None:
    for place in ("demo/shards", "demo", "."):
        write(Path(place), "")
    for place in places:
        found = find_file(dataset)
        assert found == Path(place).absolute() / "curator.toml"
        found.unlink()
    assert find_file(dataset) is None


def test_not_further_up_than_the_parent(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(demo.parent, '[look]\nmodel = "x"\n')
    (demo / "elsewhere").mkdir()
    monkeypatch.chdir(demo / "elsewhere")
    assert "model" not in look_at("../shards")


def test_the_environment_names_a_file(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(demo, '[look]\nmodel = "searched"\n')
    (demo.parent / "mine.toml").write_text('[look]\nmodel = "named"\n')
    monkeypatch.setenv("CURATOR_CONFIG", "mine.toml")
    assert look_at("demo/shards")["model"] == "named"
    monkeypatch.setenv("CURATOR_CONFIG", "/dev/null")  # how to do without one
    assert "model" not in look_at("demo/shards")
    monkeypatch.setenv("CURATOR_CONFIG", "")
    assert look_at("demo/shards")["model"] == "searched"
    monkeypatch.setenv("CURATOR_CONFIG", "gone.toml")
    said = ask("look", "demo/shards", "--json")
    assert (said.code, said.exit_line["error"]) == (2, "config.unreadable")
    assert said.exit_line["path"] == str(demo.parent / "gone.toml")


# -- what beats what -------------------------------------------------------------------------------


def test_typed_beats_file_beats_built_in(demo: Path) -> None:
    write(demo, '[look]\nlanguage = "de"\nbatch-size = 8\n')
    assert look_at("demo/shards")["language"] == "de"
    found = look_at("demo/shards", "--language", "ja")
    assert (found["language"], found["batch_size"]) == ("ja", 8)
    found = look_at("--language", "en", "demo/shards")  # typed, though it is the built-in one
    assert found["language"] == "en"


def test_the_table_of_the_command_beats_the_defaults(demo: Path) -> None:
    write(demo, '[defaults]\nlanguage = "de"\nmodel = "a"\nextra = "b"\n[look]\nmodel = "c"\n')
    found = look_at("demo/shards")
    assert (found["language"], found["model"]) == ("de", "c")
    assert "extra" not in found  # an option of another command: not one of this


def test_the_environment_of_an_option_beats_the_file(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(demo, '[defaults]\nstore = "of-file"\n')
    assert look_at("demo/shards")["store"] == str(demo / "of-file")
    monkeypatch.setenv("CURATOR_STORE", "of-environment")
    said = ask("look", "demo/shards")
    assert (said.json["store"], said.err) == ("of-environment", "")
    assert look_at("demo/shards", "--store", "typed")["store"] == "typed"


def test_it_says_which_options_came_from_the_file(demo: Path) -> None:
    write(demo, '[look]\nmodel = "secret"\nbatch_size = 8\nlanguage = "de"\n')
    said = ask("look", "demo/shards", "--language", "en", "--json")
    assert said.err == "options from demo/curator.toml: model, batch-size\n"
    everything = ("--language=en", "--model=m", "--batch-size=1")
    assert ask("look", "demo/shards", *everything).err == ""


def test_members_of_a_group(demo: Path) -> None:
    write(demo, '[defaults]\nextra = "e"\n[group.inner]\nlimit = 3\n')
    assert ask("group", "inner", "demo/shards").json == {"limit": 3, "extra": "e"}  # a required one
    assert ask("group", "inner", "demo/shards", "--limit", 4).json["limit"] == 4
    assert ask("look", "demo/shards").code == 0


# -- values ----------------------------------------------------------------------------------------


def test_kinds_of_values(demo: Path) -> None:
    write(demo, '[look]\nimage-ext = ["jpg", "seg.png"]\nstrict = true\nmax_quarantine = 1\n')
    found = look_at("demo/shards")
    assert (found["image_ext"], found["strict"]) == (["jpg", "seg.png"], True)
    assert found["max_quarantine"] == 1.0
    found = look_at("demo/shards", "--no-strict", "--image-ext", "png")
    assert (found["image_ext"], found["strict"]) == (["png"], False)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("models/captioner", "{demo}/models/captioner"),
        ("./models", "{demo}/./models"),
        ("../demo/models", "{demo}/../demo/models"),
        ("mine.toml", "{demo}/mine.toml"),
        ("models", "models"),  # a word: maybe the name of a preset or of a language
        ("org/name", "org/name"),  # nothing there has that name: an id of the hub
        ("/dev", "/dev"),
        ("x" * 5000 + "/.", "x" * 5000 + "/."),
    ],
)
def test_paths_start_at_the_folder_of_the_file(demo: Path, value: str, found: str) -> None:
    (demo / "models" / "captioner").mkdir(parents=True)
    (demo / "mine.toml").touch()
    write(demo, f"[look]\nmodel = {json.dumps(value)}\n")
    assert look_at("demo/shards")["model"] == found.format(demo=demo)


def test_what_is_always_a_path_need_not_exist(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of-mine")
    for value, found in (("store", demo / "store"), ("/a/b", "/a/b"), ("~/s", "/home/of-mine/s")):
        write(demo, f'[look]\nstore = "{value}"\n')
        assert look_at("demo/shards")["store"] == str(found)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        ("[loook]\n", "config.unknown_table", "did you mean 'look'?"),
        ("[group.iner]\n", "config.unknown_table", "did you mean 'group.inner'?"),
        ("['group.inner']\nlimit = 1", "config.unknown_table", "allowed: defaults, group.inner"),
        ("[look]\nmodle = 1", "config.unknown_key", "'modle' is not an option of the table [look]"),
        ("[look]\nmodle = 1", "config.unknown_key", "did you mean 'model'?"),
        ("[look]\nlimit = 1", "config.unknown_key", "allowed: batch-size, image-ext"),
        ("[group.inner]\nlimt = 1", "config.unknown_key", "did you mean 'limit'?"),
        ("[defaults]\nmodle = 1", "config.unknown_key", "did you mean 'model'?"),
        ("[look]\njson = true", "config.unknown_key", "'json' is not an option"),
        ("[look]\ndataset = 'x'", "config.unknown_key", "'dataset' is not an option"),
        ("model = 'x'", "config.unknown_key", "'model' is outside any command"),
        ("look = 1", "config.unknown_key", "put it below [defaults]"),
        ("[group]\nlimit = 1", "config.unknown_key", "outside any command"),
        ("[look]\nbatch-size = 1\nbatch_size = 2", "config.value", "'batch-size' twice"),
        ("[look]\nbatch-size = '3'", "config.value", "batch-size is '3' in "),
        ("[look]\nbatch-size = '3'", "config.value", "allowed: a whole number"),
        ("[look]\nbatch-size = 0", "config.value", "greater than or equal to 1"),
        ("[look]\nbatch-size = true", "config.value", "allowed: a whole number"),
        ("[look]\nbatch-size = 1.0", "config.value", "allowed: a whole number"),
        ("[look]\nbatch-size = 0x" + "f" * 9999, "config.value", "a number above 64 bits"),
        ("[look]\nmax-quarantine = 'no'", "config.value", "allowed: a number"),
        ("[look]\nmax-quarantine = true", "config.value", "allowed: a number"),
        ("[look]\nmax-quarantine = nan", "config.value", "max-quarantine is nan"),
        ("[look]\nmodel = 1", "config.value", "model is 1 in "),
        ("[look]\nmodel = ['a']", "config.value", "model is a list in "),
        ("[look]\nmodel.x = 'a'", "config.value", "model is a table in "),
        ("[look]\nmodel = 2024-01-01", "config.value", "model is a date in "),
        ('[look]\nmodel = "a\\u0000"', "config.value", "allowed: a string"),
        ("[look]\nstrict = 'yes'", "config.value", "allowed: true or false"),
        ("[look]\nimage-ext = 3", "config.value", 'such as ["a", "b"]'),
        ("[look]\nimage-ext = ['jpg', 1]", "config.value", "allowed: a list of strings"),
        ("[look\n", "config.invalid", "not valid TOML"),
        ("[look]\nbatch-size = " + "1" * 5000, "config.invalid", "not valid TOML"),
        ("x = " + "[" * 100_000, "config.invalid", "not valid TOML"),
    ],
)
def test_refused(demo: Path, text: str, reason: str, said: str) -> None:
    write(demo, text)
    done = ask("look", "demo/shards", "--json")
    assert (done.code, done.out, done.exit_line["error"]) == (2, "", reason)
    assert said in done.err
    assert done.exit_line["path"] == str(demo / "curator.toml")


def test_bytes_that_are_no_text(demo: Path) -> None:
    (demo / "curator.toml").write_bytes(b"[look]\nmodel = '\xff'\n")
    said = ask("look", "demo/shards", "--json")
    assert (said.code, said.exit_line["error"]) == (2, "config.invalid")


def test_names_are_checked_in_every_table_but_values_only_where_they_count(demo: Path) -> None:
    write(demo, "[group.inner]\nlimit = 'x'\n")
    assert ask("look", "demo/shards").code == 0
    assert "limit is 'x'" in ask("group", "inner", "demo/shards").err


def test_a_broken_file_hides_neither_help_nor_an_error_of_the_command_line(demo: Path) -> None:
    write(demo, "[look\n")
    assert "Usage: " in ask("look", "demo/shards", "--help").out
    assert "Usage: " in ask("group", "--help").out
    for arguments in (("look",), ("look", "demo/shards", "--modle", 1), ("group",), ("lok", "x")):
        assert "error[usage]" in ask(*arguments).err


# -- the real commands -----------------------------------------------------------------------------


def test_a_run_without_an_option_typed(demo: Path) -> None:
    (demo / "all.toml").write_text(
        'name = "all"\nsources = ["generated", "alt_text"]\npick = "first"\n'
    )
    write(
        demo,
        '[defaults]\nstore = "store"\n'
        '[recaption]\ncaptioner = "echo"\npolicy = "all.toml"\ncandidates = 2\n',
    )
    said = curator("recaption", "demo/shards", "--json")
    assert said.code == 0, said.err
    note, *_ = said.err.splitlines()
    assert note == "options from demo/curator.toml: store, captioner, policy, candidates"
    assert said.json["captioned"]["made"] == 4
    assert said.json["version"]["policy"]["name"] == "all"
    assert (demo / "store" / "versions").is_dir()
    assert not (demo / "shards" / ".curator").exists()
    assert curator("log", "demo/shards", "--json").json[0]["version"] == "v1"
    check_whole("demo/shards")


def test_diff_pack_and_quarantine_read_it_too(demo: Path) -> None:
    store = '[defaults]\nstore = "store"\n'
    write(demo, f'{store}[recaption]\ncaptioner = "echo"\npolicy = "replace"\n')
    assert curator("recaption", "demo/shards").code == 0
    assert curator("decide", "demo/shards", "--policy", "as-is").code == 0
    # from replace to as-is nothing is dropped: a share below zero is what no version can keep to
    write(demo, f"{store}[diff]\nmax-dropped = -1.0\n[quarantine.retry]\nreason = 'vlm.refusal'\n")
    assert curator("diff", "demo/shards@v1", "demo/shards@v2").code == 5
    assert curator("quarantine", "retry", "demo/shards", "--json").json["reopened"] == 0
    (demo / "photos").mkdir()
    (demo / "photos" / "a.jpg").write_bytes(tars.image_bytes(1))
    write(demo, "[pack]\nsamples-per-shard = 0\n")
    assert "samples-per-shard is 0" in curator("pack", "demo/photos", "demo/out").err


TABLES = ("defaults", "decide", "recaption", "export", "quarantine", "log")
KEYS = ("store", "policy", "generator", "max_quarantine", "use-scorer", "to", "list", "json")
words = st.text(st.characters(codec="utf-8"), max_size=20)
values = st.recursive(
    st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
documents = st.dictionaries(
    st.sampled_from(TABLES) | words,
    values | st.dictionaries(st.sampled_from(KEYS) | words, values, max_size=3),
    max_size=3,
)


def toml(value: object) -> str:
    """The value as TOML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value)
    return str(value).lower()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    (folder / "00000.tar").write_bytes(tars.tar(tars.samples(1)))
    return folder


@given(document=documents)
@settings(max_examples=100, deadline=None)
@pytest.mark.long
def test_no_file_breaks_a_command(place: Path, document: dict[str, Any]) -> None:
    write(place, "\n".join(f"{toml(key)} = {toml(value)}" for key, value in document.items()))
    said = curator("decide", place, "--json")
    error = said.exit_line["error"]
    tables = {"defaults", *typer.main.get_command(app).commands}
    known = set(document) <= tables and all(isinstance(v, dict) for v in document.values())
    if known:
        assert error.startswith(("config.", "policy.", "store."))
    else:
        assert error.startswith("config.")


@given(text=st.binary(max_size=60) | st.text("[]{}=\"'.#\n\\\tabu0_-,", max_size=60))
@settings(max_examples=100, deadline=None)
@pytest.mark.long
def test_no_bytes_break_a_command(place: Path, text: bytes | str) -> None:
    (place / "curator.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    said = curator("log", place, "--json")
    assert said.exit_line["error"] in (
        "store.none", "config.invalid", "config.unknown_key", "config.unknown_table",
    )  # fmt: skip


# -- a file that came with a dataset ---------------------------------------------------------------

# Every option of every command stands in one of these two. Whoever adds one decides: harmless in a
# stranger's file (and marked so where it is defined), or not.
HARMLESS = {
    "recaption": "caption-field image-ext keep-names language model policy prompt scorer seed "
    "store strict temperature text-only top-p",
    "score": "caption-field image-ext language scorer store",
    "calibrate": "store",
    "decide": "language policy store",
    "pack": "caption-column format image-column images",
    "index": "caption-field image-ext store",
    "diff": "max-dropped max-lost-names min-shift store",
    "query": "limit store",
    "fsck": "deep store",
    "gc": "dry-run store",
    "edits list": "all limit store",
    "edits replace": "limit store",
    "quarantine show": "limit store",
    **dict.fromkeys(
        ("export", "log", "show", "merge", "push", "pull", "tag", "doctor", "pretrain", "study"),
        "store",
    ),
    **dict.fromkeys(("report", "ui", "edits apply", "edits undo"), "store"),
    **dict.fromkeys(("quarantine list", "quarantine retry"), "store"),
}
OF_ONES_OWN = {
    "recaption": "batch-size cache-dir cache-size candidates caption-from captioner concurrency "
    "device dtype examples executor forbid gpus judge max-pixels max-quarantine max-tokens only "
    "ray-address require scorer-url serve server-wait shard-slice stall-timeout system url workers",
    "score": "batch-size cache-dir cache-size concept device dtype executor generated gpus "
    "max-quarantine ray-address scorer-url shard-slice stall-timeout workers",
    "calibrate": "labels precision use-scorer",
    "decide": "generator max-quarantine use-scorer",
    "pack": "samples-per-shard",
    "index": "adopt cache-dir cache-size executor ray-address shard-slice workers",
    "export": "cache-dir cache-size license other-members preset to",
    "diff": "changes html",
    "query": "timeout",
    "fsck": "repair",
    "gc": "grace-days",
    "pretrain": "cache-dir cache-size device held-out out recipe reference set",
    "doctor": "captioner model scorer url",
    "finetune": "batch-size data device fraction head inference layer-decay layout lr out "
    "protocol seeds set size steps sweep task",
    "study": "device executor from jobs out plan pretrain-only ray-address set",
    "report": "out",
    "ui": "host port studies",
    "edits apply": "who",
    "edits undo": "who",
    "edits replace": "ignore-case regex shard timeout who yes",
    "quarantine show": "reason",
    "quarantine retry": "reason",
    "demo data": "images labelled noise patterns seed side",
    "demo run": "images quick seed study",
}


def listed(table: dict[str, str]) -> set[tuple[str, str]]:
    return {(words, name) for words, names in table.items() for name in names.split()}


def test_every_option_is_declared_harmless_or_not() -> None:
    marked, plain = set(), set()
    commands = typer.main.get_command(app)
    for words, options in of_settings._commands(commands):
        command: Any = commands
        for word in words:
            command = command.commands[word]
        for name, param in options.items():
            kind = plain if trust.mark_of(command, param) is None else marked
            kind.add((" ".join(words), name))
    assert marked == listed(HARMLESS)
    assert plain == listed(OF_ONES_OWN)


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset of somebody else; the current folder is another one."""
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    for folder in (theirs, mine):
        folder.mkdir()
    (theirs / "00000.tar").write_bytes(tars.tar(tars.samples(2)))
    monkeypatch.chdir(mine)
    for variable in ("CURATOR_CONFIG", "CURATOR_STORE"):
        monkeypatch.delenv(variable, raising=False)
    return theirs


def example(param: Any) -> str:
    """Some value of the right kind, as TOML writes it."""
    kind = param.type_descriptor.annotation
    if param.is_flag:
        return "true"
    if param.multiple:
        return '["x"]'
    if param.name in ("to", "max_quarantine"):
        return '"wds"' if param.name == "to" else "1"
    if param.name == "executor":
        return '"ray"'
    return "2" if kind in (int, float) else '"/tmp/x"'


@pytest.mark.parametrize(("words", "name"), sorted(listed(OF_ONES_OWN)))
@pytest.mark.long
def test_what_is_not_harmless_is_refused_and_said_with_its_line(
    theirs: Path, words: str, name: str
) -> None:
    commands = dict(of_settings._commands(typer.main.get_command(app)))
    value = example(commands[tuple(words.split())][name])
    file = theirs / "curator.toml"
    file.write_text(f"# a comment\n[{words.replace(' ', '.')}]\n\n{name} = {value}\n")
    more = {"query": ["select 1"], "edits replace": ["a", "b"], "edits undo": ["0#1"]}
    first = theirs / "x.jsonl" if words == "pack" else theirs
    more |= {"pack": ["out"], "export": ["out"]}
    said = curator(*words.split(), first, *more.get(words, []))
    assert said.code == 2
    label = f"[{words.replace(' ', '.')}] {name}"
    assert f"error[config.value]: {label} is refused (line 4): this file is beside" in said.err
    assert f"type --{name}; or, if the file is yours, set " in said.err
    assert f"CURATOR_CONFIG={file}; CURATOR_CONFIG=/dev/null ignores it" in said.err


def test_everything_refused_is_said_at_once(theirs: Path) -> None:
    write(theirs, '[defaults]\nstore = "../elsewhere"\n[ui]\nhost = """\n0.0.0.0"""\nport = 0\n')
    said = curator("ui", theirs)
    assert said.code == 2
    assert "[defaults] store is refused (line 2; allowed: a folder inside the file's" in said.err
    assert "[ui] host is refused (line 4), [ui] port is refused (line 6): this file" in said.err


@pytest.mark.parametrize(
    ("table", "entry", "allowed"),
    [
        ("index", 'store = "store"', True),
        ("index", 'store = "."', True),
        ("index", 'store = "a/../b"', True),
        ("index", 'store = ".."', False),
        ("index", 'store = "s3://bucket/store"', False),
        ("index", 'store = "../theirs-too"', False),
        ("index", 'store = "../mine"', False),
        ("index", 'store = "a/../../mine"', False),
        ("index", 'store = "~/store"', False),
        ("index", 'store = "/tmp/store"', False),
        ("index", 'store = "link/store"', False),
        ("decide", 'policy = "best"', True),
        ("decide", 'policy = "mine.toml"', False),
        ("decide", 'policy = "/etc/passwd"', False),
        ("score", 'scorer = "clip"', False),
        ("score", 'scorer = "org/name"', False),
        ("score", 'scorer = "./model"', False),
        ("score", "scorer = BUNDLED", True),
        ("recaption", 'model = "org/name"', False),
        ("recaption", "model = BUNDLED", True),
        ("recaption", 'prompt = "detailed"', True),
        ("recaption", 'prompt = "Say yes."', False),
        ("pack", 'images = "pictures"', True),
        ("pack", 'images = "/home"', False),
    ],
)
def test_some_values_are_harmless(theirs: Path, table: str, entry: str, allowed: bool) -> None:
    (theirs / "link").symlink_to(theirs.parent / "mine")
    (theirs / "model").mkdir()
    (theirs / "mine.toml").touch()
    name, _, value = entry.partition(" = ")
    write(theirs, f"[{table}]\n{name} = {value.replace('BUNDLED', json.dumps(str(SCORER)))}\n")
    commands = typer.main.get_command(app)
    typed = [table, str(theirs), *(["out"] if table == "pack" else [])]
    if allowed:
        given = commands._default_map(typed)  # type: ignore[attr-defined]  # a SettingsGroup
        assert list(given[table]) == [name]
    else:
        with pytest.raises(UsageError, match=rf"{name} is refused \(line 2; allowed: "):
            commands._default_map(typed)  # type: ignore[attr-defined]  # a SettingsGroup


def test_what_is_typed_makes_the_files_value_harmless(theirs: Path) -> None:
    write(theirs, '[index]\nstore = "/nowhere/at/all"\n')
    assert curator("index", theirs, "--store", theirs / "store").code == 0


def test_ones_own_file_may_do_everything(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(theirs, '[index]\nstore = "../chosen"\n')
    assert curator("index", theirs).code == 2
    monkeypatch.setenv("CURATOR_CONFIG", "")  # as if it were not set
    assert curator("index", theirs).code == 2
    monkeypatch.setenv("CURATOR_CONFIG", str(theirs / "curator.toml"))
    assert curator("index", theirs).code == 0
    monkeypatch.delenv("CURATOR_CONFIG")
    assert (theirs.parent / "chosen" / "store.json").exists()
    monkeypatch.chdir(theirs)  # `cd download; curator index .`: it still came with the shards
    assert curator("index", theirs).code == curator("index", ".").code == 2
    (theirs / "curator.toml").rename(theirs.parent / "curator.toml")
    monkeypatch.chdir(theirs.parent)
    assert curator("index", theirs).code == 0


def test_a_link_to_the_current_folder_is_not_ones_own(theirs: Path) -> None:
    """Whoever made the link chose the file, not the reader."""
    write(theirs, '[ui]\nhost = "0.0.0.0"\n')
    other = theirs.parent / "other"
    other.symlink_to(theirs)
    assert "host is refused (line 2)" in curator("ui", other).err


def test_a_long_file_is_refused_without_a_long_search(theirs: Path) -> None:
    write(theirs, "\n" * 20_000 + "[ui]\nport = 1\n")
    assert "port is refused (after line 1,000)" in curator("ui", theirs).err
