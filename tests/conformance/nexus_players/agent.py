"""Players of the real sled agent's functions: our VMM with a Propolis that answers as the input says.

`ours` plays; `recorded_put_state` is the recorded function itself with one switch per named difference. With all
switches off it must answer what was recorded, with all on what we answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any
from uuid import UUID

from aiohttp import web

from nexus_client.client import NexusClient
from nexus_client.outbox import Permanent
from nexus_client.types import (
    TERMINAL,
    Asked,
    InstanceMigrationTargetParams,
    MigrationRuntimeState,
    MigrationState,
    SledVmmState,
    VmmRuntimeState,
    VmmState,
    VmmStateRequested,
    time_of,
)
from propolis_stub.contract import Disposed, Request
from propolis_stub.errors import Reason, RepairingRejected, RequestDenied
from propolis_stub.request_queue import Disposition
from propolis_stub.types import InstanceState, MigrationPhase, MigrationStatus, Publication, RequestKind
from propolis_stub.waiting import Pace, Point
from sim_sled.core import observe
from sim_sled.core.contract import ExternalIp, Registration
from sim_sled.core.errors import AgentAborts, InvalidRequest, PropolisRefused, SledError
from sim_sled.core.networking.facts import Networking, family
from sim_sled.core.rules import RULES, Verdict
from sim_sled.core.vmm import How, Vmm

NOW_US = 1_700_000_000_000_000
SLED, VMM, M = UUID(int=0x51), UUID(int=0xA), UUID(int=0xD)
SYMBOLS = {UUID(int=0xD): "M", UUID(int=0xE): "M2"}
ALL = frozenset({"stop_before_start", "table_first", "propolis_in_process", "ensure_fails_later"})


def record_of(state: dict[str, Any]) -> SledVmmState:
    def side(given: list[Any] | None) -> MigrationRuntimeState | None:
        if given is None:
            return None
        ids = {name: value for value, name in SYMBOLS.items()}
        return MigrationRuntimeState(ids[given[0]], MigrationState(given[1]), given[2], time_of(NOW_US))

    runtime = VmmRuntimeState(VmmState(state["vmm"][0]), state["vmm"][1], time_of(NOW_US))
    return SledVmmState(runtime, side(state["migration_in"]), side(state["migration_out"]))


def told(record: SledVmmState) -> dict[str, Any]:
    def slot(side: MigrationRuntimeState | None) -> list[Any] | None:
        return None if side is None else [SYMBOLS[side.migration_id], side.state.value, side.gen]

    return {
        "vmm": [record.vmm_state.state.value, record.vmm_state.gen],
        "migration_in": slot(record.migration_in),
        "migration_out": slot(record.migration_out),
    }


class Never(Exception):
    """An answer of Propolis which ours, in the same process, never gives."""


class FakePropolis:
    """A Propolis that was told to run and rests where the record says it will."""

    def __init__(self, state: VmmState, answer: str | None) -> None:
        self.answer = answer
        stops = state in TERMINAL or state in (VmmState.STOPPING, VmmState.STOPPED)
        self.rests = InstanceState.DESTROYED if stops else InstanceState.RUNNING
        self.asked: list[str] = []
        self.queue = object()

    def resting_state(self) -> InstanceState:
        return self.rests

    def next_deadline_us(self) -> None:
        return None

    def handle(self, item: Any, _now_us: int) -> list[Any]:
        if not isinstance(item, Request):
            return []
        names = {RequestKind.RUN: "Run", RequestKind.STOP: "Stop", RequestKind.REBOOT: "Reboot"}
        self.asked.append(names[item.kind])
        if self.answer == "403":
            raise RequestDenied(Reason.HALT_PENDING)
        if self.answer not in ("ok", None):
            raise Never(self.answer)
        return [Disposed(Disposition.QUEUED)]


class EnsurePacer:
    """Everything at once; the objects cannot be built if the ensure fails."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails

    def pace(self, _vm_id: UUID, point: Point, _occurrence: int, _edge: Any, /) -> Pace:
        return Pace(0, fail=self.fails and point is Point.CREATE)


def vmm_of(record: SledVmmState) -> Vmm:
    about = Registration(
        instance_id=UUID(int=1),
        vmm_runtime=record.vmm_state,
        propolis_addr="[::1]:12400",
        ncpus=1,
        memory_mib=1024,
        hostname="web",
        silo_id=UUID(int=8),
        project_id=UUID(int=7),
        migration_id=None if record.migration_in is None else record.migration_in.migration_id,
    )
    return Vmm(SLED, VMM, about, record)


def agent_put_state(_rules: str, given: dict[str, Any], hazard: bool = False) -> Any:
    record = record_of(given["state"])
    vmm = vmm_of(record)
    propolis = FakePropolis(record.vmm_state.state, given["propolis_answer"])
    if given["has_propolis"]:
        if record.migration_in is not None:
            vmm.source_addr = "[::1]:9"  # how it came by its Propolis
        vmm.vm = propolis  # type: ignore[assignment]  # stands in for the real one
    pacer = EnsurePacer(fails=given["propolis_ensure"] == "fails")
    kind = Asked(given["request"])
    # a target builds its objects only when its source has answered: here all of that is at once
    how = How(pacer, stepped=kind is not Asked.MIGRATION_TARGET, stop_grace_us=1, aborts_on_early_stop=hazard)
    params = InstanceMigrationTargetParams("[::1]:9") if kind is Asked.MIGRATION_TARGET else None
    asked: list[str] = propolis.asked
    result: Any
    try:
        verdict, _ = vmm.put_state(VmmStateRequested(kind, params), how, scripted=True, now_us=NOW_US)
        result = {"ok": told(vmm.record)}
        if verdict is Verdict.START:
            if given["propolis_ensure"] == "ok" and given["propolis_answer"] != "ok":
                return {"never": given["propolis_answer"]}
            if given["propolis_ensure"] == "ok":
                asked = ["Run"]
        if vmm.vm is not None and given["propolis_ensure"] == "fails" and not given["has_propolis"]:
            vmm.blind = False
            vmm.see(NOW_US)
    except Never as never:
        return {"never": str(never)}
    except AgentAborts as abort:
        return {"panic": str(abort)}
    except PropolisRefused:
        result = {"error": "propolis"}
    except SledError as refused:
        result = {"error": "registered but not running" if "never started" in str(refused) else "table"}
    ends = vmm.terminal and vmm.record is not record
    return {
        "result": result,
        "asked_propolis": asked,
        "after": told(vmm.record),
        "has_propolis": vmm.vm is not None and not ends,
        "ends": ends,
    }


def recorded_put_state(given: dict[str, Any], on: frozenset[str]) -> Any:
    """The recorded function. `on`: the named differences that are played."""
    before = record_of(given["state"])
    state, request, answer = before.vmm_state.state, Asked(given["request"]), given["propolis_answer"]
    there, ensure_fails = given["has_propolis"], given["propolis_ensure"] == "fails"

    def end(result: Any, asked: list[str], after: SledVmmState, *, there: bool, ends: bool = False) -> Any:
        shown = {"ok": told(after)} if result is None else {"error": result}
        return {
            "result": shown,
            "asked_propolis": asked,
            "after": told(after),
            "has_propolis": there,
            "ends": ends,
        }

    if "table_first" in on:
        judged = _table(before, request, there=there)
        if judged is not None:
            result, asked = judged
            if asked and answer not in ("ok", "403"):
                return {"never": answer}
            return end(result, asked, before, there=there)
    if not there:
        if request is Asked.STOPPED:
            if "stop_before_start" not in on:
                return {"panic": "should have an active Propolis zone by now"}
            after = observe.transition(before, VmmState.DESTROYED, NOW_US)
            return end(None, [], after, there=False, ends=True)
        if request is Asked.REBOOT:
            return end("registered but not running", [], before, there=False)
        if ensure_fails:
            failed = observe.transition(before, VmmState.FAILED, NOW_US)
            if "ensure_fails_later" in on:
                # the call is answered; that nothing could be built is seen, and told, like any other end
                side = before.migration_in
                if request is Asked.MIGRATION_TARGET and side is not None and side.state is MigrationState.PENDING:
                    # a target builds its objects in the dialogue with its source: the first phase is seen, too
                    first = MigrationStatus(side.migration_id, MigrationPhase.SYNC)
                    failed = observe.observe(before, InstanceState.FAILED, first, None, NOW_US)
                return end("x", [], failed, there=False, ends=True) | {"result": {"ok": told(before)}}
            return end("ensure", [], failed, there=False, ends=True)
    if request is Asked.MIGRATION_TARGET:
        return end(None, [], before, there=True)
    asked = [{Asked.RUNNING: "Run", Asked.STOPPED: "Stop", Asked.REBOOT: "Reboot"}[request]]
    if ("propolis_in_process" in on and answer not in ("ok", "403")) or (
        "propolis_in_process" in on and not there and answer != "ok"
    ):
        return {"never": answer}
    if answer in ("404 NoInstance", "500 CreateFailed"):
        after = observe.transition(before, VmmState.FAILED, NOW_US)
        return end(None, asked, after, there=False, ends=True)
    if answer != "ok":
        return end("propolis", asked, before, there=True)
    moves = {Asked.STOPPED: VmmState.STOPPING, Asked.REBOOT: VmmState.REBOOTING}
    after = before if request not in moves else observe.transition(before, moves[request], NOW_US)
    assert state is not None
    return end(None, asked, after, there=True)


def _table(before: SledVmmState, request: Asked, *, there: bool) -> tuple[str | None, list[str]] | None:
    """What our table says where it does not let the request pass to what the agent would do with it."""
    state = before.vmm_state.state
    resting = state
    if there and state not in TERMINAL:
        stops = state in (VmmState.STOPPING, VmmState.STOPPED)
        resting = VmmState.DESTROYED if stops else VmmState.RUNNING
    if request is Asked.MIGRATION_TARGET and there and before.migration_in is not None and state not in TERMINAL:
        return None  # told before: the second ensure is swallowed, here as there
    verdict = RULES[request, resting]
    if verdict is Verdict.NO_OP:
        quiet = request is Asked.STOPPED and there and state not in TERMINAL
        return None, ["Stop"] if quiet else []
    if verdict is Verdict.REFUSE:
        return "table", []
    if request is Asked.MIGRATION_TARGET and before.migration_in is None:
        return "table", []
    if verdict is Verdict.REBOOT and there and state is VmmState.REBOOTING:
        return None, []
    return None


def put_state_switches(given: dict[str, Any]) -> frozenset[str]:
    """The differences that this input needs."""
    ours = recorded_put_state(given, ALL)
    return frozenset(switch for switch in ALL if recorded_put_state(given, ALL - {switch}) != ours)


def agent_monitor_message(_rules: str, given: dict[str, Any]) -> Any:
    record = record_of(given["state"])
    vmm = vmm_of(record)
    update = given["update"]
    if update in ("zone_gone", {"error": "NoInstance"}):
        vmm.force(VmmState.FAILED, NOW_US)
    elif "state" in update:
        vmm.latest = Publication(1, InstanceState(update["state"]), None, None)
        try:
            vmm.see(NOW_US)
        except RepairingRejected:
            return {"rejected": "Repairing"}
    ends = vmm.terminal
    return {
        "after": told(vmm.record),
        "monitor_goes_on": not ends,
        "published_at_once": vmm.record is not record and not ends,
        "ends": ends,
        "has_propolis": not ends,
    }


def agent_monitor_poll(_rules: str, given: dict[str, Any]) -> Any:
    """Our monitor is a call in the same process: what stays silent is retried for ever, what is gone is Failed."""
    answer = given["answer"]
    if answer == "ok":
        return {"update": "state"}
    if isinstance(answer, dict) and "communication" in answer:
        vmm = vmm_of(record_of({"vmm": ["running", 7], "migration_in": None, "migration_out": None}))
        if given["zone"] in ("running", "cannot tell"):
            vmm.go_silent(NOW_US)
            assert vmm.state is VmmState.RUNNING
            return "transient"
        vmm.force(VmmState.FAILED, NOW_US)
        assert vmm.terminal
        return {"update": "zone_gone"}
    return {"update": answer}


def agent_unregister(_rules: str, given: dict[str, Any]) -> Any:
    vmm = vmm_of(record_of(given["state"]))
    vmm.unregister(NOW_US)
    return {"answer": told(vmm.record), "owner": "Nexus", "published": False}


@cache
def publication_of(status: int, code: str | None) -> str:
    """One real publication against a Nexus that answers so."""

    async def play() -> str:
        async def answer(_request: web.Request) -> web.Response:
            body = {"request_id": "r", "message": "no"} | ({} if code is None else {"error_code": code})
            return web.json_response(body, status=status)

        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        try:
            async with NexusClient(f"{host}:{port}") as client:
                told = await client.put_vmm_state(
                    VMM, record_of({"vmm": ["running", 7], "migration_in": None, "migration_out": None})
                )
        finally:
            await runner.cleanup()
        return "permanent" if isinstance(told, Permanent) else "transient"

    return asyncio.run(play())


def agent_publish_failure(_rules: str, given: dict[str, Any]) -> Any:
    if given["kind"] == "error_response":
        return publication_of(given["status"], given["error_code"])
    return "transient" if given["kind"] == "communication" else "permanent"


def external_ip(given: dict[str, Any], change: Callable[[Networking, ExternalIp], None], *, adds: bool) -> Any:
    networking = Networking()
    vmm = vmm_of(record_of({"vmm": ["running", 7], "migration_in": None, "migration_out": None}))
    networking.vmm_registered(VMM, vmm.about)
    for version in ("v4", "v6"):
        config = given["config"][version]
        if config is None:
            continue
        if config["ephemeral"] is not None:
            networking.put_external_ip(VMM, ExternalIp("ephemeral", config["ephemeral"]))
        for address in config["floating"]:
            networking.put_external_ip(VMM, ExternalIp("floating", address))
    request = given["request"]
    asked = ExternalIp(request["type"], request["value"])
    try:
        change(networking, asked)
    except InvalidRequest:
        return {"error": "opte implicit detach"}
    after: dict[str, Any] = {}
    held = networking._vmms[VMM].external_ips
    for version, number in (("v4", 4), ("v6", 6)):
        mine = [ip for ip in held if family(ip.ip) == number]
        made = adds and family(asked.ip) == number
        if given["config"][version] is None and not made:
            assert not mine
            after[version] = None
            continue
        after[version] = {
            "ephemeral": next((ip.ip for ip in mine if ip.kind == "ephemeral"), None),
            "floating": sorted(ip.ip for ip in mine if ip.kind == "floating"),  # a set
        }
    return {"config": after}


def agent_add_external_ip(_rules: str, given: dict[str, Any]) -> Any:
    return external_ip(given, lambda facts, ip: facts.put_external_ip(VMM, ip), adds=True)


def agent_delete_external_ip(_rules: str, given: dict[str, Any]) -> Any:
    return external_ip(given, lambda facts, ip: facts.delete_external_ip(VMM, ip), adds=False)


AGENT: dict[str, Callable[[str, dict[str, Any]], Any]] = {
    "agent_put_state": agent_put_state,
    "agent_monitor_message": agent_monitor_message,
    "agent_monitor_poll": agent_monitor_poll,
    "agent_unregister": agent_unregister,
    "agent_publish_failure": agent_publish_failure,
    "agent_add_external_ip": agent_add_external_ip,
    "agent_delete_external_ip": agent_delete_external_ip,
}
