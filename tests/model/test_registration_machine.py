"""NX 7 #27: what a rack tells of its sleds, to a Nexus that fails, refuses and decommissions."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from msgspec.structs import replace
from support.rack.driving import ACK, SLED_A, RackDriver, contract

from nexus_client.outbox import Permanent, Transient
from nexus_client.registration import Found, GetSledAgent, NotFound, PostSledAgent, RegistrationRefused
from nexus_client.types import GENERATION_MAX


class RegistrationMachine(RuleBasedStateMachine):
    """Property 27: registration generations rise by exactly 1 per changed info; none after `decommissioned`."""

    def __init__(self):
        super().__init__()
        self.driver = RackDriver()
        self.stored = None  # Nexus's row
        self.lost = False  # an answer was lost since the sled last read
        self.calls = []
        self.silent = False
        self.refused = False
        self.announced = None

    def _take(self, effects):
        self.calls += [effect.call for effect in effects if isinstance(effect, contract.AskNexus)]
        news = [effect.news for effect in effects if isinstance(effect, contract.RegistrationNews)]
        if any(isinstance(each, RegistrationRefused) for each in news) and not self.refused:
            # nobody refused: then there is no generation left under which the news could be told
            assert self.stored is not None
            assert self.stored.generation == GENERATION_MAX
            self.refused = True
        assert len(self.calls) <= 1, "one request at a time"
        assert not (self.calls and self.silent), "silence for ever"
        assert not (self.calls and self.refused), "a refusal stands until there is something new to say"

    @rule(address=st.sampled_from(["[::1]:1", "[::1]:2", "[::1]:3"]))
    def announce(self, address):
        self.announced = self.driver.sled().info(address, 1)
        self.refused = False
        self._take(self.driver.turn(contract.Announce(SLED_A, self.announced)))

    def _reply(self, reply):
        self._take(self.driver.turn(contract.RegistrationReplied(SLED_A, reply)))

    @precondition(lambda self: self.calls)
    @rule()
    def nexus_answers(self):
        match self.calls.pop():
            case GetSledAgent():
                if self.stored is not None and self.stored.decommissioned:
                    self.silent = True
                self._reply(contract.GetReplied(NotFound() if self.stored is None else Found(self.stored)))
            case PostSledAgent(info=info):
                # no row comes back from the upsert, says Nexus (NX 3.3)
                self._reply(
                    contract.PostReplied(ACK if self._store(info) else Transient("500: Internal Server Error"))
                )

    def _store(self, info):
        """Nexus's guard: only a newer generation, and nothing of a decommissioned sled."""
        if self.stored is not None and (self.stored.decommissioned or info.generation <= self.stored.generation):
            return False
        generation = 0 if self.stored is None else self.stored.generation
        assert info.generation == generation + 1, "exactly one more than what is stored"
        assert not info.decommissioned
        if self.stored is not None:
            assert replace(info, generation=generation) != self.stored, "nothing had changed"
        self.stored = info
        return True

    @precondition(lambda self: self.calls)
    @rule(arrived=st.booleans())
    def nexus_fails(self, arrived):
        match self.calls.pop():
            case GetSledAgent():
                self._reply(contract.GetReplied(Transient("503")))
            case PostSledAgent(info=info):
                if arrived:
                    self._store(info)
                self._reply(contract.PostReplied(Transient("lost")))

    @precondition(lambda self: self.calls)
    @rule()
    def nexus_refuses(self):
        self.refused = True
        kind = contract.GetReplied if isinstance(self.calls.pop(), GetSledAgent) else contract.PostReplied
        self._reply(kind(Permanent("400: no", 400)))
        assert not self.calls, "a refusal is not tried again"

    @precondition(lambda self: self.stored is not None and not self.stored.decommissioned and not self.calls)
    @rule(generation=st.sampled_from([1, 5, GENERATION_MAX - 1]))
    def somebody_changes_what_nexus_has(self, generation):
        self.stored = replace(self.stored, generation=max(generation, self.stored.generation))

    @rule(after_us=st.sampled_from([1, 150_000, 3_000_000]))
    def time_passes(self, after_us):
        self.driver.now_us += after_us
        self._take(self.driver.turn(contract.Tick()))

    @precondition(lambda self: self.stored is not None)
    @rule()
    def nexus_decommissions(self):
        self.stored = replace(self.stored, decommissioned=True)

    def teardown(self):
        """Nexus answers again: unless it refused or decommissioned, it ends with what was announced last."""
        for _ in range(50):
            if self.calls:
                self.nexus_answers()
            elif (due_us := self.driver.rack.next_deadline_us()) is not None:
                self.driver.now_us = max(self.driver.now_us, due_us)
                self.time_passes(0)
            else:
                break
        assert not self.calls
        if self.announced is not None and not self.silent and not self.refused and not self.stored.decommissioned:
            assert replace(self.stored, generation=1) == replace(self.announced, generation=1)


TestRegistration = RegistrationMachine.TestCase
