"""The words that a scrubbed recording keeps are those of the program that runs."""

import re
from enum import Enum

from support.rows import in_one_test

from nexus_client import types
from nexus_client.stub import records
from propolis_stub import types as propolis_types
from sim_sled.core import errors, happenings
from sim_sled.daemon.scrubbing import _texts_of, words
from sim_sled.http.operations import ROUTER
from sim_sled.language import words as language
from sim_sled.recording.names import is_ours

PROGRAM = '''
"""Only for people: aardvark."""
import badger as imported
from camel import (dromedary)

FENNEC: "annotated" = 1

def gecko(hoopoe):
    """Only for people: ibex."""
    jackal = f"kudu {hoopoe} lemur"
    return "marmot" in {"narwhal", "ocelot"} or jackal

class Puffin:
    """Only for people: quokka."""
    racoon = ("serval", ("tapir",))
    """Only for people: urial."""
    viper = lambda: "wombat"
'''
SAID = {"fennec", "gecko", "jackal", "kudu", "lemur", "marmot", "narwhal", "ocelot"}
SAID |= {"puffin", "racoon", "serval", "tapir", "viper", "wombat"}
NOT_SAID = {"aardvark", "badger", "camel", "dromedary", "imported", "hoopoe", "ibex", "quokka", "urial"}


def test_texts_and_names_are_words_of_a_program_and_what_people_read_is_not():
    found = {each.lower() for text in _texts_of(compile(PROGRAM, "program", "exec")) for each in text.split()}
    assert found >= SAID
    assert not found & NOT_SAID


def in_words(text):
    return {each.lower() for each in re.findall(r"[^\W\d_]+", text)}


@in_one_test("module", [types, propolis_types, records, errors, happenings, language])
def test_every_member_of_a_table_is_kept(module):
    for name, kind in vars(module).items():
        if isinstance(kind, type) and is_ours(kind.__module__):
            assert in_words(name) <= words()
            if issubclass(kind, Enum):
                for member in kind:
                    assert in_words(member.name) | in_words(str(member.value)) <= words()


def test_every_field_and_operation_is_kept():
    for kind in vars(types).values():
        for field in getattr(kind, "__struct_fields__", ()):
            assert in_words(field) <= words()
    routes = ROUTER.routes
    assert len(routes) > 100
    for route in routes:
        assert in_words(route.op or "") | in_words(route.template) <= words()
