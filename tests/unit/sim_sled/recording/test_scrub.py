"""A recording without personal things: nothing of what was planted is left, and what hung together still does."""

import base64
import json
import re
from ipaddress import ip_address, ip_network
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.profile import by_profile
from support.rows import in_one_test

from sim_sled.core.config import SledConfig
from sim_sled.daemon.scrubbing import words
from sim_sled.recording.forms import form, value_of
from sim_sled.recording.lines import Asked, Did, End, Header, Http, Turn, read, written
from sim_sled.recording.scrub import PERSONAL, Names, explicit

SLED = UUID("85bfe5dd-00f1-5990-92bc-0574666972cc")
KEY = "AAAAB3NzaC1yc2EAAAADAQABAAABAQC7vb0kq1XyVQ9Z"
PEM = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQ1p0\nZq81Yw==\n-----END CERTIFICATE-----\n"

WORDS = st.text("bcdfgklmprtvz", min_size=4, max_size=9).filter(lambda each: each not in words())
"""Names that are no words of the program."""
HOSTS = st.builds("{}-{}.{}".format, WORDS, st.integers(0, 999), WORDS)
SECRETS = st.one_of(
    WORDS,
    HOSTS,
    st.uuids(version=4).map(str),
    st.uuids(version=4).map(lambda each: each.hex),
    st.integers(10**7, 10**9).map("BRM{}".format),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.binary(min_size=30, max_size=60).map(lambda each: base64.b64encode(each).decode()).filter(
        lambda text: re.search("[A-Z]", text) and re.search("[a-z]", text) and re.search(r"\d", text)
    ),
    st.ip_addresses(v=4).filter(lambda each: each.is_global).map(str),
    st.ip_addresses(v=6, network="fd00::/8").map(str),
    st.binary(min_size=6, max_size=6).map(lambda each: each.hex(":").upper()),
    st.binary(min_size=6, max_size=6).filter(any).map(lambda each: each.hex("-")),
    st.ip_addresses(v=4).filter(lambda each: each.is_global).map(lambda each: f"ip-{each}".replace(".", "-")),
    st.builds("{}@{}.example".format, WORDS, WORDS),
)  # fmt: skip
MANY = st.lists(SECRETS, min_size=1, max_size=8, unique=True)


def names_of(*lines):
    names = Names(words(), b"a key of this test")
    for line in lines:
        names.see(line)
    return names.stand_ins()


def scrubbed(*lines):
    """The lines of the copy."""
    known = names_of(*lines)
    return [known.line(line) for line in lines]


def planted(secrets):
    """Every kind of line, with the secrets wherever a text may stand."""
    text = " and ".join(secrets)
    raised = {"Raised": ["X", text]}
    deep = {"any": secrets, "in": [{"there": each} for each in secrets], text: 1, "more": json.dumps({"x": secrets})}
    fields = {field: secrets[nth % len(secrets)] for nth, field in enumerate(sorted(PERSONAL))}
    data = base64.b64encode(json.dumps(secrets).encode()).decode()
    sled = SledConfig(SLED, address="[fd00:1122:3344:101::1]:12345")
    asked = {"sled_id": SLED, "op": "vmm_register", "method": "PUT", "version": "48.0.0", "status": 204}
    return [
        Header(recording=1, of="0", part=1, sleds=[form(sled)], files={"x.yaml": text}, plays=secrets[0]),
        Turn(at=1, item={**deep, "data": f"~bytes {data}", "raw": f"~raw {data}"}, out=[deep, raised]),
        Turn(at=2, item=fields, out=[fields], told=[["rule", "v1", secrets[0], text]]),
        Did(at=3, did={"kind": "keeps", "sled_id": str(SLED), "kept": deep}),
        Http(at=4, http=Asked(**asked, target=f"/vmms/{secrets[0]}?x={secrets[-1]}", body=deep)),
        Http(at=5, http=Asked(**asked, target="/", body_text=text)),
        Http(at=6, http=Asked(**asked, target="/", body_base64=data)),
        End(end=text),
    ]  # fmt: skip


def readable(line):
    """A line as written, and what of it is in base64."""
    text = written(line).decode()
    for each in re.findall(r"[0-9A-Za-z+/]{12,}={0,2}", text):
        try:
            text += base64.b64decode(each, validate=True).decode()
        except ValueError:
            continue
    return text


@pytest.mark.nightly
@given(MANY)
@settings(deadline=None, max_examples=by_profile(12, nightly=250))
def test_nothing_of_what_was_planted_anywhere_is_left(secrets):
    lines = planted(secrets)
    before = "".join(map(readable, lines))
    after = "".join(readable(line) for line in scrubbed(*lines)).lower()
    for each in (*secrets, str(SLED), "fd00:1122:3344:101::1"):
        assert each in before
        assert each.lower() not in after, each


@pytest.mark.nightly
@given(MANY)
@settings(deadline=None, max_examples=by_profile(20, nightly=400))
def test_the_same_thing_has_one_stand_in_and_two_things_have_two(secrets):
    turn = Turn(at=1, item=secrets, out=[[{"x": each} for each in secrets], " and ".join(secrets)])
    [made] = scrubbed(turn)
    assert made.out[0] == [{"x": each} for each in made.item]
    assert made.out[1] == " and ".join(made.item)
    assert len(set(made.item)) == len(secrets)


@pytest.mark.nightly
@given(st.lists(st.uuids(), min_size=1, max_size=30, unique=True))
@settings(deadline=None, max_examples=by_profile(20, nightly=400))
def test_ids_stay_ids_of_their_version_and_in_their_order(ids):
    known = names_of(Turn(at=1, item=list(map(str, ids)), out=[]))
    made = [UUID(known.text(str(each))) for each in sorted(ids)]
    assert made == sorted(made)
    assert [each.version for each in made] == [each.version for each in sorted(ids)]
    assert known.text(str(max(ids))[:8]) == str(made[-1])[:8], "as a log has it"


@pytest.mark.nightly
@given(st.lists(st.ip_addresses(), min_size=1, max_size=30, unique=True), st.integers(1, 127))
@settings(deadline=None, max_examples=by_profile(25, nightly=600))
def test_addresses_stay_of_their_kind_in_their_networks_and_in_their_order(addresses, bits):
    networks = {str(ip_network((each, min(bits, each.max_prefixlen)), strict=False)) for each in addresses}
    known = names_of(Turn(at=1, item=[*map(str, addresses), *networks], out=[]))
    made = {each: ip_address(known.text(str(each))) for each in addresses}
    assert len(set(made.values())) == len(made)
    for old, new in made.items():
        for kind in ("version", "is_loopback", "is_multicast", "is_link_local", "is_unspecified"):
            assert getattr(old, kind) == getattr(new, kind), kind
        for network in networks:
            if old.version == ip_network(network).version:
                assert (old in ip_network(network)) == (new in ip_network(known.text(network)))
    for version in (4, 6):
        olds = sorted((each for each in made if each.version == version), key=int)
        assert [made[each] for each in olds] == sorted((made[each] for each in olds), key=int)


def test_a_private_address_stays_private_and_an_oxide_mac_oxides():
    known = names_of(Turn(at=1, item=["10.1.2.3", "172.30.2.9", "192.168.1.7", "A8:40:25:F1:02:03"], out=[]))
    assert all(ip_address(known.text(each)).is_private for each in ("10.1.2.3", "172.30.2.9", "192.168.1.7"))
    assert re.fullmatch("A8:40:25(:[0-9A-F]{2}){3}", known.text("A8:40:25:F1:02:03"))


def test_a_host_that_is_called_like_a_word_of_the_program_is_another_there_and_the_word_stays():
    turn = Turn(at=1, item={"hostname": "running", "state": "running"}, out=["running-3 is running", "v2"])
    other = Turn(at=2, item={"hostname": "running-3"}, out=[])
    [made, again] = scrubbed(turn, other)
    assert made.item["state"] == "running"
    assert "running" not in (made.item["hostname"], again.item["hostname"])
    assert made.out == [f"{again.item['hostname']} is running", "v2"]


def test_what_is_not_personal_is_as_it_was():
    kept = {"at": "2026-11-28T18:28:00.657534Z", "n": 1099511627776, "version": "48.0.0", "sha": None, "ok": True}
    marked = [
        "~enum nexus_client.types:SledRole GIMLET",
        "~time 2026-11-28T18:28:00+00:00",
        "~class a.b:C",
        "[::1]:0",
    ]
    [made] = scrubbed(Turn(at=1, item=kept, out=[{"~": "sim_sled.core.contract:PutState"}, marked]))
    assert (made.item, made.out) == (kept, [{"~": "sim_sled.core.contract:PutState"}, marked])


def test_keys_are_as_long_as_they_were_and_of_the_same_letters():
    [made] = scrubbed(Turn(at=1, item=[KEY, PEM], out=[]))
    key, pem = made.item
    assert (len(key), len(pem)) == (len(KEY), len(PEM))
    assert base64.b64decode(key, validate=True)
    assert pem.startswith("-----BEGIN CERTIFICATE-----\n")


def kinds(text):
    """A text with one character for all of its kind."""
    return re.sub("[a-z]", "a", re.sub("[A-Z]", "A", re.sub("[0-9]", "0", text)))


@in_one_test("body", [f"/{KEY}\n", "/abcdefghijkl\n", "12qw\n", f"{KEY}\n/+/+\nqwerty==\n"])
def test_of_base64_nothing_is_taken_for_a_path_or_a_word(body):
    told = [f"-----BEGIN KEY-----\n{body}-----END KEY-----", f"at 7: /{KEY}"]
    [made] = scrubbed(Turn(at=1, item=told, out=[]))
    assert list(map(kinds, made.item)) == list(map(kinds, told))
    for each in re.findall(r"\w{4,}", body):
        assert each not in "".join(made.item)


def test_a_path_is_none_of_base64():
    assert "home" in words()
    [made] = scrubbed(Turn(at=1, item=["/home/tmp/Backups1/Zzqrtk9/vbnmt"], out=[]))
    assert re.fullmatch(r"/home/\w+/\w+1/\w+9/\w+", made.item[0])
    assert "Zzqrtk" not in made.item[0]


@pytest.mark.parametrize("text", ["pros\nperity", "prospérité", "#cloud-config\nusers:\n- pros\n"])
def test_a_text_of_any_letters_and_lines_is_known_as_a_list_of_its_bytes(text):
    [made] = scrubbed(Turn(at=1, item=[[*text.encode()]], out=[]))
    assert len(made.item[0]) == len(text.encode())
    assert b"pros" not in bytes(made.item[0])


def test_a_name_that_stands_as_a_list_of_its_bytes_is_another_one_as_long():
    """The serial number of an NVMe disk is the name of the disk so, in 20 bytes: in a specification, and in the one
    that migrates as a text in a text.
    """
    disk = {"serial_number": list(b"pros-7".ljust(20, b"\0")), "any": list(b"prosperity")}
    mute = {"serial_number": [7, 200, 0, 9], "ports": [22, 80, 12], "cpus": list(range(60)), "empty": []}
    text = json.dumps({"text": json.dumps(disk, separators=(",", ":"))}, separators=(",", ":"))
    [made] = scrubbed(Turn(at=1, item=[disk, mute, text], out=[]))
    found, other, inner = made.item
    assert json.loads(json.loads(inner)["text"]) == found
    for field, old in disk.items():
        assert len(found[field]) == len(old)
    assert bytes(found["serial_number"]).endswith(b"\0" * 14)
    assert b"pros" not in bytes(found["serial_number"]) + bytes(found["any"])
    assert other["serial_number"] != mute["serial_number"]
    assert other == {**mute, "serial_number": other["serial_number"]}


def test_pools_and_serials_of_a_sled_follow_from_nothing_any_more():
    line = explicit(Header(recording=1, of="0", part=1, sleds=[form(SledConfig(SLED))]))
    [made] = scrubbed(line)
    [sled] = value_of(made.sleds)
    assert sled.sled_id != SLED
    assert len(sled.hardware.pools_of(SLED)) == 10
    assert sled.hardware.baseboard_serial == f"sim-{sled.sled_id}"
    before = {str(each.id) for each in SledConfig(SLED).hardware.pools_of(SLED)}
    assert not [each for each in before if each.encode() in written(made)]


def test_every_line_of_a_copy_is_a_line():
    lines = planted(["db-7.kolmar", KEY, PEM])
    for line, copy in zip(lines, scrubbed(*lines), strict=True):
        assert msgspec.to_builtins(read(written(copy))) == msgspec.to_builtins(copy)
        assert type(copy) is type(line)


def test_an_ipv4_address_in_disguise_has_the_stand_in_that_it_has_without():
    line = End(end="from 8.8.4.4 and ::ffff:8.8.4.4")
    [made] = scrubbed(line)
    plain, disguised = re.findall(r"[\d.]{7,}|::ffff:[\da-f:.]+", made.end)
    assert plain != "8.8.4.4"
    assert ip_address(disguised).ipv4_mapped == ip_address(plain)


def test_a_word_of_the_program_that_is_nobodys_name_stays_in_the_key_of_a_draw():
    known = names_of(End(end="nothing"))
    assert known.key(("chance/late", "stopped/1", 0)) == ("chance/late", "stopped/1", 0)


MADE, OTHER = "0123456789abcdef0123456789abcdef0123456789", "fedcba98765432100123456789abcdef0123456789"


def test_what_a_core_makes_of_its_inputs_has_for_a_stand_in_what_it_makes_of_theirs():
    known = names_of(End(end=MADE))
    assert known.text(MADE) != OTHER
    assert known.follow({"digest": MADE}, {"digest": OTHER})
    assert known.text(MADE) == OTHER, "from now on, also where it was seen before"
    assert not known.follow({"digest": MADE}, {"digest": OTHER})


def test_what_came_from_outside_has_one_stand_in_for_ever():
    asked = Turn(at=1, item={"digest": MADE.upper()}, out=[])
    known = names_of(asked, End(end=MADE))
    before = known.text(MADE.upper())
    known.given(asked)
    assert not known.follow([MADE.upper()], [OTHER.upper()])
    assert known.text(MADE.upper()) == before
