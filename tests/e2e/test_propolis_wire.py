"""The Propolis API over real sockets: what only a socket shows (PR 4; PR 7 #60, #66, #71 to #75).

Over 500 lines: the operations in the order of PR 4.2, so that each is found where the specification has it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import WSMsgType
from multidict import CIMultiDict
from support.propolis.arms import QUEUED, B, R, S, run
from support.propolis.specs import a_crucible
from support.propolis.wire import (
    PATIENCE_S,
    PROPERTIES,
    VCR,
    VERSION,
    WireArm,
    WireNet,
    by_spec,
    make_spec,
    pci,
    raised,
    retargeted,
)
from support.rows import in_one_test

from propolis_stub.contract import Settle
from propolis_stub.server.serve import raise_open_files
from propolis_stub.waiting import Pace, Point

STATE, MONITOR, HISTORY = "/instance/state", "/instance/state-monitor", "/instance/serial/history"
BAD_JSON = "unable to parse JSON body: "
BAD_QUERY = "unable to parse query string: "
BAD_PATH = "bad parameter in URL path: "
TOO_BIG = "request body exceeded maximum size of 1048576 bytes"
UUID_1 = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
UUID_2 = "bbbbbbbb-bbbb-4ccc-8ddd-ffffffffffff"
UUID_3 = "cccccccc-bbbb-4ccc-8ddd-ffffffffffff"


@pytest_asyncio.fixture
async def vm() -> AsyncIterator[WireArm]:
    async with WireNet() as net:
        yield await net.arm()


def assert_error(
    answer: tuple[int, Any, CIMultiDict[str]], status: int, message: str, code: str | None = None
) -> None:
    """Status, error body and `x-request-id` as PR 4.1 has them; `message` may be its beginning."""
    got, body, headers = answer
    assert (got, body.get("error_code")) == (status, code), body
    assert body["message"].startswith(message)
    assert headers["x-request-id"] == body["request_id"]
    assert set(body) <= {"request_id", "message", "error_code"}


# --- generic errors -----------------------------------------------------------------------------------------------


@in_one_test(
    ("version", "message"),
    [
        pytest.param(None, 'missing expected header "api-version"', id="missing"),
        pytest.param("5", 'bad value for header "api-version": ', id="not a semver"),
        pytest.param("", 'bad value for header "api-version": ', id="empty"),
        pytest.param("5.0.1", "server does not support this API version: 5.0.1", id="too new"),
        pytest.param("6.0.0", "server does not support this API version: 6.0.0", id="much too new"),
    ],
)
async def test_a_version_that_will_not_do_is_400_on_any_path(vm: WireArm, version: str | None, message: str) -> None:
    for path in ("/instance", "/no/such/path"):
        assert_error(await vm.request("GET", path, version=version), 400, message)


@in_one_test("version", ["1.0.0", "4.2.0", "5.0.0", "5.0.0-rc1", "3.99.99+build"])
async def test_any_version_up_to_the_newest_is_routed(vm: WireArm, version: str) -> None:
    assert (await vm.request("GET", "/instance", version=version))[0] == 424


@in_one_test(
    ("method", "path", "body", "status", "message"),
    [
        pytest.param("GET", "/instances", None, 404, "Not Found", id="an unknown path"),
        pytest.param("GET", "/instance/disk/x", None, 404, "Not Found", id="half a path"),
        pytest.param("DELETE", "/instance", None, 405, "Method Not Allowed", id="a method that the path has not"),
        pytest.param("PUT", STATE, b'"run"', 400, BAD_JSON, id="#75 a lower-case Run"),
        pytest.param("PUT", STATE, b"{}", 400, BAD_JSON, id="#75 an object"),
        pytest.param("PUT", STATE, b'"Repairing"', 400, BAD_JSON, id="Repairing"),
        pytest.param("PUT", STATE, b"Run", 400, BAD_JSON, id="no JSON"),
        pytest.param("PUT", STATE, b"", 400, BAD_JSON, id="no body"),
        pytest.param("PUT", STATE, b'"' + b"R" * (1 << 20) + b'"', 400, TOO_BIG, id="a body over 1 MiB"),
        pytest.param("GET", MONITOR, b'{"gen":-1}', 400, BAD_JSON, id="gen -1"),
        pytest.param("GET", MONITOR, b'{"gen":18446744073709551616}', 400, BAD_JSON, id="gen 2^64"),
        pytest.param("GET", f"{HISTORY}?from_start=x", None, 400, BAD_QUERY, id="a bad query"),
        pytest.param("GET", f"{HISTORY}?from_start=1&from_start=2", None, 400, BAD_QUERY, id="a doubled query"),
        pytest.param("POST", "/instance/disk/d/snapshot/nope", None, 400, BAD_PATH, id="a bad UUID"),
        pytest.param("GET", "/instance/migrate/nope/start", None, 400, BAD_PATH, id="a bad migration id"),
        pytest.param("GET", "/instance/%ff", None, 400, "invalid path encoding", id="a bad encoding"),
    ],
)
async def test_generic_error(
    vm: WireArm, method: str, path: str, body: bytes | None, status: int, message: str
) -> None:
    answer = await vm.request(method, path, data=body)
    assert_error(answer, status, message)
    if status == 405:
        assert answer[2]["Allow"]


async def test_a_missing_header_changes_nothing(vm: WireArm) -> None:
    await run(vm)
    answer = await vm.request("PUT", "/instance/state", "Stop", version=None)
    assert_error(answer, 400, "missing expected header")
    await vm.told("3 Running")


@pytest.mark.parametrize(
    ("content_type", "message"),
    [
        ("application/octet-stream", 'expected content type "application/json", got "application/octet-stream"'),
        ("text/plain", "unsupported content-type: text/plain"),
    ],
)
async def test_a_body_that_does_not_claim_to_be_json(vm: WireArm, content_type: str, message: str) -> None:
    assert vm.net.session is not None
    async with vm.net.session.put(
        f"http://{vm.address}/instance/state",
        data=b'"Run"',
        headers={"api-version": VERSION, "content-type": content_type},
    ) as answer:
        assert answer.status == 400
        assert (await answer.json())["message"] == message


async def test_empty_segments_and_a_missing_content_type_do_not_matter(vm: WireArm) -> None:
    await vm.ensure()
    reader, writer = await asyncio.open_connection(*vm.address.split(":"))
    body = b'"Run"'
    writer.write(
        b"PUT //instance/state/ HTTP/1.1\r\nhost: x\r\napi-version: 5.0.0\r\nconnection: close\r\n"
        b"content-length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 204")
    writer.close()
    await writer.wait_closed()


async def test_every_instance_call_needs_an_instance(vm: WireArm) -> None:
    vcr = {"vcr_json": "{}"}
    for method, path, body in (
        ("GET", "/instance", None),
        ("GET", "/instance/spec", None),
        ("GET", "/instance/state-monitor", {"gen": 0}),
        ("PUT", "/instance/state", "Run"),
        ("GET", "/instance/migration-status", None),
        ("GET", "/instance/serial/history?from_start=0", None),
        ("POST", f"/instance/disk/disk/snapshot/{UUID_1}", None),
        ("GET", "/instance/disk/disk/status", None),
        ("PUT", "/instance/disk/disk/vcr", vcr),
        ("POST", "/instance/nmi", None),
    ):
        answer = await vm.request(method, path, body)
        assert_error(answer, 424, "Server not initialized (no instance)", "NoInstance")


async def test_levels_without_a_driver_answer_no_instance_to_those_who_need_one(vm: WireArm) -> None:
    """PR 3.1: WaitingForInit and Rundown."""
    active_only = (
        ("PUT", "/instance/state", "Run"),
        ("POST", "/instance/nmi", None),
        ("GET", "/instance/disk/disk/status", None),
        ("GET", "/instance/serial/history?from_start=0", None),
        ("POST", f"/instance/disk/disk/snapshot/{UUID_1}", None),
        ("PUT", "/instance/disk/disk/vcr", {"vcr_json": "{}"}),
    )
    await vm.pace(Point.CREATE, Pace(None))
    await vm.pace(Point.RUNDOWN, Pace(None))
    await vm.ensure_begin()
    for method, path, body in active_only:
        assert_error(await vm.request(method, path, body), 424, "Server not", "NoInstance")
    assert await vm.get() == "200 Creating"
    await vm.settle()
    assert await vm.ensure_end() == "201"
    assert await vm.put(S) == QUEUED
    await vm.told("2 Stopping, 3 Stopped")
    for method, path, body in active_only:
        assert_error(await vm.request(method, path, body), 424, "Server not", "NoInstance")
    assert await vm.get() == "200 Stopped"


# --- ensure -------------------------------------------------------------------------------------------------------

NVME = {"type": "nvme_disk", "component": {"backend_id": "b", "pci_path": pci(20), "serial_number": [1] * 20}}
VIRTIO = {"type": "virtio_disk", "component": {"backend_id": "b", "pci_path": pci(20)}}
BLOB = {"type": "blob_storage_backend", "component": {"base64": "", "readonly": True}}
NIC = {"type": "virtio_nic", "component": {"backend_id": "n", "interface_id": UUID_1, "pci_path": pci(8)}}
PANIC = {"type": "qemu_pvpanic", "component": {"enable_isa": True}}
VSOCK = {"type": "virtio_socket", "component": {"guest_cid": 3, "pci_path": pci(9)}}
BOOT = {"type": "boot_settings", "component": {"order": [{"id": "disk-device"}]}}
BRIDGE_AT_99 = {"type": "pci_pci_bridge", "component": {"downstream_bus": 1, "pci_path": pci(99)}}


def disk_at(device: int, function: int) -> dict[str, Any]:
    path = {"bus": 0, "device": device, "function": function}
    return {**NVME, "component": {**NVME["component"], "pci_path": path}}


def vsock_at(device: int) -> dict[str, Any]:
    return {**VSOCK, "component": {**VSOCK["component"], "pci_path": pci(device)}}


INJECTOR = {"type": "migration_failure_injector", "component": {"fail_exports": 0, "fail_imports": 1}}
P9 = {"type": "p9fs", "component": {"chunk_size": 1, "pci_path": pci(7), "source": "a", "target": "b"}}
NPU = {"type": "soft_npu_p9", "component": {"pci_path": pci(7)}}
NPU_PCI = {"type": "soft_npu_pci_port", "component": {"pci_path": pci(7)}}
NPU_PORT = {"type": "soft_npu_port", "component": {"backend_id": "n", "link_name": "l"}}
COM1 = {"type": "serial_port", "component": {"num": "com1"}}
CPUID = {"leaf": 1, "eax": 0, "ebx": 0, "ecx": 0, "edx": 0}


def with_cpuid(*entries: dict[str, int]) -> dict[str, Any]:
    spec = make_spec()
    spec["board"]["cpuid"] = {"vendor": "amd", "entries": list(entries)}
    return spec


@pytest.mark.parametrize("exists", [False, True], ids=["none", "one"])
@in_one_test(
    ("spec", "why"),
    [
        pytest.param(make_spec(d=NVME), "no backend with name b", id="a device without its backend"),
        pytest.param(make_spec(d=NIC), "no backend with name n", id="a NIC without its backend"),
        pytest.param(make_spec(d=NIC, n=BLOB), "no backend with name n", id="a NIC on a disk's backend"),
        pytest.param(make_spec(b=BLOB), "backend b is not used", id="#60 an unused backend"),
        pytest.param(make_spec(b=VIRTIO), "same name: b", id="device and backend with one name"),
        pytest.param(
            make_spec(d=NVME, e={**VIRTIO, "component": {**VIRTIO["component"], "pci_path": pci(21)}}, b=BLOB),
            "backend b is used by more than one device",
            id="two devices on one backend",
        ),
        pytest.param(
            make_spec(**{UUID_1: PANIC, UUID_1.upper(): PANIC}),
            "duplicate component name",
            id="a UUID written in two ways",
        ),
        pytest.param(
            make_spec(d={**NVME, "component": {**NVME["component"], "pci_path": pci(16)}}, b=BLOB),
            "PCI address 0.16.0 is used by",
            id="a PCI address used twice",
        ),
        pytest.param(make_spec(com=COM1), "serial port com1 is used twice", id="a serial port used twice"),
        pytest.param(make_spec(p=PANIC, q=PANIC), "more than one pvpanic", id="two pvpanic devices"),
        pytest.param(
            make_spec(p=VSOCK, q={**VSOCK, "component": {"guest_cid": 4, "pci_path": pci(10)}}),
            "more than one virtio socket",
            id="two virtio sockets",
        ),
        pytest.param(make_spec(p=BOOT, q=BOOT), "more than one boot order", id="two boot orders"),
        pytest.param(
            make_spec(p={"type": "boot_settings", "component": {"order": [{"id": "com1"}]}}),
            "boot option com1 is not an attached disk",
            id="booting from a serial port",
        ),
        pytest.param(with_cpuid(CPUID, CPUID), "CPUID leaf 0x1 is given twice", id="a CPUID leaf given twice"),
        pytest.param(
            with_cpuid(CPUID, {**CPUID, "subleaf": 0}),
            "CPUID leaf 0x1 is given with and without a subleaf",
            id="a CPUID leaf with and without subleaf",
        ),
        pytest.param(make_spec(p=INJECTOR), "no support for migration failure injection", id="failure injection"),
        pytest.param(make_spec(p=P9), "no support for 9p file systems", id="a 9p file system"),
        pytest.param(make_spec(p=NPU), "no support for SoftNPU", id="SoftNPU 9p"),
        pytest.param(make_spec(p=NPU_PCI), "no support for SoftNPU", id="a SoftNPU PCI port"),
        pytest.param(make_spec(p=NPU_PORT), "no support for SoftNPU", id="a SoftNPU port"),
    ],
)
async def test_a_spec_that_cannot_be_a_vm_is_400_even_if_a_vm_exists(
    vm: WireArm, exists: bool, spec: dict[str, Any], why: str
) -> None:
    if exists:
        await vm.ensure()
    answer = await vm.request("PUT", "/instance", by_spec(spec))
    assert_error(answer, 400, "failed to generate internal instance spec: ")
    assert why in answer[1]["message"]
    if exists:
        await vm.told("1 Creating")
    else:
        assert await vm.get() == "424"


@in_one_test(
    ("version", "change", "field"),
    [
        pytest.param("1.0.0", {"smbios": None}, "smbios", id="version 1 knows no smbios"),
        pytest.param("2.0.0", {"components": {"v": VSOCK}}, "virtio_socket", id="version 2 knows no virtio sockets"),
        pytest.param(VERSION, {"board": {"cpus": 1, "memory_mb": 1}}, "chipset", id="a board without chipset"),
        pytest.param(
            VERSION,
            {"board": {**make_spec()["board"], "colour": "red"}},
            "colour",
            id="a field that a board has not",
        ),
        pytest.param(VERSION, {"board": {**make_spec()["board"], "cpus": 256}}, "cpus", id="256 vCPUs"),
        pytest.param(VERSION, {"components": {"c": {"type": "toaster", "component": {}}}}, "toaster", id="a toaster"),
        pytest.param(VERSION, {"components": {"c": {**PANIC, "x": 1}}}, "x", id="a field that a component has not"),
        pytest.param(VERSION, {"components": {"d": disk_at(32, 0), "b": BLOB}}, "pci_path", id="a PCI device of 32"),
        pytest.param(VERSION, {"components": {"d": disk_at(31, 8), "b": BLOB}}, "pci_path", id="a PCI function of 8"),
        pytest.param(VERSION, {"components": {"v": vsock_at(255)}}, "pci_path", id="a socket at PCI device 255"),
        pytest.param(VERSION, {"components": {"p": BRIDGE_AT_99}}, "pci_path", id="a bridge at PCI device 99"),
    ],
)
async def test_a_spec_of_the_wrong_shape(vm: WireArm, version: str, change: dict[str, Any], field: str) -> None:
    answer = await vm.request("PUT", "/instance", by_spec({**make_spec(), **change}), version=version)
    assert_error(answer, 400, "unable to parse JSON body: ")
    assert field in answer[1]["message"]
    assert await vm.get() == "424"


async def test_too_many_vcpus_are_the_hosts_problem_and_surface_as_500(vm: WireArm) -> None:
    spec = make_spec()
    spec["board"]["cpus"] = 255
    assert_error(await vm.request("PUT", "/instance", by_spec(spec)), 500, "Internal Server Error", "Internal")
    await vm.told("1 Creating, 2 Failed")
    assert await vm.ensure() == "201"


@pytest.mark.parametrize(
    "part",
    [
        pytest.param({"b": {**BLOB, "component": {"base64": "%", "readonly": True}}}, id="a blob that is no base64"),
        pytest.param({"b": {**BLOB, "component": {"base64": "YQ", "readonly": True}}}, id="a blob without padding"),
        pytest.param({"b": a_crucible("{")}, id="a volume of one brace"),
        pytest.param({"b": a_crucible("{}")}, id="a volume that is none"),
        pytest.param({"b": a_crucible(json.dumps({**VCR, "sub_volumes": [{"type": "x"}]}))}, id="an unknown part"),
    ],
)
async def test_disks_that_cannot_be_built_surface_as_500(vm: WireArm, part: dict[str, Any]) -> None:
    spec = make_spec(d=VIRTIO, **part)
    assert_error(await vm.request("PUT", "/instance", by_spec(spec)), 500, "Internal Server Error", "Internal")
    await vm.told("1 Creating, 2 Failed")
    assert await vm.ensure() == "201"


async def test_a_target_whose_replaced_disk_cannot_be_built_fails_and_its_source_runs_on(vm: WireArm) -> None:
    await run(vm)
    target = await vm.another()
    replace = {"disk": {"component": "CrucibleStorageBackend", "spec": a_crucible("{}")["component"]}}
    value = {"migration_id": UUID_1, "src_addr": vm.address, "replace_components": replace}
    body = {"properties": PROPERTIES, "init": {"method": "MigrationTarget", "value": value}}
    assert_error(await target.request("PUT", "/instance", body), 500, "Internal Server Error", "Internal")
    await target.told("1 Migrating in=Sync, 2 Migrating in=Sync, 3 Failed in=Sync")
    await vm.until(lambda view: view["state"] == "Running" and view["publications"][-1]["gen"] > 4)


async def test_a_second_ensure_is_409(vm: WireArm) -> None:
    status, body, _ = await vm.request("PUT", "/instance", by_spec())
    assert (status, body) == (201, {"migrate": None})
    answer = await vm.request("PUT", "/instance", by_spec())
    assert_error(answer, 409, "instance already initialized", "AlreadyInitialized")


@in_one_test(
    "address",
    [
        "propolis.example:1",
        "[fe80::5%lo]:4000",
        "[fe80::5%25lo]:4000",
        "[::1%4294967296]:9",
        "[::1]:65536",
        "[::1]:0000099999",
        "127.0.0.1:00065536",
        "127.1:80",
        "[127.0.0.1]:80",
        "::1:80",
        "[::1]",
        "[::1]:",
        "[::1]:+80",
        "[::1]:\u0668\u0660",
        "1.2.3.04:5",
        " [::1]:80",
    ],
)
async def test_a_source_address_that_is_none_is_refused_at_once_and_leaves_no_vm(vm: WireArm, address: str) -> None:
    value = {"migration_id": UUID_1, "src_addr": address, "replace_components": {}}
    body = {"properties": PROPERTIES, "init": {"method": "MigrationTarget", "value": value}}
    assert_error(await vm.request("PUT", "/instance", body), 400, "unable to parse JSON body: ")
    assert await vm.get() == "424"


async def test_an_ensure_goes_on_when_its_client_hangs_up(vm: WireArm) -> None:
    await vm.pace(Point.CREATE, Pace(None))
    await vm.ensure_begin()
    assert vm.ensuring is not None
    vm.ensuring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await vm.ensuring
    vm.ensuring = None
    await vm.settle()
    await vm.until(lambda view: view["level"] == "Active")


# --- what is told per version -------------------------------------------------------------------------------------


async def test_the_spec_is_told_normalised_and_in_the_words_of_each_version(vm: WireArm) -> None:
    smbios = {"manufacturer": "Oxide", "product_name": "OxVM", "serial_number": "1", "version": 2}
    spec = {**make_spec(v=VSOCK), "smbios": smbios}
    assert (await vm.request("PUT", "/instance", by_spec(spec)))[0] == 201
    told = {}
    for major in range(1, 6):
        status, body, _ = await vm.request("GET", "/instance/spec", version=f"{major}.0.0")
        assert status == 200
        assert (body["state"], body["properties"], body["spec"]["type"]) == ("Creating", PROPERTIES, "Present")
        told[major] = body["spec"]["value"]
    assert told[1]["version"] == "V0"
    assert set(told[1]["spec"]) == {"board", "components"}
    assert "v" not in told[1]["spec"]["components"]
    assert "v" not in told[2]["components"]
    assert told[2]["smbios"] == smbios
    assert told[3] == told[4] == told[5]
    assert told[5]["components"]["v"] == VSOCK
    assert told[5]["components"]["disk"] == spec["components"]["disk"]
    assert told[5]["board"]["cpuid"]["entries"]


async def test_component_keys_that_are_uuids_are_told_in_one_form(vm: WireArm) -> None:
    spec = make_spec(**{UUID_1.upper(): PANIC})
    assert (await vm.request("PUT", "/instance", by_spec(spec)))[0] == 201
    _, body, _ = await vm.request("GET", "/instance/spec")
    assert UUID_1 in body["spec"]["value"]["components"]


@pytest.mark.parametrize("given", [UUID_1.upper(), UUID_1.replace("-", ""), "{" + UUID_1 + "}", "urn:uuid:" + UUID_1])
async def test_ids_are_told_in_one_form_wherever_they_stand(vm: WireArm, given: str) -> None:
    disk = {"backend_id": UUID_2, "pci_path": pci(9)}
    nic = {"backend_id": given, "interface_id": given, "pci_path": pci(8)}
    network = {"type": "virtio_network_backend", "component": {"vnic_name": "v"}}
    boot = {"type": "boot_settings", "component": {"order": [{"id": UUID_3.upper()}]}}
    parts = {
        "{" + UUID_3 + "}": {"type": "virtio_disk", "component": disk},
        "urn:uuid:" + UUID_2: BLOB,
        "n": {"type": "virtio_nic", "component": nic},
        UUID_1: network,
        "o": boot,
    }
    body = by_spec(make_spec(**parts))
    body["properties"] = {**PROPERTIES, "id": given, "metadata": {**PROPERTIES["metadata"], "silo_id": given}}
    assert (await vm.request("PUT", "/instance", body))[0] == 201
    _, told, _ = await vm.request("GET", "/instance/spec")
    assert (told["properties"]["id"], told["properties"]["metadata"]["silo_id"]) == (UUID_1, UUID_1)
    components = told["spec"]["value"]["components"]
    assert components["n"]["component"]["backend_id"] == components["n"]["component"]["interface_id"] == UUID_1
    assert components[UUID_3]["component"]["backend_id"] == UUID_2
    assert components["o"]["component"]["order"] == [{"id": UUID_3}]
    assert {UUID_1, UUID_2, UUID_3} < set(components)


@pytest.mark.parametrize(
    ("board", "told"),
    [
        pytest.param({}, None, id="no hypervisor interface"),
        pytest.param({"guest_hv_interface": {"type": "bhyve"}}, None, id="the default, written out"),
        pytest.param(
            {"guest_hv_interface": {"type": "hyper_v", "value": {"features": ["reference_tsc"] * 3}}},
            {"type": "hyper_v", "value": {"features": ["reference_tsc"]}},
            id="a feature three times",
        ),
        pytest.param(
            {"guest_hv_interface": {"type": "hyper_v", "value": {"features": []}}},
            {"type": "hyper_v", "value": {"features": []}},
            id="no features",
        ),
    ],
)
@pytest.mark.parametrize("version", ["1.0.0", "5.0.0"])
async def test_defaults_are_left_out_and_sets_have_no_duplicates(
    vm: WireArm, version: str, board: dict[str, Any], told: Any
) -> None:
    spec = make_spec()
    spec["board"].update(board)
    assert (await vm.request("PUT", "/instance", by_spec(spec)))[0] == 201
    _, body, _ = await vm.request("GET", "/instance/spec", version=version)
    value = body["spec"]["value"]
    assert value.get("spec", value)["board"].get("guest_hv_interface") == told


async def test_cpuid_values_are_told_by_leaf(vm: WireArm) -> None:
    leaves = [{**CPUID, "leaf": 7, "subleaf": 1}, {**CPUID, "leaf": 1}, {**CPUID, "leaf": 7, "subleaf": 0}]
    assert (await vm.request("PUT", "/instance", by_spec(with_cpuid(*leaves))))[0] == 201
    _, body, _ = await vm.request("GET", "/instance/spec")
    entries = body["spec"]["value"]["board"]["cpuid"]["entries"]
    assert [(entry["leaf"], entry["subleaf"]) for entry in entries] == [(1, None), (7, 0), (7, 1)]


async def test_a_target_has_no_spec_until_its_source_has_spoken_and_then_a_version_1_spec(vm: WireArm) -> None:
    smbios = {"manufacturer": "Oxide", "product_name": "OxVM", "serial_number": "1", "version": 2}
    assert (await vm.request("PUT", "/instance", by_spec({**make_spec(v=VSOCK), "smbios": smbios})))[0] == 201
    await vm.put(R)
    await vm.told("3 Running")
    target = await vm.another()
    await target.pace(Point.M_CONNECT, Pace(None))
    await target.pace(Point.M_DEVICE, Pace(None))
    await target.target_begin(vm)
    _, body, _ = await target.request("GET", "/instance/spec")
    assert (body["spec"], body["state"]) == ({"type": "WaitingForMigrationSource"}, "Migrating")
    await target.settle()
    assert await target.ensure_end() == "201"
    _, body, _ = await target.request("GET", "/instance/spec")
    value = body["spec"]["value"]
    assert value["smbios"] is None
    assert set(value["components"]) == {"disk-device", "disk", "com1"}


async def test_a_replaced_component_is_the_targets(vm: WireArm) -> None:
    await run(vm)
    target = await vm.another()
    new = {"readonly": False, "request_json": json.dumps(raised(VCR))}
    value = {
        "migration_id": UUID_1,
        "src_addr": vm.address,
        "replace_components": {"disk": {"component": "CrucibleStorageBackend", "spec": new}},
    }
    body = {"properties": PROPERTIES, "init": {"method": "MigrationTarget", "value": value}}
    status, answer, _ = await target.request("PUT", "/instance", body)
    assert (status, answer) == (201, {"migrate": {"migration_id": UUID_1}})
    _, told, _ = await target.request("GET", "/instance/spec")
    assert told["spec"]["value"]["components"]["disk"]["component"] == new
    await target.told("11 Running in=Finish")
    _, status_told, _ = await target.request("GET", "/instance/migration-status")
    assert status_told == {"migration_in": {"id": UUID_1, "state": "Finish"}, "migration_out": None}


@pytest.mark.parametrize(
    ("key", "replacement"),
    [
        pytest.param(
            "disk", {"component": "VirtioNetworkBackend", "spec": {"vnic_name": "x"}}, id="another kind of component"
        ),
        pytest.param(
            "disk",
            {"component": "MigrationFailureInjector", "spec": {"fail_exports": 0, "fail_imports": 1}},
            id="a failure injector where there is none",
        ),
    ],
)
async def test_a_replacement_that_does_not_fit_fails_the_sync(vm: WireArm, key: str, replacement: object) -> None:
    await run(vm)
    target = await vm.another()
    value = {"migration_id": UUID_1, "src_addr": vm.address, "replace_components": {key: replacement}}
    body = {"properties": PROPERTIES, "init": {"method": "MigrationTarget", "value": value}}
    assert_error(await target.request("PUT", "/instance", body), 500, "Internal Server Error", "Internal")
    await target.told("1 Migrating in=Sync, 2 Migrating in=Sync, 3 Migrating in=Error, 4 Failed in=Error")


async def test_instance_and_spec_wait_while_the_driver_has_the_objects_to_itself_and_the_monitor_does_not(
    vm: WireArm,
) -> None:
    await run(vm)
    await vm.pace(Point.REBOOT, Pace(None))
    await vm.put(B)
    calls = [asyncio.ensure_future(vm.request("GET", path)) for path in ("/instance", "/instance/spec")]
    assert await vm._monitor(4) == "200 4 Rebooting"
    assert not any(call.done() for call in calls)
    await vm.settle()
    for call in calls:
        status, body, _ = await asyncio.wait_for(call, PATIENCE_S)
        assert (status, body.get("state", "Running")) == (200, "Running")


# --- disks --------------------------------------------------------------------------------------------------------


async def test_disk_status_in_the_words_of_each_version(vm: WireArm) -> None:
    await run(vm)
    for major in range(1, 5):
        status, body, _ = await vm.request("GET", "/instance/disk/disk/status", version=f"{major}.0.0")
        assert (status, body) == (200, {"active": True})
    status, body, _ = await vm.request("GET", "/instance/disk/disk/status")
    (upstairs,) = body["volume_info"]["volume"]["sub_volumes"]
    assert status == 200
    assert upstairs["upstairs"]["upstairs_id"] == VCR["sub_volumes"][0]["opts"]["id"]
    assert [target["target_addr"] for target in upstairs["upstairs"]["targets"]] == VCR["sub_volumes"][0]["opts"][
        "target"
    ]


async def test_disk_calls_for_unknown_and_failing_disks(vm: WireArm) -> None:
    await run(vm)
    snapshot = f"/snapshot/{UUID_1}"
    code = "No crucible backend for id nope"
    assert_error(await vm.request("GET", "/instance/disk/nope/status"), 404, "Not Found", code)
    assert_error(
        await vm.request("POST", "/instance/disk/nope" + snapshot), 404, "Not Found", "no disk with id nope!"
    )
    assert_error(
        await vm.request("GET", "/instance/disk/disk-device/status"), 404, "Not Found", code[:-4] + "disk-device"
    )
    await vm.control("PUT", "knobs", {"failing_disks": {"disk": "Crucible is unhappy"}})
    for method, path in (("GET", "/instance/disk/disk/status"), ("POST", "/instance/disk/disk" + snapshot)):
        assert_error(await vm.request(method, path), 400, "Crucible is unhappy", "Crucible is unhappy")
    await vm.control("PUT", "knobs", {"failing_disks": {}})
    assert (await vm.request("POST", "/instance/disk/disk" + snapshot))[:2] == (200, None)


async def replaced(vm: WireArm, new: Any) -> tuple[int, Any]:
    text = new if isinstance(new, str) else json.dumps(new)
    return (await vm.request("PUT", "/instance/disk/disk/vcr", {"vcr_json": text}))[:2]


async def stored_volume(vm: WireArm) -> Any:
    _, body, _ = await vm.request("GET", "/instance/spec")
    return json.loads(body["spec"]["value"]["components"]["disk"]["component"]["request_json"])


async def test_region_replacement_is_told_and_kept_as_crucible_does(vm: WireArm) -> None:
    """The table of PR 4.2, in the order in which Nexus goes through it; tests of volumes.py have more."""
    await vm.ensure()
    new = retargeted(raised(VCR), 1)
    assert await replaced(vm, new) == (200, "started")
    assert await stored_volume(vm) == new
    status, told = await replaced(vm, new)
    assert (status, "The VCRs have no difference" in told["message"]) == (400, True)
    assert told["message"] == told["error_code"]
    assert await replaced(vm, raised(new)) == (200, "vcr_matches")
    assert await stored_volume(vm) == raised(new)
    for refused in (new, retargeted(raised(new), 0, 2), "{}", '{"type":"volume"}', "nothing", "[]"):
        assert (await replaced(vm, refused))[0] == 400
    assert await stored_volume(vm) == raised(new), "what was refused is not kept"
    for result in ("started_already", "completed_already", "missing"):
        await vm.control("PUT", "knobs", {"vcr_result": result})
        assert await replaced(vm, raised(new)) == (200, result)
        assert (await replaced(vm, "{}"))[0] == 400


async def test_case_66_and_other_volumes_that_cannot_be_replaced(vm: WireArm) -> None:
    await run(vm)
    answer = await vm.request("PUT", "/instance/disk/nope/vcr", {"vcr_json": "{}"})
    assert_error(answer, 404, "Not Found", "No crucible backend for id nope")
    answer = await vm.request("PUT", "/instance/disk/disk/vcr", {"vcr_json": "{"})
    assert (answer[0], answer[1]["message"]) == (400, answer[1]["error_code"])
    await vm.pace(Point.RECONFIGURE, Pace(0, fail=True))
    answer = await vm.request("PUT", "/instance/disk/disk/vcr", {"vcr_json": "{}"})
    assert (answer[0], answer[1]["message"]) == (400, answer[1]["error_code"])
    await vm.told("3 Running")


async def test_a_reconfigure_left_behind_is_gone(vm: WireArm) -> None:
    await run(vm)
    await vm.hold()
    put = asyncio.ensure_future(vm.request("PUT", "/instance/disk/disk/vcr", {"vcr_json": "{}"}))
    await vm.until(lambda view: view["reconfigures_waiting"] == 1)
    await vm.put(S)
    await vm.go()
    assert_error(await put, 410, "Gone", "VM destroyed before request could be handled")


async def test_an_nmi_is_swallowed(vm: WireArm) -> None:
    await vm.ensure()
    assert (await vm.request("POST", "/instance/nmi"))[:2] == (200, None)
    assert (await vm.look())["nmis"] == 1


# --- monitors -----------------------------------------------------------------------------------------------------


async def test_a_monitor_client_that_goes_away_is_forgotten(vm: WireArm) -> None:
    await run(vm)
    await vm.ask("m", 9)
    vm.monitors["m"].cancel()
    await vm.until(lambda view: view["monitors_waiting"] == 0)


@pytest.mark.parametrize("count", [200, pytest.param(2_000, marks=pytest.mark.long)])
async def test_many_open_polls_cost_no_task_that_spins(vm: WireArm, count: int) -> None:
    raise_open_files()
    await run(vm)
    polls = [asyncio.ensure_future(vm._monitor(4)) for _ in range(count)]
    await vm.until(lambda view: view["monitors_waiting"] == len(polls))
    await vm.put(S)
    answers = set(await asyncio.wait_for(asyncio.gather(*polls), PATIENCE_S * 2))
    assert answers == {"200 6 Destroyed"}


async def test_the_410_names_the_generation_and_the_code_that_sled_agents_look_for(vm: WireArm) -> None:
    await run(vm)
    await vm.put(S)
    await vm.told("6 Destroyed")
    answer = await vm.request("GET", "/instance/state-monitor", {"gen": 7})
    assert_error(answer, 410, "No instance present; will never reach generation 7", "NoInstance")


# --- websocket upgrades -------------------------------------------------------------------------------------------

UPGRADE = {
    "connection": "upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@in_one_test("path", ["/instance/serial", f"/instance/migrate/{UUID_1}/start", "/instance/vnc"])
@in_one_test(
    ("change", "message"),
    [
        pytest.param({"connection": "keep-alive"}, "expected connection upgrade", id="no connection upgrade"),
        pytest.param({"upgrade": "h2c"}, "unexpected protocol for upgrade", id="another protocol"),
        pytest.param({"sec-websocket-version": "8"}, "missing or invalid websocket version", id="an old version"),
        pytest.param({"sec-websocket-key": None}, "missing websocket key", id="no key"),
    ],
)
async def test_an_upgrade_that_is_none(vm: WireArm, path: str, change: dict[str, str | None], message: str) -> None:
    headers = {name: value for name, value in {**UPGRADE, **change}.items() if value is not None}
    lines = [f"GET {path} HTTP/1.1", "host: x", "api-version: 5.0.0", *(f"{k}: {v}" for k, v in headers.items())]
    host, port = vm.address.split(":")
    reader, writer = await asyncio.open_connection(host, port)
    writer.write("\r\n".join([*lines, "", ""]).encode())
    assert (await reader.readline()).split()[1] == b"400"
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    assert json.loads(await reader.readexactly(length))["message"] == message
    writer.close()
    await writer.wait_closed()


@in_one_test("path", ["/instance/serial", f"/instance/migrate/{UUID_1}/start", "/instance/vnc"])
async def test_the_101_comes_before_the_vm_is_looked_at(vm: WireArm, path: str) -> None:
    """No VM: upgraded, then the bare end of the connection, no close frame."""
    ws = await vm.websocket(path)
    message = await asyncio.wait_for(ws.receive(), PATIENCE_S)
    assert message.type is WSMsgType.CLOSED
    assert ws.close_code == 1006


# --- VNC ----------------------------------------------------------------------------------------------------------


async def test_a_vnc_viewer_sees_a_black_screen_until_the_vm_stops(vm: WireArm) -> None:
    await run(vm)
    ws = await vm.websocket("/instance/vnc")
    assert await ws.receive_bytes() == b"RFB 003.008\n"
    await ws.send_bytes(b"RFB 003.008\n")
    assert await ws.receive_bytes() == b"\x01\x01"
    await ws.send_bytes(b"\x01")
    assert await ws.receive_bytes() == b"\0\0\0\0"
    await ws.send_bytes(b"\x01")
    init = await ws.receive_bytes()
    width, height = int.from_bytes(init[:2], "big"), int.from_bytes(init[2:4], "big")
    await ws.send_bytes(b"\x02\0\0\x01\0\0\0\0")  # SetEncodings: raw
    await ws.send_bytes(b"\x03\0\0\0\0\0" + init[:4])
    update = await ws.receive_bytes()
    assert len(update) == 16 + width * height * 4
    assert set(update[16:]) == {0}
    await vm.put(S)
    message = await asyncio.wait_for(ws.receive(), PATIENCE_S)
    assert message.type is WSMsgType.CLOSED


async def test_a_viewer_that_does_not_speak_rfb_is_dropped(vm: WireArm) -> None:
    await run(vm)
    ws = await vm.websocket("/instance/vnc")
    await ws.receive_bytes()
    await ws.send_bytes(b"GET / HTTP/1")
    assert (await asyncio.wait_for(ws.receive(), PATIENCE_S)).type is WSMsgType.CLOSED


# --- migration by a peer that is not ours -------------------------------------------------------------------------


async def test_a_target_that_pings_breaks_the_codec(vm: WireArm) -> None:
    await run(vm)
    ws = await vm.websocket(f"/instance/migrate/{UUID_1}/start")
    await ws.send_str("propolis-migrate-ron/0")
    assert (await ws.receive()).data == "propolis-migrate-ron/0"
    assert (await ws.receive()).type is WSMsgType.BINARY  # the preamble
    await ws.ping()
    await vm.told("4 Migrating out=Sync, 5 Migrating out=Sync, 6 Migrating out=Error, 7 Running out=Error")
    error = await ws.receive()
    assert error.data[-1] == 1
    assert b"Codec" in error.data
    assert (await ws.receive()).type is WSMsgType.CLOSED


async def test_a_binary_offer_is_closed_with_1002(vm: WireArm) -> None:
    await run(vm)
    ws = await vm.websocket(f"/instance/migrate/{UUID_1}/start")
    await ws.send_bytes(b"\0")
    message = await asyncio.wait_for(ws.receive(), PATIENCE_S)
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1002)
    await vm.told("4 Running out=Error")


async def test_sides_without_a_common_version_leave_the_source_running(vm: WireArm) -> None:
    await run(vm)
    target = await vm.another()
    await target.control("PUT", "knobs", {"protocols": ["propolis-migrate-ron/9"]})
    assert await target.ensure_target(vm) == "500"
    await target.told("1 Migrating in=Sync, 2 Failed in=Sync")
    await vm.told("4 Running out=Error")


async def test_a_silent_target_blocks_its_source_until_it_hangs_up(vm: WireArm) -> None:
    await run(vm)
    ws = await vm.websocket(f"/instance/migrate/{UUID_1}/start")
    await vm.until(lambda view: view["waits_for"] == "a message of the migration peer")
    assert await vm.put(S) == QUEUED
    assert await vm.get() == "200 Running"
    await ws.close()
    await vm.told("4 Running out=Error, 5 Stopping out=Error, 6 Stopped out=Error, 7 Destroyed out=Error")


@pytest.mark.parametrize("dying", ["source", "target"])
async def test_a_server_that_dies_in_the_middle_of_a_migration(vm: WireArm, dying: str) -> None:
    await run(vm)
    target = await vm.another()
    (vm if dying == "source" else target).running.host.pacer.set(Point.M_SERVER, Pace(None))
    await vm.migrate_to(target)
    await (vm if dying == "source" else target).reached(Point.M_SERVER)
    if dying == "source":
        await vm.crash()
        await target.until(lambda view: view["level"] == "RundownComplete")
        assert await target.get() == "200 Failed"
    else:
        await target.crash()
        await vm.told("16 Migrating out=Error, 17 Running out=Error")


async def test_a_crash_cuts_monitors_consoles_and_waiting_calls(vm: WireArm) -> None:
    await run(vm)
    await vm.pace(Point.RECONFIGURE, Pace(None))
    poll = asyncio.ensure_future(vm._monitor(9))
    vcr = asyncio.ensure_future(vm.request("PUT", "/instance/disk/disk/vcr", {"vcr_json": "{}"}))
    console = await vm.websocket("/instance/serial")
    await vm.until(
        lambda view: view["monitors_waiting"] == view["reconfigures_waiting"] == view["console_clients"] == 1
    )
    await vm.crash()
    for call in (poll, vcr):
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(call, PATIENCE_S)
    assert (await asyncio.wait_for(console.receive(), PATIENCE_S)).type in {WSMsgType.CLOSED, WSMsgType.ERROR}
    assert await vm.get() == "424"


# --- control ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        pytest.param("PUT", "pace", {"tea-break": {}}, 400, id="no such point"),
        pytest.param("PUT", "pace", {"backends": {"after_us": -1}}, 400, id="a negative time"),
        pytest.param("PUT", "hazards", ["fire"], 400, id="no such hazard"),
        pytest.param("POST", "guest", {"event": "dance"}, 400, id="no such guest event"),
        pytest.param("POST", "guest", {"event": "halt"}, 409, id="no guest runs"),
        pytest.param("POST", "serial", {"text": "x"}, 424, id="no console"),
        pytest.param("PUT", "knobs", {"vcr_result": "maybe"}, 400, id="no such result"),
        pytest.param("POST", "vm", None, 405, id="a wrong method"),
        pytest.param("GET", "nothing", None, 404, id="no such operation"),
    ],
)
async def test_control_refuses_what_it_does_not_know(
    vm: WireArm, method: str, path: str, body: object, status: int
) -> None:
    assert vm.net.session is not None
    url = f"http://{vm.control_address}/control/{path}"
    async with vm.net.session.request(method, url, json=body) as answer:
        assert answer.status == status


async def test_a_pace_for_some_times_wears_off(vm: WireArm) -> None:
    await vm.control("PUT", "pace", {"create": {"fail": True, "times": 1}})
    assert await vm.ensure() == "500"
    assert await vm.ensure() == "201"
    await vm.control("PUT", "pace", {"create": {"after_us": None}})
    assert (await vm.look())["paces"]["create"] == {"after_us": None, "fail": False}
    await vm.control("PUT", "pace", {"create": None})
    assert "create" not in (await vm.look())["paces"]


async def test_a_server_that_ends_in_the_middle_of_a_migration_hears_nothing_any_more(
    vm: WireArm, caplog: pytest.LogCaptureFixture
) -> None:
    """Found by the soak: a message that was on its way made a VM publish on a channel that had been taken away."""
    await run(vm)
    await vm.pace(Point.M_DEVICE, Pace(None))
    await vm.migrate_to(await vm.another())
    await vm.reached(Point.M_DEVICE)
    await vm.running.server.close()
    vm.running.host.handle(Settle())
    assert vm.running.server.channel.newest is None
    assert not caplog.records
