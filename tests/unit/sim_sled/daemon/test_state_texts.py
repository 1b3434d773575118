"""Every text of a state is shown with its field, in whatever row it stands; what the program calls its own stays."""

import base64
import json
import re
from collections import OrderedDict, deque
from ipaddress import ip_address, ip_network
from uuid import UUID

import pytest

from nexus_client.backoff import Jitter
from nexus_client.dropshot.text import U64, Scalar
from nexus_client.outbox import Permanent, Submit
from nexus_client.types import SledVmmState, VmmRuntimeState, VmmState, time_of
from sim_sled.core.networking.values import Router
from sim_sled.daemon.graph import BadTable, pack, unpack
from sim_sled.daemon.scrubbing import words
from sim_sled.daemon.state_texts import replaced
from sim_sled.engine.cast import Cast, SledInfo, Subject
from sim_sled.recording.scrub import Names

VMM = UUID("92eb7d61-3ffc-55f4-8bcf-69a4c389ed81")
SECRETS = [f"planted{letter}" for letter in "abcdefghijklmnopqrst"]


def everything():
    """All kinds of rows with texts in them."""
    secret = iter(SECRETS)
    cast = Cast()
    cast.join(next(secret), VMM)
    return {
        next(secret): next(secret),
        "list": [next(secret)],
        "tuple": (next(secret), 7),
        "set": {next(secret)},
        "frozenset": frozenset({next(secret)}),
        "deque": deque([next(secret)]),
        "odict": OrderedDict({next(secret): next(secret)}),
        "struct": Permanent(next(secret), 400),
        "object": SledInfo(next(secret), VMM),
        "bytes": next(secret).encode(),
        "scalar": Scalar(next(secret)),
        "marked": f"~enum {next(secret)}",
        "bytes of a text": [*next(secret).encode()],
        "json": json.dumps({"a": next(secret)}),
        "nested": [({next(secret): [next(secret)]},)],
        "method": [next(secret)].append,
        "cast": cast,
    }


def readable(value):
    """As text, with bytes and numbers that spell one in clear."""
    text = str(value)
    for each in re.findall(r"\['bytes', '([^']*)'\]", text):
        text += base64.b64decode(each).decode()
    for each in re.findall(r"\[(?:'list', )?((?:\d+, )+\d+)\]", text):
        text += bytes(int(one) % 256 for one in each.split(", ")).decode("latin-1")
    return text


def names_of(table):
    names = Names(words(), b"a key of this test")

    def see(told, field):
        for each in told if isinstance(told, list) else [told]:
            if isinstance(each, str):
                names.see_text(each, field)
        return told

    assert replaced(table, see) == table, "to look at it changes nothing"
    return names.stand_ins()


def scrubbed(value):
    """The value again, and what stands for what."""
    table = pack(value, {})
    known = names_of(table)
    made = replaced(table, known.in_state)
    return made, known


def test_a_text_is_replaced_in_whatever_it_stands():
    value = everything()
    before = readable(pack(value, {}))
    made, _ = scrubbed(value)
    assert [each for each in SECRETS if each not in before] == [], "this test would not notice much"
    assert [each for each in SECRETS if each in readable(made)] == []
    again = unpack(made, {})
    assert [type(each) for each in again.values()] == [type(each) for each in value.values()]
    assert again["marked"].startswith("~enum ")


def test_what_the_program_calls_its_own_and_what_is_counted_stays():
    value = [
        VmmState.RUNNING, Jitter, time_of(5), 1.5, None, True, range(3), 2**63, U64(512), Router,
        ip_network("fd00::/8"), ip_address("::1"), {"ncpus": 4}, [1, 2, 3], "running -> stopped",
    ]  # fmt: skip
    made, _ = scrubbed(value)
    assert unpack(made, {}) == value


def test_an_id_has_the_same_stand_in_also_as_a_number_and_another_large_number_stays():
    counts = 340282367000166625996085689103316680706
    body = SledVmmState(VmmRuntimeState(VmmState.RUNNING, 3, time_of(0)))
    value = {
        "submit": Submit(VMM, body),
        "by number": {VMM.int: "x"},
        "text": f"sim-{VMM}",
        "counts": counts,
        "far": 1 << 200,
    }
    made, known = scrubbed(value)
    again = unpack(made, {})
    stand_in = known.uuids[VMM]
    assert stand_in != VMM
    assert again["submit"].propolis_id == stand_in
    assert again["by number"] == {stand_in.int: "x"}
    assert again["text"] == f"sim-{stand_in}"
    assert (again["counts"], again["far"]) == (counts, 1 << 200)


def test_a_host_that_is_called_like_a_word_of_the_program_has_another_name_wherever_it_is_counted():
    cast = Cast()
    sled = SledInfo("sled-1", UUID(int=1))
    cast.add(lambda n, key: Subject(VMM, n, key, sled, VMM, "running", 1, 1, (), (), asked="running"), "running")
    made, known = scrubbed(cast)
    again = unpack(made, {})
    [who] = again.subjects.values()
    assert who.hostname not in ("running", "")
    assert who.key == f"{who.hostname}/1"
    assert again._incarnations == {who.hostname: 1}
    assert who.asked == "running", "a word of the program"
    assert known.key(("chance/late", "running/1", 0)) == ("chance/late", who.key, 0)


@pytest.mark.parametrize("row", [["no such row", "x"], []])
def test_a_table_that_nobody_of_us_wrote_is_refused(row):
    with pytest.raises((BadTable, ValueError)):
        replaced([row], lambda told, _field: told)
