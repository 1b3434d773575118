# ruff: noqa: RUF009 (a field of the language is declared by calling `f`)
"""Whom a rule, an expectation or a user action means; and what sets a rule off.

Read before: language/actions.py. Read next: engine/cast.py, engine/match.py, language/schema.py.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import attrs

from propolis_stub.types import Role
from sim_sled.language.actions import published, state
from sim_sled.language.distribution import Distribution
from sim_sled.language.field_types import (
    BAD,
    DistributionKind,
    Many,
    OneOf,
    Reader,
    Texts,
    counts,
    duration,
    edge,
    glob,
    percent,
    scalar,
    sizes,
    slug,
)
from sim_sled.language.figures import BadValue, Span, clip, parse_duration, show_duration
from sim_sled.language.load import Node
from sim_sled.language.record import Located, Struct, f
from sim_sled.language.words import ALL_OPERATIONS, ASKED, EDGES, MIGRATION_EVENTS, STATES, On, Truth, hint

_globs: Final = Many(glob("E201", "glob"), "globs")


@attrs.frozen
class LazyStruct:
    """A structure that contains itself (`not`, `any`), or several of it."""

    many: bool = False

    def _kind(self) -> Struct | Many:
        return Many(Struct(Selector), "selectors") if self.many else Struct(Selector)

    def read(self, node: Node, reader: Reader, field: str) -> Any:
        return self._kind().read(node, reader, field)

    def show(self, value: Any) -> Any:
        return self._kind().show(value)

    def schema(self) -> dict[str, Any]:
        return self._kind().schema()

    def words(self) -> str:
        return self._kind().words()


@attrs.frozen
class Selector(Located):
    """Which VMMs (and so which sleds) are meant. All fields must hold; nothing at all means everything."""

    noun: ClassVar[str] = "selector"
    unknown: ClassVar[str] = "E200"
    sled: tuple[str, ...] = f(_globs, "Names of sleds.", default=(), words="all", codes="E201 W300")
    vmm: tuple[str, ...] = f(
        _globs, "Ids of VMMs, or their short names (`v17`).", default=(), words="all", codes="E201"
    )
    instance: tuple[str, ...] = f(_globs, "Ids of instances.", default=(), words="all", codes="E201")
    hostname: tuple[str, ...] = f(_globs, "Host names of instances.", default=(), words="all", codes="E201 W300")
    project: tuple[str, ...] = f(
        _globs, "Projects (id, or the name that `create` gave).", default=(), words="all", codes="E201"
    )
    silo: tuple[str, ...] = f(
        _globs, "Silos (id, or the name that `create` gave).", default=(), words="all", codes="E201"
    )
    ncpus: Span | None = f(counts(), "Virtual CPUs.", default=None, words="any", codes="E201")
    memory: Span | None = f(sizes(), "Memory of the VM.", default=None, words="any", codes="E201")
    state: tuple[Truth, ...] = f(
        Many(OneOf(STATES, "E201", "state"), "states"),
        "State of the VMM just now.",
        default=(),
        words="any",
        codes="E201",
    )
    role: Role | None = f(
        OneOf(tuple(Role), "E201", "role"),
        "Its side in a migration.",
        default=None,
        words="any",
        codes="E201",
    )
    nth_vmm: tuple[Span, ...] = f(
        Many(counts(), "numbers"), "Ordinal among the VMMs of the run, from 1.", default=(), words="any", codes="E201"
    )
    percent: int | None = f(
        percent(), "A share of the VMMs, always the same ones for a seed.", default=None, words="all", codes="E220"
    )
    not_: Selector | None = f(LazyStruct(), "Those that this does not mean.", default=None, words="none")
    any_: tuple[Selector, ...] = f(LazyStruct(many=True), "At least one of these.", default=(), words="none")

    def names_vmms(self) -> bool:
        """Whether it speaks of VMMs and not only of sleds."""
        own = any(
            (self.vmm, self.instance, self.hostname, self.project, self.silo, self.state, self.nth_vmm, self.role)
        ) or any(v is not None for v in (self.ncpus, self.memory, self.percent))
        return own or any(s.names_vmms() for s in self.any_)

    def names_sleds(self) -> bool:
        return bool(self.sled) or any(s.names_sleds() for s in self.any_)


EVERYTHING: Final = Selector()


@attrs.frozen
class UntilKind:
    """`to` of a trigger: a requested state beside `request`, a time beside `every`."""

    def read(self, node: Node, reader: Reader, field: str) -> Any:
        word = scalar(node, reader, field, "a requested state (beside 'request') or a time (beside 'every')")
        if not isinstance(word, str):
            return BAD
        if word in ASKED:
            return word
        try:
            return parse_duration(word)
        except BadValue as err:
            if word[:1].isdigit():
                return reader.bad(err.code, node.mark, err.text)
            advice = hint(word, ASKED) or f"; known: {', '.join(ASKED)}"
            return reader.bad("E211", node.mark, f"nobody can ask for '{clip(word)}'{advice}")

    def show(self, value: Any) -> Any:
        return value if isinstance(value, str) else show_duration(value)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"enum": list(ASKED)}, {"type": "string", "pattern": "^[0-9]|\\$\\{"}]}

    def words(self) -> str:
        return " \\| ".join(f"`{a}`" for a in ASKED) + "; beside `every` a duration"


_operation: Final = Many(OneOf(tuple(sorted(ALL_OPERATIONS)), "E212", "operation", globs=True), "operations")


@attrs.frozen
class Trigger(Located):
    """What sets a rule off: exactly one of the first eleven fields. Times count from registration."""

    noun: ClassVar[str] = "trigger"
    request: tuple[str, ...] = f(
        _operation, "Nexus makes this request (operation id of the API, or a glob).", default=(), codes="E212"
    )
    response: tuple[str, ...] = f(_operation, "The sled is about to answer this request.", default=(), codes="E212")
    state: tuple[str, ...] = f(Many(state, "states"), "A VMM enters this state.", default=(), codes="E211")
    edge: tuple[tuple[str, str], ...] = f(
        Many(edge("E211", EDGES), "edges"),
        "A VMM is about to go along this edge; delays hold it up.",
        default=(),
        codes="E211",
    )
    migration: tuple[str, ...] = f(
        Many(OneOf(MIGRATION_EVENTS, "E211", "migration phase"), "phases"),
        "A VMM enters this phase of a migration; `error`: its side failed.",
        default=(),
        codes="E211",
    )
    publish: tuple[str, ...] = f(
        Many(published, "states"),
        "A sled is about to send Nexus a report of this state (`*`: any).",
        default=(),
        codes="E211",
    )
    at: int | None = f(duration(), "Once, at this time.", default=None)
    every: Distribution | None = f(DistributionKind(), "Again and again, with this pause.", default=None)
    idle: int | None = f(duration(), "Nothing has happened for that long.", default=None)
    rule: str | None = f(slug("E210", "rule"), "Another rule fires.", default=None, codes="E210 E245")
    manual: str | None = f(
        slug("E210", "name"), "Somebody says `sim-sled fire NAME`, or a rule says `fire`.", default=None, codes="E210"
    )
    to: str | int | None = f(
        UntilKind(), "With `request`: what `vmm_put_state` asks for. With `every`: until when.", default=None
    )
    from_: int | None = f(duration(), "With `every`: since when.", default=None, words="0s")
    body: tuple[tuple[str, str], ...] = f(
        Texts("a mapping of dotted path to glob"), "With `request`: what its body must hold.", default=()
    )
    same: str | None = f(
        OneOf(("vmm", "instance"), "E111", "scope"),
        "Only in `never`: it counts for the same VMM or instance that armed the expectation.",
        default=None,
        words="any",
    )

    def kind(self) -> On | None:
        """Which trigger it is; None: none that can be read."""
        return next(iter(self.given()), None)

    def _value(self, key: str) -> object:
        return getattr(self, key)

    def given(self) -> list[On]:
        """Triggers that the file names, readable or not."""
        if self.marks:
            return [on for on in On if self.has(on)]
        return [on for on in On if self._value(on) not in (None, ())]

    def of_vmm(self) -> bool:
        """Whether something that sets it off always concerns one VMM."""
        kind = self.kind()
        if kind in (On.REQUEST, On.RESPONSE):
            return all(op.startswith(("vmm_", "instance_")) for op in getattr(self, kind))
        return kind in (On.STATE, On.EDGE, On.MIGRATION, On.PUBLISH)

    def of_sled(self) -> bool:
        return self.of_vmm() or self.kind() in (On.REQUEST, On.RESPONSE)
