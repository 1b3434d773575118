"""Crucible volumes: what is one, and what a replacement amounts to: the table of PR 4.2."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.rows import in_one_test

from propolis_stub.spec import volumes

ID = "77777777-8888-4999-aaaa-bbbbccccdddd"


def region(gen: int = 5, *targets: int, **more: Any) -> dict[str, Any]:
    opts = {
        "id": ID,
        "target": [f"127.0.0.1:{port}" for port in targets or (7001, 7002, 7003)],
        "lossy": False,
        "read_only": False,
    }
    return {
        "type": "region", "block_size": 512, "blocks_per_extent": 100, "extent_count": 8, "gen": gen,
        "opts": {**opts, **more.pop("opts", {})}, **more,
    }  # fmt: skip


def volume(*parts: Any, parent: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "type": "volume", "id": ID, "block_size": 512, "sub_volumes": list(parts), "read_only_parent": parent, **more
    }  # fmt: skip


URL = {"type": "url", "id": ID, "block_size": 512, "url": "http://x/y"}
FILE = {"type": "file", "id": ID, "block_size": 512, "path": "/a"}


def result(old: Any, new: Any) -> str:
    texts = [part if isinstance(part, str) else json.dumps(part) for part in (old, new)]
    return volumes.replacement_result(texts[0], texts[1])


@in_one_test(
    ("old", "new"),
    [
        pytest.param(volume(region(5)), volume(region(6)), id="the generation of a region"),
        pytest.param(volume(region(5), region(1)), volume(region(9), region(2)), id="of two regions"),
        pytest.param(region(5), region(6), id="of a bare region"),
        pytest.param(volume(volume(region(5))), volume(volume(region(6))), id="of a region deep inside"),
        pytest.param(
            volume(parent=region(5, opts={"read_only": True})),
            volume(parent=region(6, opts={"read_only": True})),
            id="of the read-only parent",
        ),
        pytest.param(volume(region(5), URL, FILE), volume(region(6), URL, FILE), id="beside other kinds"),
    ],
)
def test_raised_generations_alone_match(old: Any, new: Any) -> None:
    assert result(old, new) == "vcr_matches"


@in_one_test(
    ("old", "new"),
    [
        pytest.param(volume(region(5)), volume(region(5, 7001, 7002, 7009)), id="of a region"),
        pytest.param(volume(region(5)), volume(region(6, 7009, 7002, 7003)), id="with a raised generation"),
        pytest.param(volume(region(5), region(5)), volume(region(6), region(6, 1, 7002, 7003)), id="of the second"),
        pytest.param(volume(parent=region(5)), volume(parent=region(5, 7001, 1, 7003)), id="of the parent"),
        pytest.param(
            volume(volume(region(5)), parent=volume(region(5))),
            volume(volume(region(5, 7001, 1, 7003)), parent=volume(region(6))),
            id="of a region deep inside",
        ),
    ],
)
def test_exactly_one_changed_target_starts_a_replacement(old: Any, new: Any) -> None:
    assert result(old, new) == "started"


def test_two_spellings_of_one_address_are_one_target() -> None:
    again = region(6)
    again["opts"]["target"][0] = "127.0.0.1:0007001"
    assert result(volume(region(5)), volume(again)) == "vcr_matches"
    v6 = [volume(region(5, opts={"target": [text, "[::2]:1", "[::3]:1"]})) for text in ("[::1]:1", "[0::0:1]:01")]
    with pytest.raises(ValueError, match="no difference"):
        result(*v6)


@in_one_test(
    ("new", "why"),
    [
        pytest.param(volume(region(5)), "The VCRs have no difference", id="nothing"),
        pytest.param(volume(region(5), colour="red"), "The VCRs have no difference", id="only a field nobody knows"),
        pytest.param(volume(region(5, 1, 2, 7003)), "Multiple target changes", id="two targets"),
        pytest.param(volume(region(6, 1, 2, 3)), "Multiple target changes", id="three targets"),
        pytest.param(volume(region(5, 7002, 7001, 7003)), "Multiple target changes", id="two targets swapped"),
        pytest.param(volume(region(4)), "generation goes back", id="a lower generation"),
        pytest.param(volume(region(4, 7001, 7002, 1)), "generation goes back", id="a target, and a lower generation"),
        pytest.param(volume(region(6, block_size=4096)), "size or options", id="the block size of the region"),
        pytest.param(volume(region(6, blocks_per_extent=1)), "size or options", id="the blocks of an extent"),
        pytest.param(volume(region(6, extent_count=9)), "size or options", id="the number of extents"),
        pytest.param(volume(region(6, opts={"lossy": True})), "size or options", id="an option"),
        pytest.param(volume(region(6, opts={"key": "k"})), "size or options", id="the key"),
        pytest.param(volume(region(6, 7001, 7002)), "number of targets", id="one target less"),
        pytest.param(volume(region(6, 7001, 7002, 7003, 7004)), "number of targets", id="one target more"),
        pytest.param(volume(region(6), block_size=4096), "The volumes differ", id="the block size of the volume"),
        pytest.param(volume(region(6), region(6)), "The volumes differ", id="a part more"),
        pytest.param(volume(), "The volumes differ", id="a part less"),
        pytest.param(volume(region(6), parent=region(1)), "cannot be replaced", id="a parent"),
        pytest.param(volume(URL), "cannot be replaced", id="another kind of part"),
        pytest.param(region(6), "cannot be replaced", id="another kind at the top"),
    ],
)
def test_every_other_change_is_refused(new: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        result(volume(region(5)), new)


def test_two_targets_in_two_places_are_two_changes() -> None:
    old, new = volume(region(5), parent=region(5)), volume(region(5, 1, 7002, 7003), parent=region(5, 1, 7002, 7003))
    with pytest.raises(ValueError, match="Multiple target changes"):
        result(old, new)


def test_parts_that_cannot_be_replaced_may_not_change() -> None:
    for part, changed in ((URL, {**URL, "url": "http://z"}), (FILE, {**FILE, "path": "/b"}), (URL, FILE)):
        with pytest.raises(ValueError, match="cannot be replaced"):
            result(volume(part), volume(changed))


@in_one_test(
    "text",
    ["", "{", "{}", "[]", "null", "nothing", '{"type":"volume"}', '{"type":"toaster"}', '{"gen":2}',
     json.dumps(volume({"type": "tape"})), json.dumps(volume(region(-1))), json.dumps(volume(region(2**64))),
     json.dumps(volume(region(1, opts={"target": ["nowhere:1"]}))), json.dumps(volume(region(1, opts={"id": "x"}))),
     json.dumps(volume(region(1))) + "x", json.dumps(volume(parent="p")), "[" * 100_000,
     '{"type":"volume","id":"' + ID + '","block_size":1,"sub_volumes":[' * 20_000],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_what_is_no_volume_construction_request(text: str) -> None:
    with pytest.raises(ValueError, match="failed to parse VCR JSON"):
        volumes.read(text)
    with pytest.raises(ValueError, match="failed to parse VCR JSON"):
        result(volume(region(5)), text)


def test_a_volume_tells_what_its_request_says() -> None:
    info = volumes.volume_info("d", json.dumps(volume(region(5, opts={"key": "k"}), parent=URL)), active=False)
    (sub,) = info["volume"]["sub_volumes"]
    upstairs = sub["upstairs"]
    assert (upstairs["upstairs_id"], upstairs["generation"], upstairs["encrypted"]) == (ID, 5, True)
    assert [target["target_addr"] for target in upstairs["targets"]] == [f"127.0.0.1:{p}" for p in (7001, 7002, 7003)]
    assert (upstairs["read_only"], upstairs["live_repair_in_progress"], upstairs["reconcile_in_progress"]) == (
        False,
        False,
        False,
    )
    assert (upstairs["state"], upstairs["block_size"]) == ("initializing", 512)
    parent = info["volume"]["read_only_parent"]["upstairs"]
    assert (parent["targets"], parent["read_only"], parent["encrypted"], parent["generation"]) == (
        [],
        False,
        False,
        1,
    )


@pytest.mark.parametrize("active", [True, False])
def test_a_target_has_a_region_only_once_the_volume_is_active(active: bool) -> None:
    info = volumes.volume_info("d", json.dumps(region(5, opts={"read_only": True})), active=active)
    assert info["upstairs"]["read_only"] is True
    assert info["upstairs"]["state"] == ("active" if active else "initializing")
    for target in info["upstairs"]["targets"]:
        assert (target["region_id"] is not None) == active
        assert target["state"]["type"] == ("active" if active else "connecting")
