"""Deliberately wrong sleds, for testing tests: each lies or errs in one way, and `breaks` names the judge that must
see it. As the wrong Nexuses prove the model's properties (`nexus_client/stub/variants.py`), these prove invariants
and expectations: a judge that none of them can make fail judges nothing.

A wrong sled stands between the conductor and the rack: it may answer a request itself (`asked`), say something else
to Nexus (`says`), or let something else be so in truth (`seen`). A run with one says so wherever it says anything.

Read before: core/contract.py, play/conductor.py.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from msgspec.structs import replace

from nexus_client.registration import PostSledAgent
from nexus_client.types import (
    TERMINAL,
    SledVmmState,
    UpdatedRuntime,
    VmmRuntimeState,
    VmmState,
)
from propolis_stub.types import InstanceState, MigrationPhase, Publication
from sim_sled.core import contract
from sim_sled.core.errors import Internal
from sim_sled.core.happenings import Happening, Kind
from sim_sled.core.rack import Rack

HOUR: Final = timedelta(hours=1)


class WrongSled:
    """The base lies in nothing. `breaks`: which invariant, or which kind of expectation, must fail with it."""

    name = "wrong"
    breaks: tuple[str, ...] = ()

    def handle(self, rack: Rack, item: contract.Input, now_us: int) -> list[contract.Effect]:
        """As `Rack.handle`, with what this sled makes of it."""
        answer = self.asked(rack, item)
        effects = rack.handle(item, now_us) if answer is None else answer
        told: list[contract.Effect] = []
        for effect in effects:
            if isinstance(effect, contract.PutToNexus):
                said = self.says(effect.body)
                if said is not None:
                    told.append(replace(effect, body=said))
            elif isinstance(effect, contract.AskNexus):
                told.append(self.introduces(effect))
            else:
                told.append(effect)
        return told

    def asked(self, rack: Rack, item: contract.Input, /) -> list[contract.Effect] | None:  # noqa: ARG002
        """Its own answer to an input, None: that of a right sled. May raise a `SledError`."""
        return None

    def says(self, body: SledVmmState, /) -> SledVmmState | None:
        """What Nexus is told instead of this; None: nothing, and the sled waits for an answer for ever."""
        return body

    def introduces(self, ask: contract.AskNexus, /) -> contract.AskNexus:
        """How it registers with Nexus."""
        return ask

    def seen(self, happening: Happening) -> Happening:
        """What happens in truth."""
        if happening.kind is Kind.SENT:
            assert isinstance(happening.data, tuple)
            body, attempt = happening.data
            said = self.says(body)
            return happening if said is None else replace(happening, data=(said, attempt))
        if happening.kind is Kind.PROPOLIS:
            assert isinstance(happening.data, tuple)
            before, after = happening.data
            return replace(happening, data=(before, self.truth(after)))
        return happening

    def truth(self, publication: Publication, /) -> Publication:
        """What its Propolis really does when a right one would do this."""
        return publication


def _with(body: SledVmmState, state: VmmRuntimeState) -> SledVmmState:
    return replace(body, vmm_state=state)


class GenerationGoesBack(WrongSled):
    """The end of a VMM is told with a generation from before."""

    name = "generation-goes-back"
    breaks = ("gen_monotonic",)

    def says(self, body: SledVmmState, /) -> SledVmmState:
        if body.vmm_state.state is not VmmState.DESTROYED:
            return body
        return _with(body, replace(body.vmm_state, gen=max(1, body.vmm_state.gen - 2)))


class TwoStatesInOneGeneration(WrongSled):
    """`destroyed` is told in the generation of the report before it."""

    name = "two-states-in-one-generation"
    breaks = ("gen_monotonic",)

    def says(self, body: SledVmmState, /) -> SledVmmState:
        if body.vmm_state.state is not VmmState.DESTROYED:
            return body
        return _with(body, replace(body.vmm_state, gen=body.vmm_state.gen - 1))


class ClockGoesBack(WrongSled):
    """The clock by which the end of a VMM is told is an hour behind."""

    name = "clock-goes-back"
    breaks = ("time_ordered",)

    def says(self, body: SledVmmState, /) -> SledVmmState:
        if body.vmm_state.state not in TERMINAL:
            return body
        return _with(body, replace(body.vmm_state, time_updated=body.vmm_state.time_updated - HOUR))


class KeepsTheEndToItself(WrongSled):
    """The last state of a VMM is never sent, and who asks for it is told the state before."""

    name = "keeps-the-end-to-itself"
    breaks = ("final_state_acked", "acked")

    def asked(self, rack: Rack, item: contract.Input, /) -> list[contract.Effect] | None:
        if not isinstance(item, contract.GetState):
            return None
        vmm = rack.sleds[item.sled_id].vmms.get(item.propolis_id)
        if vmm is None or not vmm.terminal:
            return None
        state = vmm.record.vmm_state
        before = replace(state, state=VmmState.STOPPING, gen=state.gen - 1)
        return [contract.Reply(item.ticket, _with(vmm.record, before))]

    def says(self, body: SledVmmState, /) -> SledVmmState | None:
        return None if body.vmm_state.state in TERMINAL else body


class SaysNothingOfRunning(WrongSled):
    """That a guest runs is told as if it were still starting: what Nexus confirms is not what is."""

    name = "says-nothing-of-running"
    breaks = ("acked",)

    def says(self, body: SledVmmState, /) -> SledVmmState | None:
        return None if body.vmm_state.state is VmmState.RUNNING else body


class SourceRunsOn(WrongSled):
    """The source of a migration runs on when its guest has moved."""

    name = "source-runs-on"
    breaks = ("one_running_vmm",)

    def truth(self, publication: Publication, /) -> Publication:
        out = publication.migration_out
        ends = publication.state is InstanceState.STOPPING
        moved = out is not None and out.state is MigrationPhase.FINISH and ends
        return replace(publication, state=InstanceState.RUNNING) if moved else publication


class BoastsOfRoom(WrongSled):
    """It registers with eight times the threads and memory that it has."""

    name = "boasts-of-room"
    breaks = ("capacity",)

    def introduces(self, ask: contract.AskNexus, /) -> contract.AskNexus:
        if not isinstance(ask.call, PostSledAgent):
            return ask
        info = ask.call.info
        more = replace(
            info,
            usable_hardware_threads=info.usable_hardware_threads * 8,
            usable_physical_ram=info.usable_physical_ram * 8,
            reservoir_size=info.reservoir_size * 8,
        )
        return replace(ask, call=replace(ask.call, info=more))


class KeepsWhatIsUnregistered(WrongSled):
    """`vmm_unregister` is answered, and the VMM stays."""

    name = "keeps-what-is-unregistered"
    breaks = ("no_leaks",)

    def asked(self, rack: Rack, item: contract.Input, /) -> list[contract.Effect] | None:
        if not isinstance(item, contract.Unregister):
            return None
        vmm = rack.sleds[item.sled_id].vmms.get(item.propolis_id)
        return [contract.Reply(item.ticket, UpdatedRuntime(None if vmm is None else vmm.record))]


class FailsForNoReason(WrongSled):
    """What Nexus asks of a VMM is answered with 500."""

    name = "fails-for-no-reason"
    breaks = ("no_unexplained_5xx",)

    def asked(self, _rack: Rack, item: contract.Input, /) -> list[contract.Effect] | None:
        if isinstance(item, contract.PutState):
            raise Internal("for no reason")
        return None


class CallsRunningFailed(WrongSled):
    """A VMM that begins to run is told as failed, so that Nexus starts another."""

    name = "calls-running-failed"
    breaks = ("never",)

    def says(self, body: SledVmmState, /) -> SledVmmState:
        if body.vmm_state.state is not VmmState.RUNNING:
            return body
        return _with(body, replace(body.vmm_state, state=VmmState.FAILED))


class CallsTheEndRunning(WrongSled):
    """A VMM that has ended is told as running once more."""

    name = "calls-the-end-running"
    breaks = ("never same: vmm",)

    def says(self, body: SledVmmState, /) -> SledVmmState:
        if body.vmm_state.state is not VmmState.DESTROYED:
            return body
        return _with(body, replace(body.vmm_state, state=VmmState.RUNNING))


SLED_VARIANTS: Final[dict[str, type[WrongSled]]] = {
    str(variant.name): variant
    for variant in (
        GenerationGoesBack,
        TwoStatesInOneGeneration,
        ClockGoesBack,
        KeepsTheEndToItself,
        SaysNothingOfRunning,
        SourceRunsOn,
        BoastsOfRoom,
        KeepsWhatIsUnregistered,
        FailsForNoReason,
        CallsRunningFailed,
        CallsTheEndRunning,
    )
}


def wrong_sled(variant: str | None) -> WrongSled | None:
    """None for None: right sleds. Raises KeyError with the known names for an unknown one."""
    if variant is None:
        return None
    if variant not in SLED_VARIANTS:
        raise KeyError(f"no sled variant {variant!r}; there are: {', '.join(sorted(SLED_VARIANTS))}")
    return SLED_VARIANTS[variant]()
