"""What one field alone cannot know: names that must be unique, actions that need a VMM, rules that run in circles.

`load_scenarios` is the door: files in, scenarios and all problems of all files out. Nothing is ever half accepted.

Read before: language/schema.py.
Read next: cli/scenario_texts.py, daemon/doing.py, engine/engine.py, language/check_rules.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Final

import attrs

from nexus_client.dropshot.text import counted
from sim_sled.language.check_rules import check_rules, check_trigger
from sim_sled.language.field_types import BAD, Reader
from sim_sled.language.figures import show_duration, show_size
from sim_sled.language.load import Advice, Map, Scalar, no_advice, read_text, read_tree
from sim_sled.language.record import Struct
from sim_sled.language.schema import (
    NOBODYS,
    USER_ACTIONS,
    VERSION,
    Churn,
    Create,
    Expect,
    Fleet,
    Load,
    Override,
    Scenario,
    Shape,
    That,
    numbered,
)
from sim_sled.language.selector import Selector
from sim_sled.language.source import Mark, Problems
from sim_sled.language.words import hint, is_glob

HOSTNAMES_MAX: Final = 50_000
"""Host names that are compared with selectors; with more nothing is said about selectors that match none."""
FILES_MAX: Final = 10_000
"""Files of one call."""


@attrs.frozen
class Loaded:
    """One file: its scenario, or None if it has errors."""

    shown: str
    scenario: Scenario | None


@attrs.frozen
class Sled:
    """One sled of the fleet as the scenario names it."""

    name: str
    shape: Shape


def load_scenarios(
    paths: Iterable[str], files_from: Iterable[Path] = (), advice: Advice = no_advice
) -> tuple[list[Loaded], Problems]:
    """Reads and checks all files; every problem of every file is told, none is started. What a file includes or reads
    with `file(...)` is in its own folder or below, or in one of `files_from`. Names of the library are understood by
    `play.library.load`, which stands in front of this.
    """
    problems = Problems()
    further = tuple(files_from)
    loaded = [Loaded(path, _load_one(path, problems, further, advice)) for path in list(paths)[:FILES_MAX]]
    return loaded, problems


def _load_one(shown: str, problems: Problems, further: tuple[Path, ...], advice: Advice) -> Scenario | None:
    before = problems.errors
    path = Path(shown)
    folders = (path.parent, *further)
    root = read_tree(path, shown, problems, folders, advice)
    if root is None:
        return None
    scenario = _read(root, Reader(problems, path.parent, folders), path.stem)
    return scenario if problems.errors == before else None


def parse_scenario(text: str, shown: str = "-") -> tuple[Scenario | None, Problems]:
    """A scenario given as text, without a folder for `include` and `file(...)`."""
    problems = Problems()
    root = read_text(text, shown, problems)
    scenario = _read(root, Reader(problems), shown) if root is not None else None
    return (scenario if problems.errors == 0 else None), problems


def _read(root: Map, reader: Reader, stem: str) -> Scenario | None:
    version = root.get("version")
    if isinstance(version, Scalar) and re.fullmatch("[0-9]{1,9}", version.text) and int(version.text) > VERSION:
        # Nothing else is told: a newer language may well have fields that are unknown here.
        reader.bad(
            "E101",
            version.mark,
            f"version {version.text} is newer than this program, which reads version {VERSION}; upgrade sim-sled",
        )
        return None
    scenario = Struct(Scenario).read(root, reader, "scenario")
    if scenario is BAD:
        return None
    assert isinstance(scenario, Scenario)
    if not scenario.has("name"):
        name = re.sub("[^a-z0-9-]+", "-", stem.lower()).strip("-")[:63]
        scenario = attrs.evolve(scenario, name=name or "unnamed")
    if scenario.version is not None and scenario.version < VERSION:
        reader.bad(
            "E101", scenario.mark("version"), f"there is no version {scenario.version}; write 'version: {VERSION}'"
        )
    scenario = attrs.evolve(scenario, include=(), vars=())  # both have done their work
    check(scenario, reader.problems)
    return scenario


def check(s: Scenario, problems: Problems) -> None:
    """All checks across fields."""
    sleds = _check_fleet(s.fleet, problems)
    _check_nexus(s, problems)
    names = frozenset(sled.name for sled in sleds)
    check_rules(s, names, problems)
    hostnames = _hostnames(s)
    for selector, mark in _selectors(s):
        _check_selector(selector, mark, names, hostnames, problems)
    for i, expect in enumerate(s.expect):
        _check_expect(expect, i, s, problems)
    for entry in s.load:
        _check_load(entry, names, hostnames, problems)
    _check_room(s, sleds, problems)


def _check_room(s: Scenario, sleds: list[Sled], problems: Problems) -> None:
    """Whether what is created fits at all: each entry by itself on empty sleds, and all that nobody ever stops. What
    `every` creates, and a fleet that shrinks, only a run can tell (W314). A file without `fleet` is for a rack of any
    size (`up --sleds`).
    """
    if not s.has("fleet"):
        return
    frees = any(entry.stop is not None or entry.delete is not None or entry.churn is not None for entry in s.load)
    cpus = sum(sled.shape.cpus for sled in sleds)
    memory = sum(sled.shape.reservoir for sled in sleds)
    fleet = f"the fleet ({len(sleds)} sled{'s' * (len(sleds) != 1)})"
    for entry in s.load:
        create = entry.create
        if create is None or not create.start or not entry.has("at"):
            continue
        each = (min(sled.shape.cpus // create.ncpus, sled.shape.reservoir // create.memory) for sled in sleds)
        room = sum(each)
        if not frees:
            cpus -= create.count * create.ncpus
            memory -= create.count * create.memory
        many, cpus_each = counted(create.count, "instance"), counted(create.ncpus, "CPU")
        what = f"{many} of {cpus_each} and {show_size(create.memory)}"
        if create.count > room:
            problems.add("W315", create.mark("count"), f"{what}, but {fleet} has room for {room} of them")
        elif cpus < 0 or memory < 0:
            lacking = "CPUs" if cpus < 0 else "memory"
            problems.add("W315", create.mark("count"), f"{what}: with those before, more {lacking} than {fleet} has")
        if create.count > room or cpus < 0 or memory < 0:
            return


def sleds_of(fleet: Fleet) -> list[Sled]:
    """The sleds of a fleet with their names and shapes, in order."""
    sleds = []
    for n in range(1, fleet.sleds + 1):
        name, shape = numbered(fleet.name, n), fleet.shape
        own = name
        for override in fleet.overrides:
            if any(fnmatchcase(name, g) for g in override.sled or ()):
                own = override.name or own
                changed = {
                    k: getattr(override, k)
                    for k in ("cpus", "ram", "reservoir", "zpools", "model", "cpu_family", "role")
                    if getattr(override, k) is not None
                }
                shape = attrs.evolve(shape, **changed)
        sleds.append(Sled(own, shape))
    return sleds


def _check_fleet(fleet: Fleet, problems: Problems) -> list[Sled]:
    parts: tuple[Shape | Override, ...] = (fleet.shape, *fleet.overrides)
    for part in parts:
        ram = part.ram or fleet.shape.ram
        reservoir = part.reservoir or fleet.shape.reservoir
        if reservoir >= ram:
            key = "reservoir" if part.has("reservoir") else "ram"
            problems.add(
                "E141", part.mark(key), f"reservoir {show_size(reservoir)} must be less than ram {show_size(ram)}"
            )
    sleds = sleds_of(fleet)
    seen: set[str] = set()
    for sled in sleds:
        if sled.name in seen:
            renamed = next((o for o in fleet.overrides if o.name == sled.name), None)
            mark = renamed.mark("name") if renamed else fleet.mark("name")
            advice = "" if renamed else "; use {n} in the pattern"
            problems.add("E142", mark, f"two sleds are named '{sled.name}'{advice}")
            break
        seen.add(sled.name)
    plain = {numbered(fleet.name, n) for n in range(1, fleet.sleds + 1)}
    for override in fleet.overrides:
        _tell_unmatched(override.sled or (), plain, override.mark("sled"), "sled", problems)
    return sleds


def _check_nexus(s: Scenario, problems: Problems) -> None:
    if s.nexus.internal is None:
        return
    if s.clock == "virtual":
        problems.add(
            "E131", s.mark("clock"), "virtual time needs the Nexus model; leave out 'nexus' or write 'clock: wall'"
        )
    if s.nexus.external is not None or s.nexus.has("external"):
        return
    for expect in s.expect:
        if expect.that is not None and "instance" in expect.that.subjects():
            problems.add(
                "E151",
                expect.that.mark("instance:"),
                "'instance' asks the public API, but 'nexus.external' is missing",
            )


def _hostnames(s: Scenario) -> frozenset[str] | None:
    """Host names that the load makes; None if they are not known beforehand."""
    if not s.load:
        return None
    names: set[str] = set()
    for entry in s.load:
        for made, count in ((entry.create, entry.create and entry.create.count), (entry.churn, 200)):
            if made is not None and made.hostname is not None:
                rounds = 1 if entry.every is None else 20
                names |= _numbered(
                    made.hostname, min(int(count or 1) * rounds, 20_000) if "{n" in made.hostname else 1
                )
                if len(names) > HOSTNAMES_MAX:
                    return None
    return frozenset(names)


@lru_cache(8)  # a swarm reads thousands of scenarios with the same users
def _numbered(hostname: str, count: int) -> frozenset[str]:
    return frozenset(numbered(hostname, n) for n in range(1, count + 1))


def _selectors(s: Scenario) -> list[tuple[Selector, Mark]]:
    found = [(rule.for_, rule.mark("for")) for rule in s.rules if rule.for_ is not None]
    found += [(expect.for_, expect.mark("for")) for expect in s.expect if expect.for_ is not None]
    return found


def _check_selector(
    selector: Selector, mark: Mark, sleds: frozenset[str], hostnames: frozenset[str] | None, problems: Problems
) -> None:
    _tell_unmatched(selector.sled, sleds, selector.mark("sled"), "sled", problems)
    if hostnames is not None:
        _tell_unmatched(selector.hostname, hostnames, selector.mark("hostname"), "hostname", problems)
    for inner in (selector.not_, *selector.any_):
        if inner is not None:
            _check_selector(inner, mark, sleds, hostnames, problems)


def _tell_unmatched(
    globs: Iterable[str], known: Collection[str], mark: Mark, noun: str, problems: Problems, *, code: str = "W300"
) -> None:  # fmt: skip
    for pattern in globs:
        met = any(fnmatchcase(name, pattern) for name in known) if is_glob(pattern) else pattern in known
        if not met:
            near = _near(pattern, frozenset(known))
            problems.add(code, mark, f"no {noun} of this scenario matches '{pattern[:60]}'{near}")


@lru_cache(maxsize=128)
def _near(pattern: str, known: frozenset[str]) -> str:
    """A hint, kept: all seeds of a campaign ask for the same ones. Of very many names the first."""
    return hint(pattern, sorted(known)[:5_000])


def _check_expect(e: Expect, index: int, s: Scenario, problems: Problems) -> None:
    label = f"expectation '{e.name}'" if e.name else f"expectation {index + 1}"
    if e.has("always"):
        extra = [k for k in ("after", "within", "that", "lasts", "never") if e.has(k)]
        if extra:
            problems.add("E111", e.mark(f"{extra[0]}:"), f"{label}: 'always' stands alone, without '{extra[0]}'")
        return
    if e.misspelt():
        return
    if e.has("that") == e.has("never"):
        told = "has both 'that' and 'never'" if e.has("that") else "has no subject; write 'that', 'never' or 'always'"
        problems.add("E250", e.mark("never:") if e.has("that") else e.mark(), f"{label} {told}")
        return
    if e.has("within") and not e.has("after"):
        problems.add(
            "E251",
            e.mark("within:"),
            f"{label} has 'within' without 'after': within {show_duration(e.within or 0)} of what?",
        )
    elif not e.has("after"):
        problems.add("E112", e.mark(), f"{label} has no 'after'; what arms it?")
    if e.has("that"):
        if e.that is not None and not e.that.subjects() and not e.that.misspelt():
            problems.add("E250", e.mark("that"), f"{label} has no subject; write e.g. that: {{vmm: running}}")
        if e.that is not None:
            _check_nobodys(e.that, label, s, problems)
        if not e.has("within"):
            problems.add("E112", e.mark(), f"{label} has 'that' without 'within'; how long may it take?")
    elif not e.has("lasts"):
        problems.add("E112", e.mark(), f"{label} has 'never' without 'lasts'; for how long?")
    for trigger in (e.after, e.never):
        if trigger is not None:
            check_trigger(trigger, label, problems, in_never=trigger is e.never)
    if e.after is not None and e.after.rule is not None:
        _check_armed_by_rule(e, label, s, problems)


def _check_nobodys(that: That, label: str, s: Scenario, problems: Problems) -> None:
    """Subjects that concern no VMM stand alone, and name what there is."""
    given = that.subjects()
    about = [name for name in given if name in NOBODYS]
    if about and len(about) < len(given):
        other = next(name for name in given if name not in NOBODYS)
        told = f"{label}: '{about[0]}' concerns no VMM, '{other}' does; write two expectations"
        problems.add("E250", that.mark(f"{other}:"), told)
    tasks = {entry.name for entry in s.load if entry.task is not None and entry.name is not None}
    for name, _ in that.task:
        if name not in tasks:
            problems.add("E253", that.mark("task"), f"{label}: no task '{name}' in 'load'{hint(name, tasks)}")


def _check_armed_by_rule(e: Expect, label: str, s: Scenario, problems: Problems) -> None:
    assert e.after is not None
    rules = {r.name: r for r in s.rules}
    rule = rules.get(e.after.rule or "")
    if rule is None:
        problems.add(
            "E210", e.after.mark("rule"), f"{label}: no rule '{e.after.rule}'{hint(e.after.rule or '', rules)}"
        )
    elif not rule.enabled or rule.chance == 0:
        problems.add("W310", e.after.mark("rule"), f"{label} is never armed: rule '{rule.name}' never fires")


def _no_number(hostname: str) -> str:
    return f"'{hostname}' has no {{n}}, but names more than one instance; write e.g. \"{hostname}-{{n}}\""


def _check_load(entry: Load, sleds: frozenset[str], hostnames: frozenset[str] | None, problems: Problems) -> None:
    label = f"load '{entry.name}'" if entry.name else "this load entry"
    _check_times(entry, label, problems)
    actions = [a for a in USER_ACTIONS if entry.has(a)]
    if len(actions) != 1 and not entry.misspelt():
        told = "has no action" if not actions else f"has two actions: '{actions[0]}' and '{actions[1]}'"
        problems.add("E264", entry.mark(f"{actions[1]}:") if actions else entry.mark(), f"{label} {told}")
    if entry.create is not None:
        _check_create(entry.create, sleds, problems, often=entry.has("every"))
    if entry.churn is not None:
        _check_churn(entry.churn, label, problems)
    if entry.migrate is not None and entry.migrate.to not in ("any", *sleds):
        told = f"no sled '{entry.migrate.to}'{hint(entry.migrate.to, sleds)}"
        problems.add("E262", entry.migrate.mark("to"), told)
    for name in ("start", "stop", "reboot", "delete", "migrate"):
        selector: Selector | None = getattr(entry, name)
        if selector is None:
            continue
        if hostnames is not None:
            _tell_unmatched(
                selector.hostname, hostnames, selector.mark("hostname"), "instance", problems, code="W311"
            )
        _tell_unmatched(selector.sled, sleds, selector.mark("sled"), "sled", problems, code="W311")


def _check_times(entry: Load, label: str, problems: Problems) -> None:
    if entry.has("at") == entry.has("every"):
        told = "has both 'at' and 'every'" if entry.has("at") else "has neither 'at' nor 'every'"
        problems.add("E260", entry.mark("every:") if entry.has("at") else entry.mark(), f"{label} {told}")
    elif entry.has("every") and not (entry.has("from") and entry.has("to")):
        problems.add("E260", entry.mark("every:"), f"{label} has 'every' without 'from' and 'to'")
    elif entry.has("at") and (entry.has("from") or entry.has("to")):
        key = "from:" if entry.has("from") else "to:"
        problems.add("E260", entry.mark(key), f"{label} has 'at'; 'from' and 'to' go with 'every'")
    elif entry.from_ is not None and entry.to is not None and entry.from_ >= entry.to:
        problems.add("E221", entry.mark("to"), f"{label}: 'from' is not before 'to'")


def _check_create(create: Create, sleds: frozenset[str], problems: Problems, *, often: bool) -> None:
    """`often`: it is done more than once, so that each instance needs a name of its own."""
    if create.hostname is not None and (often or create.count > 1) and "{n" not in create.hostname:
        problems.add("E261", create.mark("hostname"), _no_number(create.hostname))
    for sled in create.sled:
        if sled not in sleds:
            problems.add("E262", create.mark("sled"), f"no sled '{sled}'{hint(sled, sleds)}")


def _check_churn(churn: Churn, label: str, problems: Problems) -> None:
    weights = (churn.create, churn.start, churn.stop, churn.reboot, churn.migrate, churn.delete)
    if not any(weights):
        problems.add("E263", churn.mark(), f"{label}: all weights are zero; nothing would ever happen")
    if churn.hostname is not None and "{n" not in churn.hostname:
        problems.add("E261", churn.mark("hostname"), _no_number(churn.hostname))
