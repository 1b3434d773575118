"""The page's files, and all of them in one."""

import base64
import hashlib
import json
import re

import pytest
from support.rows import in_one_test

from sim_sled.page import files

TOP_LEVEL = re.compile(r"^(?:export )?(?:async )?(?:function|class|const|let) (\w+)", re.MULTILINE)
IMPORT = re.compile(r"^import .*$", re.MULTILINE)


@pytest.fixture
def page():
    return files.in_one_file({"name": "x</script><script>alert(1)</script>", "events": []})


def scripts():
    return {name: text.decode() for name, text in files.static().items() if name.endswith(".js")}


def test_no_file_of_the_page_asks_for_anything_elsewhere():
    for name, text in files.static().items():
        found = re.findall(rb"(?:https?:)?//[a-z0-9.]+\.[a-z]{2,}[^\s\"']*", text)
        assert [each for each in found if b"www.w3.org" not in each] == [], name


@in_one_test("danger", ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "srcdoc"])
def test_no_text_ever_becomes_html(danger):
    assert [name for name, text in scripts().items() if danger in text] == []


def test_names_at_top_level_differ_between_modules_so_that_they_can_be_one_script():
    names = [name for text in scripts().values() for name in TOP_LEVEL.findall(text)]
    assert sorted(set(names)) == sorted(names)


def test_every_import_is_one_that_the_one_script_understands():
    for name, text in scripts().items():
        for line in IMPORT.findall(text):
            assert re.fullmatch(r'import \{[^}]*\} from "\./([a-z]+\.js)";', line), f"{name}: {line}"


def test_the_one_script_has_every_module_once_and_no_import_left():
    script = files.one_script()
    assert "\nimport " not in script
    assert not script.startswith("import ")
    assert "\nexport " not in script
    for text in scripts().values():
        for name in TOP_LEVEL.findall(text):
            assert len(re.findall(rf"^(?:async )?(?:function|class|const|let) {name}\b", script, re.MULTILINE)) == 1


def test_the_one_file_has_no_link_to_another(page):
    assert not re.findall(r"""(?:src|href)="(?!data:)[^"]*\"""", page)


def test_the_one_files_policy_allows_exactly_its_own_script_and_style(page):
    policy = re.search(r'content-security-policy" content="([^"]*)"', page)[1]
    script = re.search(r'<script type="module">(.*?)</script>', page, re.DOTALL)[1]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    for kind, text in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_what_came_with_the_run_stays_text(page):
    held = re.search(r'id="recording">(.*?)</script>', page, re.DOTALL)[1]
    assert "<" not in held
    assert json.loads(held)["name"] == "x</script><script>alert(1)</script>"
    assert page.count("<script") == 2


def test_the_served_policy_lets_nothing_in_and_nobody_frame_it():
    for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert part in files.POLICY
    assert "unsafe" not in files.POLICY
