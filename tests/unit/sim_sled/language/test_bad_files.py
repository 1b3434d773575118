"""Every mistake one can make in a scenario is told with its code, its place and what to write instead.

Each code has `tests/bad/<code>.yaml` and the expected text beside it; `SIM_SLED_UPDATE=1` rewrites the texts.
"""

import os
import re
from functools import cache
from pathlib import Path

from support.rows import in_one_test

from sim_sled.cli.scenario_commands import RunOptions, run_files
from sim_sled.cli.scenario_texts import check_files
from sim_sled.language.check import parse_scenario
from sim_sled.language.codes import CODES, RUN_CODES

BAD = Path(__file__).parents[3] / "bad"
FILES = sorted(BAD.glob("*.yaml"))


@in_one_test("path", FILES, ids=lambda p: p.stem)
def test_a_mistake_is_told_as_written_down(path, monkeypatch):
    monkeypatch.chdir(BAD)
    text, code = check_files([path.name])
    golden = path.with_suffix(".txt")
    if os.environ.get("SIM_SLED_UPDATE"):
        golden.write_text(text)
    assert text == golden.read_text()
    assert code == (0 if text.rstrip().split("\n")[-1].startswith("0 errors") else 2)


@in_one_test("code", sorted(CODES))
def test_every_code_has_a_file_that_shows_it(code):
    if code in RUN_CODES:
        outcome = run_files([str(BAD / f"{code}.yaml")], RunOptions(seed=1))
        assert f"{code}.yaml:" in outcome.out
        assert f": {code} " in outcome.out
        return
    told = (BAD / f"{code}.txt").read_text()
    assert re.search(rf"^{code}\.yaml(:\d+:\d+)?: {code} ", told, re.MULTILINE)


def test_a_caret_stands_under_what_is_wrong(monkeypatch):
    monkeypatch.chdir(BAD)
    text, _ = check_files(["E102.yaml"])
    head, line, caret = text.splitlines()[3:6]
    _, _, column, _ = head.split(":", 3)
    assert caret.index("^") == len("    7 | ") + int(column) - 1
    assert line[caret.index("^") : caret.rindex("^") + 1] == "dealy"


def test_all_problems_of_all_files_come_in_one_go(monkeypatch):
    monkeypatch.chdir(BAD)
    text, code = check_files(["E253.yaml", "E180.yaml", "W302.yaml"])
    assert code == 2
    assert re.findall(r"^(\w+)\.yaml:\d+:\d+: [EW]", text, re.MULTILINE) == (["E253"] * 3 + ["E180"] * 3 + ["W302"])
    assert text.endswith("6 errors, 1 warning\n")


def test_a_file_with_five_mistakes_shows_five(monkeypatch):
    monkeypatch.chdir(BAD)
    text, code = check_files(["five-mistakes.yaml"])
    assert code == 2
    assert text.endswith("5 errors, 0 warnings\n")
    assert len(re.findall(r"^five-mistakes\.yaml:\d+:\d+: E\d{3} ", text, re.MULTILINE)) == 5


def test_check_as_json_holds_the_same_findings(monkeypatch):
    import json

    monkeypatch.chdir(BAD)
    text, code = check_files(["E102.yaml"], as_json=True)
    document = json.loads(text)
    assert code == 2
    assert document["errors"] == len(document["problems"])
    assert {"file": "E102.yaml", "line": 7, "col": 5, "code": "E102"}.items() <= document["problems"][1].items()


_KEY = re.compile(r"^(?P<before>\s*(?:- )?(?:\{)?)(?P<key>\w+)(?P<rest>:.*)$")


def keys_of(lines):
    """(number of the line, its parts, the names of the key and of all that it stands below)."""
    above = []
    for at, line in enumerate(lines):
        found = _KEY.match(line)
        if found is not None:
            above = [(indent, key) for indent, key in above if indent < len(found["before"])]
            above.append((len(found["before"]), found["key"]))
            yield at, found, tuple(key for _, key in above)


LIBRARY = sorted((BAD.parents[1] / "scenarios").glob("*.yaml"))


@cache
def first_of_each_key():
    """Of each key of the library, wherever it stands, the first line that has it: (file, number of the line)."""
    return {key: (file, at) for file in reversed(LIBRARY) for at, _, key in reversed([*keys_of(lines_of(file))])}


def lines_of(file):
    return file.read_text(encoding="utf-8").split("\n")


@in_one_test("file", LIBRARY, ids=lambda file: file.stem)
def test_a_typo_in_any_key_and_a_name_that_is_none_have_a_place(file):
    # a rule whose name is broken is still looked for by what refers to it
    lines = lines_of(file)
    text = "\n".join(lines)
    for at, found, path in keys_of(lines):
        before, key, rest = found["before"], found["key"], found["rest"]
        is_referred_to = key == "name" and len(re.findall(rf"\b{re.escape(rest[1:].strip(' }'))}\b", text)) > 1
        if not is_referred_to and first_of_each_key()[path] != (file, at):
            continue
        broken = [f"{before}{key[:-1]}zz{rest}"]
        broken += [f"{before}name: {value}" for value in ("null", "[]", "''")] if key == "name" else []
        for each in broken:
            scenario, problems = parse_scenario("\n".join([*lines[:at], each, *lines[at + 1 :]]), "scenario")
            assert scenario is None, each
            assert re.match(r"scenario:\d+:\d+: ", problems.text()), each
