"""One rule for what can be built, for the stub and for every sled (PR 4.2, SA 2.12)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.propolis.specs import DISK_ID, a_blob, a_crucible, a_disk, a_sled_spec, a_volume, at, board, serial
from support.rows import in_one_test

from nexus_client.dropshot.json import Json
from propolis_stub.spec.build import CPUS_MAX, fault_of
from propolis_stub.spec.versions import SledSpec29, SledSpec44

BOOT = {"type": "boot_settings", "component": {"order": [{"id": "d"}]}}
PANIC = {"type": "qemu_pvpanic", "component": {"enable_isa": True}}
INJECTOR = {"type": "migration_failure_injector", "component": {"fail_exports": 0, "fail_imports": 1}}


def fault(components: dict[str, Any] | None = None, version: int = 29, **of_the_board: Any) -> str:
    kind = SledSpec44 if version >= 44 else SledSpec29
    return fault_of(Json(kind).decode(json.dumps(a_sled_spec(components, **of_the_board)).encode()))


@in_one_test("cpus", [1, 2, 16, 64, 65, 128, 254])
def test_a_vm_has_1_to_254_vcpus(cpus: int) -> None:
    assert fault(cpus=cpus) == ""


@pytest.mark.parametrize("cpus", [0, 255])
def test_no_vcpus_or_255_cannot_be_built(cpus: int) -> None:
    assert f"{cpus} vCPUs" in fault(cpus=cpus)
    assert CPUS_MAX == 254


GOOD = [
    pytest.param({"d": a_disk("b"), "b": a_blob()}, id="an empty blob"),
    pytest.param({"d": a_disk("b"), "b": a_blob("aGVsbG8=")}, id="a blob"),
    pytest.param({"d": a_disk(DISK_ID.upper()), DISK_ID: a_crucible()}, id="a backend spelt in two ways"),
    pytest.param({"d": a_disk("b"), "b": a_blob(), "o": BOOT}, id="a boot order"),
    pytest.param({"d": a_disk("b"), "b": a_blob(), "e": a_disk("c", at(5)), "c": a_blob()}, id="two disks"),
]
BAD = [
    pytest.param({"b": a_blob()}, "not used", id="a backend that nobody uses"),
    pytest.param({"d": a_disk("b")}, "no backend with name b", id="a disk without its backend"),
    pytest.param({"d": a_disk("d")}, "same name", id="a disk that is its own backend"),
    pytest.param({"d": a_disk("b"), "e": a_disk("b", at(5)), "b": a_blob()}, "more than one device", id="shared"),
    pytest.param(
        {"d": a_disk("b"), "b": a_blob(), "e": a_disk("c"), "c": a_blob()}, "PCI address", id="a PCI path twice"
    ),
    pytest.param({"o": BOOT}, "not an attached disk", id="the boot order of an absent disk"),
    pytest.param({"p": serial("com1"), "q": serial("com1")}, "serial port com1", id="a serial port twice"),
    pytest.param({"p": PANIC, "q": PANIC}, "more than one pvpanic", id="two pvpanic devices"),
    pytest.param({"p": INJECTOR}, "no support", id="a device that normal builds have not"),
    pytest.param(
        {"d": a_disk(DISK_ID), DISK_ID: a_crucible(), DISK_ID.upper(): a_blob()}, "duplicate", id="key twice"
    ),
    pytest.param({"d": a_disk("b"), "b": a_blob("!")}, "base64", id="a blob of other letters"),
    pytest.param({"d": a_disk("b"), "b": a_blob("aGVsbG8")}, "base64", id="a blob without its padding"),
    pytest.param({"d": a_disk("b"), "b": a_blob("aGVs bG8=")}, "base64", id="a blob with a blank"),
    pytest.param({"d": a_disk("b"), "b": a_blob("aGVsbG9=")}, "base64", id="a blob with bits left over"),
    pytest.param({"d": a_disk("b"), "b": a_blob("aGVsbG8=aGVs")}, "base64", id="a blob with padding inside"),
    pytest.param({"d": a_disk("b"), "b": a_blob("aGV\u017fbG8=")}, "base64", id="a blob that is no ASCII"),
    pytest.param({"d": a_disk("b"), "b": a_crucible("{")}, "VCR", id="a request that is no JSON"),
    pytest.param({"d": a_disk("b"), "b": a_crucible("{}")}, "VCR", id="a request without a kind"),
    pytest.param({"d": a_disk("b"), "b": a_crucible('{"type":"volume"}')}, "VCR", id="a request without parts"),
    pytest.param(
        {"d": a_disk("b"), "b": a_crucible(json.dumps(a_volume() | {"sub_volumes": [{"type": "tape"}]}))},
        "VCR",
        id="a part of a kind that nobody knows",
    ),
]


@in_one_test("components", GOOD)
def test_what_can_be_built(components: dict[str, Any]) -> None:
    assert fault(components) == ""


@in_one_test(("components", "why"), BAD)
def test_what_cannot_be_built(components: dict[str, Any], why: str) -> None:
    assert why in fault(components)


def test_a_cpuid_leaf_twice_cannot_be_built() -> None:
    leaf = {"leaf": 1, "eax": 0, "ebx": 0, "ecx": 0, "edx": 0}
    assert "CPUID leaf 0x1" in fault(cpuid={"vendor": "amd", "entries": [leaf, leaf]})


def test_a_disk_of_the_newest_sled_api_is_a_disk() -> None:
    nvme = {"backend_id": "b", "pci_path": at(4), "serial_number": [0] * 20, "has_write_cache": True}
    disk = {"type": "nvme_disk", "component": nvme}
    assert fault({"d": disk, "b": a_blob(), "o": BOOT}, version=44) == ""
    assert "no backend" in fault({"d": disk}, version=44)


def test_the_board_of_these_tests_is_a_good_one() -> None:
    assert set(board()) == {"chipset", "cpus", "memory_mb"}
