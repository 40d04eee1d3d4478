"""Defaults from triform.toml and the environment: which count, what is refused, and what says where one is from."""

from __future__ import annotations

import json
import os
import sys

import pytest

from tests.helpers.commands import one_line
from triform.cli.command_table import CONFIGURABLE, load_command
from triform.cli.configuration.allowed import may_have_default, names_of, options_of
from triform.cli.configuration.files import settings_files


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Writes the file of the working folder, and the user's."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "here").mkdir()
    (tmp_path / "config" / "triform").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")

    def write(local=None, user=None):
        for folder, content in (("here", local), ("config/triform", user)):
            if content is not None:
                (tmp_path / folder / "triform.toml").write_text(content)
        return tmp_path / "here" / "triform.toml", tmp_path / "config" / "triform" / "triform.toml"

    return write


@pytest.fixture
def width(call, sentence_bundle):
    """The numbers of a vector, and what is said, for some options."""

    def embed(*options):
        code, out, err = call("embed", sentence_bundle, "snow", *options)
        assert code == 0, err
        return len(json.loads(out)["embedding"]), err

    return embed


def test_the_command_line_counts_most_then_the_environment_then_the_nearest_file(files, width, monkeypatch):
    assert width() == (48, "")
    local, _ = files(user="[embed]\ndimensions = 7\n")
    assert width() == (7, "")
    files(local="threads = 1\n[embed]\ndimensions = 5\n")
    # A file that came with a folder may be unknown to whoever works there.
    assert width() == (5, f"note: {local} sets embed.dimensions, threads\n")
    monkeypatch.setenv("TRIFORM_EMBED_DIMENSIONS", "3")
    assert width() == (3, f"note: {local} sets threads\n")
    assert width("--dimensions", 2, "--threads", 1) == (2, "")


def test_a_command_s_own_table_and_variable_count_more_than_what_all_share(files, call, sentence_bundle, monkeypatch):
    def threads():
        return call("embed", sentence_bundle, "snow")[2].splitlines()[-1].partition("not ")[2]

    local, user = files(user="threads = -1\n[embed]\nthreads = -2\n[generate]\nthreads = -9\n")
    assert threads() == f"-2 (--threads is set by embed.threads in {user})"
    # Each file counts as a whole.
    files(local="threads = -3\n")
    assert threads() == f"-3 (--threads is set by threads in {local})"
    monkeypatch.setenv("TRIFORM_THREADS", "-4")
    assert threads() == "-4 (--threads is set by TRIFORM_THREADS)"
    monkeypatch.setenv("TRIFORM_EMBED_THREADS", "-5")
    assert threads() == "-5 (--threads is set by TRIFORM_EMBED_THREADS)"


def test_the_commands_of_batch_have_tables_of_their_own(files, call, sentence_bundle, tmp_path, monkeypatch):
    local, _ = files(local="[batch.embed]\nblock-rows = 0\n[embed]\ndimensions = 5\n")
    (tmp_path / "a.txt").write_text("snow\n")
    asked = ("batch", "embed", sentence_bundle, "--input", tmp_path / "a.txt", "--output", tmp_path / "out")
    code, _, err = call(*asked)
    assert code == 2
    origin = f"(--block-rows is set by batch.embed.block-rows in {local})"
    assert err.splitlines()[-1] == f"error: --block-rows must be at least 1, not 0 {origin}"
    monkeypatch.setenv("TRIFORM_BATCH_EMBED_BLOCK_ROWS", "8")
    assert call(*asked)[0] == 0


def test_options_that_conflict_say_where_they_are_from(files, call, tmp_path):
    local, _ = files(local='[generate]\nregex = "a+"\nbad-words = ["x", "y z"]\n')
    code, _, err = call("generate", tmp_path / "bundle", "snow", "--choices", "a,b")
    assert code == 2
    assert err.splitlines() == [
        f"note: {local} sets generate.bad-words, generate.regex",
        "error: --regex and --choices cannot be used together; leave one out "
        f"(--regex is set by generate.regex in {local})",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[embd]\ndimensions = 2\n", "[embd] is no command's table; did you mean embed?"),
        ("[doctor]\njson = true\n", "[doctor] is no command's table"),
        ("[batch.search]\ntop-k = 2\n", "[batch.search] is no command's table"),
        ("[batch]\nthreads = 2\n", "[batch.threads] is no command's table"),
        ("embed = 2\n", "embed must be a table, [embed], not 2"),
        ("dimensions = 2\n", "dimensions must be in a command's table; before the tables go provider, threads"),
        ("[embed]\ndimension = 2\n", "[embed] dimension: there is no such option; did you mean dimensions?"),
        ("[embed]\nimages.x = 2\n", "[embed] images: there is no such option; did you mean image?"),
        ('[embed]\ndimensions = "2"\n', "[embed] dimensions must be a whole number, not '2'"),
        ("[embed]\ndimensions = 2.0\n", "[embed] dimensions must be a whole number, not 2.0"),
        ("[embed]\ndimensions = true\n", "[embed] dimensions must be a whole number, not true"),
        ("[embed]\nstrict = 1\n", "[embed] strict must be true or false, not 1"),
        ("[embed]\nprompt = 2\n", "[embed] prompt must be a text, not 2"),
        ("threads = true\n", "threads must be a whole number, not true"),
        ('[embed]\nfile = "/etc/passwd"\n', "[embed] file can only be given on the command line; remove it"),
        ("[embed]\ndimensions = \n", "is not TOML: Invalid value (at line 2, column 14)"),
        ("x = " + "[" * 5000, "is nested too deeply"),
        ("#" * 2**20 + "\n", "is larger than 1048576 bytes"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_its_name(files, call, sentence_bundle, content, message):
    local, _ = files(local=content)
    code, out, err = call("embed", sentence_bundle, "snow")
    assert (code, out) == (2, "")
    assert one_line(err).startswith(f"error: {local}") and message in err


def test_lists_and_texts_that_are_not_text(files, call):
    local, _ = files(local='[generate]\nstop = "a"\n')
    assert f"{local}: [generate] stop must be a list, with a text for each, not 'a'" in call("generate", "b", "c")[2]
    files(local='[generate]\nstop = ["a", 1]\n')
    assert "stop must be a text, not 1" in call("generate", "b", "c")[2]
    # A byte-order mark, as editors on Windows put first, is no setting.
    local.write_bytes(b'\xef\xbb\xbf[generate]\nstop = ["a", 1]\n')
    assert "stop must be a text, not 1" in call("generate", "b", "c")[2]
    local.write_bytes(b"# \xff\n")
    assert f"{local} is not UTF-8 text" in one_line(call("generate", "b", "c")[2])
    # Other commands, and pages of help of none, do not read it.
    assert call("--help")[0] == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("TRIFORM_EMBED_DIMENSION", "is set, but there is no such option; correct the name, or unset it"),
        ("TRIFORM_EMBED_OUTPUT", "is set, but that option can only be given on the command line; unset it"),
        ("TRIFORM_EMBED_DIMENSIONS", "--dimensions is set by TRIFORM_EMBED_DIMENSIONS"),
    ],
)
def test_variables_that_are_wrong(call, monkeypatch, name, message):
    monkeypatch.setenv(name, "x")
    code, _, err = call("embed", "bundle", "snow")
    assert code == 2
    assert name in err and message in one_line(err)
    # They are of no other command.
    assert "bundle does not exist" in call("classify", "bundle", "snow")[2]


def test_the_bundle_of_the_environment_is_no_option(call, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIFORM_BUNDLE", str(tmp_path))
    for command in ("inspect", "verify"):
        assert "is not a bundle" in one_line(call(command)[2])


def test_a_variable_of_a_command_with_a_longer_name(call, monkeypatch):
    monkeypatch.setenv("TRIFORM_CLASSIFY_IMAGE_TOP_K", "2")
    assert "bundle does not exist" in one_line(call("classify", "bundle", "snow")[2])


def test_doctor_lists_the_files_and_what_they_set(files, call):
    local, user = files(
        local="[embed]\ndimensions = 2\n[batch.embed]\nblock-rows = 3\n", user="threads = 2\n[export]\nforce = true\n"
    )
    code, out, _ = call("doctor")
    assert code == 1
    lines = [line for line in out.splitlines() if line.startswith("settings ")]
    assert [line.split(maxsplit=2) for line in lines] == [
        ["settings", str(local), "sets batch.embed.block-rows, embed.dimensions"],
        ["settings", str(user), f"{user}: [export] force can only be given on the command line; remove it"],
    ]
    user.write_text("threads = 2\n")
    found = json.loads(call("doctor", "--json")[1])["settings"]
    assert found[1] == {"file": str(user), "sets": ["threads"], "problem": None}


def every_option():
    """Each option of each command, once for each table it may stand in."""
    for table in sorted(CONFIGURABLE):
        command = load_command(table)
        yield from ((table, option) for option in {id(one): one for one in options_of(command).values()}.values())


def test_what_a_file_of_strangers_may_set():
    """No option that names a file or loads code, and of words only those that were thought about."""
    allowed = {names_of(option)[0] for _, option in every_option() if may_have_default(option)}
    refused = {names_of(option)[0] for _, option in every_option() if not may_have_default(option)}
    assert refused == {
        # Files and folders to read or write.
        *(
            "against",
            "draft",
            "encoder-file",
            "file",
            "grammar",
            "history",
            "index",
            "input",
            "json-schema",
            "key",
            "load",
            "output",
        ),
        *("plot", "prompt-cache", "queries", "requirements", "tools", "wheel", "image", "calibrate", "sbom"),
        # What a command is about.
        *("context", "word"),
        # Code, libraries and networks.
        *("trust-remote-code", "provider-option", "revision", "cluster", "extra", "platform", "python", "minimal"),
        # What replaces or continues, and what turns checks off.
        *("force", "resume", "verify", "fast", "skip-errors"),
        # What fills and empties the user's cache.
        *("for-this-machine", "remove"),
    }
    assert not allowed & refused
    for _, option in every_option():
        if type(option.type).__name__ in ("TyperPath", "Path", "File"):
            assert not may_have_default(option), option.name


def test_a_folder_that_may_not_be_entered(files, monkeypatch):
    def refuse(path, **options):
        raise PermissionError(13, "Permission denied", str(path))

    files(user="[")
    # The tests may run as root, who may enter every folder.
    monkeypatch.setattr(os, "stat", refuse)
    assert settings_files() == []


def test_where_the_user_s_file_is(monkeypatch, tmp_path):
    """As platformdirs has it: XDG's folder, macOS's, Windows'."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    places = {"linux": ".config", "darwin": "Library/Application Support", "win32": "local"}
    for platform, place in places.items():
        monkeypatch.setattr(sys, "platform", platform)
        assert settings_files() == []
        path = tmp_path / place / "triform" / "triform.toml"
        path.parent.mkdir(parents=True)
        path.touch()
        assert [(file.path, file.is_local) for file in settings_files()] == [(path, False)]
        monkeypatch.chdir(path.parent)
        # One that is both is the user's.
        assert [file.is_local for file in settings_files()] == [False]
        monkeypatch.chdir(tmp_path)
