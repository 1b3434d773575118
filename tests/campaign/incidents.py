"""Incidents that nobody has seen, by the hundred: drawn, written as logs, imported, and held against what happened.

    python -m tests.campaign.incidents [SEEDS] [--from N] [--kind NAME] [--part] [--keep FOLDER]

Of each seed a year, hosts, VMs, what their users did, and one or two things that went wrong are drawn; everybody
who took part writes it (`tests/support/incident`), in one of the ways in which people hand logs on. Then the
scenario must have a rule for what went wrong, none for what did not, what users wanted in its order and at its time,
the states of each VMM; it must be valid, play to its end, quote lines that are there, and `--verify` must hold. Each
seed that differs is printed with what differs; the last line has the count.
"""

import argparse
import gzip
import io
import random
import re
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest lets tests import `support`

from support.incident import faults
from support.incident.drawing import World
from support.incident.printing import looker, node

from sim_sled.incident.importing import NothingFound, import_logs
from sim_sled.incident.verify import states_of
from sim_sled.language.check import parse_scenario

US = 1_000_000
LIVES = ("reboot", "stop and start", "nothing")


def life(world, one, until):
    """Something that goes well."""
    kind = world.drawn.choice(LIVES)
    at = one.free + world.drawn.uniform(5, 40)
    if one.vmm.ends is not None or at > until:
        return
    if kind == "reboot":
        world.reboot(at, one)
    elif kind == "stop and start":
        world.stop(at, one)
        world.boot(one.free + world.drawn.uniform(2, 40), one)


def struck(world, kind):
    """One thing goes wrong, of a VM that may have lived before and may live on."""
    one = world.instance()
    at = max((each.free for each in world.instances if each.free < float("inf")), default=0.0)
    at = max(at, world.end, 1.0)
    if kind in faults.STARTS:
        at += world.drawn.uniform(1, 20)
        if world.drawn.random() < 0.4:
            world.boot(at, one)
            world.stop(one.free + 10, one)
            at = one.free + world.drawn.uniform(3, 30)
        kind(world, one, at)
    else:
        world.boot(at + world.drawn.uniform(1, 20), one)
        if world.drawn.random() < 0.4:
            life(world, one, float("inf"))
        kind(
            world, one, max(one.free, *(e.free for e in world.instances if e.free < 1e9)) + world.drawn.uniform(3, 60)
        )
    if one.free < float("inf") and world.drawn.random() < 0.5:
        life(world, one, float("inf"))


KINDS = (*faults.STARTS, *faults.RUNNING)


def draw(seed, only=None):
    """A world in which something happened. Kinds that do not fit its year are drawn again."""
    for attempt in range(100):
        world = World(seed * 1000 + attempt)
        d = world.drawn
        try:
            for _ in range(d.choice([0, 1, 1, 2])):
                one = world.instance()
                world.boot(d.uniform(1, 20), one)
                life(world, one, float("inf"))
            kinds = [d.choice([k for k in KINDS if only in (None, k.__name__)])]
            if only is None and d.random() < 0.2:
                kinds.append(d.choice([k for k in KINDS if k not in kinds and k in QUIET]))
            for kind in kinds:
                struck(world, kind)
        except faults.Unfit:
            continue
        world.kinds = [kind.__name__ for kind in kinds]
        ends = [each.free for each in world.instances if each.free < float("inf")]
        ends += [v.told or v.runs or 0 for each in world.instances for v in each.vmms]
        world.end = max([world.end, *ends]) + d.uniform(5, 70)
        world.checks()
        return world.noise()
    raise AssertionError(f"{only} fits no world")


QUIET = frozenset({
    faults.slow_start, faults.register_refused, faults.slow_stop, faults.guest_resets, faults.guest_halts,
    faults.migration, faults.put_refused,
})  # fmt: skip
"""Of which two may come in one incident: others strike whole sleds, or Nexus."""


# ---- as people hand logs on


def scribes(world):
    found = list(world.agents)
    found += [world.nexus] if world.with_nexus else []
    return found + [v.zone for one in world.instances for v in one.vmms if v.zone is not None and v.zone.lines]


def file_name(scribe):
    if scribe.name == "SledAgent":
        return "oxide-sled-agent:default.log"
    return "oxide-nexus:default.log" if scribe.name == "nexus" else "system-illumos-propolis-server:default.log"


def joined(lines):
    return "".join(f"{line}\n" for line in lines).encode()


def save(world, folder):
    """The files, in one of the ways; returns what to give to `import`."""
    d = random.Random(world.seed + 1)
    ways = ["files", "files", "one file", "rotated", "bundle", "unpacked bundle", "gzip", "zone bundles"]
    ways += ["looker", "bunyan"]
    if world.era.name.startswith("2023"):
        ways.remove("looker")  # it prints no zones
    world.way = way = d.choice(ways)
    cut = d.random() < 0.3
    files = []
    for n, scribe in enumerate(scribes(world)):
        lines = scribe.written()
        if not lines:
            continue
        if cut and n == 0:
            lines.append(lines[-1][: len(lines[-1]) // 2])
        files.append((n, scribe, lines))
    if way == "one file":  # by their own clocks, as `sort` or a person has it
        everything = [(at, n, text) for n, s, _ in files for at, text in s.lines if at < s.ends_at]
        everything.sort(key=lambda each: (each[0], each[1]))
        (folder / "all.log").write_bytes(joined(text for _, _, text in everything))
        return [str(folder / "all.log")]
    given = []
    bundle = {}
    for n, scribe, lines in files:
        zone = "global" if scribe.name == "SledAgent" else scribe.host
        service = {"SledAgent": "sled-agent", "nexus": "nexus"}.get(scribe.name, "propolis-server")
        base = f"rack/r/sled/{scribe.host}/logs/{zone}/{service}"
        third = max(1, len(lines) // 3)
        parts = {"archive": lines[:third], ".0": lines[third - 1 : 2 * third], "": lines[2 * third - 1 :]}
        if "bundle" in way and way != "zone bundles":
            name = file_name(scribe)
            bundle[f"{base}/archive/{name}.1786999999"] = joined(parts["archive"])
            bundle[f"{base}/current/{name}.0"] = joined(parts[".0"])
            bundle[f"{base}/current/{name}"] = joined(parts[""])
            continue
        place = folder / f"{n}-{scribe.host}"
        place.mkdir()
        if way == "rotated":
            (place / f"{file_name(scribe)}.1786999999").write_bytes(joined(parts["archive"]))
            (place / f"{file_name(scribe)}.0").write_bytes(joined(parts[".0"]))
            (place / file_name(scribe)).write_bytes(joined(parts[""]))
        elif way == "gzip":
            (place / (file_name(scribe) + ".gz")).write_bytes(gzip.compress(joined(lines)))
        elif way == "zone bundles" and scribe.name == "propolis-server":
            with tarfile.open(place / "bundle.tar.gz", "w:gz") as tar:
                for name, content in (("metadata.toml", b"version = 0\n"), (file_name(scribe), joined(lines))):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        elif way in ("looker", "bunyan"):
            (place / "printed.txt").write_bytes(joined(looker(lines) if way == "looker" else node(lines)))
        else:
            (place / file_name(scribe)).write_bytes(joined(lines))
        given.append(str(place))
    if bundle:
        bundle["bundle_id.txt"] = b"x"
        bundle["rack/r/sled/s/zfs.json"] = b"{}"
        if way == "bundle":
            with zipfile.ZipFile(folder / "bundle.zip", "w", zipfile.ZIP_DEFLATED) as file:
                for name, content in bundle.items():
                    file.writestr(name, content)
            return [str(folder / "bundle.zip")]
        for name, content in bundle.items():
            path = folder / "bundle" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return [str(folder / "bundle")]
    return given


# ---- the judge


def fits(world, fault, rule, shift):
    """Whether a rule is about a fault, with its numbers."""
    kinds = {type(each).__name__ for each in rule.do}
    if not kinds & set(fault.kinds):
        return False
    whom = {*rule.for_.hostname, *rule.for_.sled} if rule.for_ is not None else set()
    if fault.who is not None and not whom & {fault.who, fault.who.lower()}:
        return False
    by = {type(each).__name__: each for each in rule.do}
    for key, meant in fault.near.items():
        value, slack = meant if isinstance(meant, tuple) and key in NUMBERS else (meant, None)
        found = NUMBERS[key](rule, by) if key in NUMBERS else WORDS[key](rule, by)
        if key == "when" and found is not None:
            found -= shift
        if found is None or (abs(found - value) > slack if slack is not None else not agrees(found, value)):
            return False
    return True


def agrees(found, value):
    """`value` may be one of several."""
    return found == value or (isinstance(value, tuple) and found in value)


NUMBERS = {
    "delay": lambda rule, by: by["Delay"].base.at(0) / US if "Delay" in by else 0.0,
    "lasts": lambda rule, by: next((a.lasts / US for a in rule.do if hasattr(a, "lasts")), None),
    "hold": lambda rule, by: by["Hold"].lasts / US if "Hold" in by else None,
    "down": lambda rule, by: next((a.down.at(0) / US for a in rule.do if hasattr(a, "down")), None),
    "when": lambda rule, by: None if rule.when is None or rule.when.at is None else rule.when.at / US,
}
WORDS = {
    "edge": lambda rule, by: rule.when.edge[0] if rule.when.edge else None,
    "status": lambda rule, by: next((a.status for a in rule.do if hasattr(a, "status")), None),
    "request": lambda rule, by: rule.when.request[0] if rule.when.request else None,
    "state": lambda rule, by: next((a.state for a in rule.do if hasattr(a, "state")), None),
    "event": lambda rule, by: by["Guest"].event if "Guest" in by else None,
}
HARMLESS = ("check-answered-late", "check-not-answered")
"""Checks that meet a busy agent wait for it (LG 0 #8); whether that is worth a rule is a matter of taste."""


def in_part(world):
    """Takes logs away, as people hand on a part: then what happened cannot all be known (LG 6)."""
    d = random.Random(world.seed + 2)
    world.part = d.choice(
        ["Nexus alone", "one sled", "Propolis alone", "the end", "the beginning", "a line in ten lost"]
    )
    everybody = [*world.agents, world.nexus, *(v.zone for i in world.instances for v in i.vmms if v.zone is not None)]
    moment = d.uniform(0, world.end)
    for n, scribe in enumerate(everybody):
        is_nexus, is_zone = scribe is world.nexus, scribe.name == "propolis-server"
        lines = scribe.lines
        if world.part == "Nexus alone":
            lines = lines if is_nexus else []
        elif world.part == "Propolis alone":
            lines = lines if is_zone else []
        elif world.part == "one sled":
            lines = lines if n == 0 else []
        elif world.part == "a line in ten lost":
            lines = [each for each in lines if d.random() > 0.1]
        else:
            after = world.part == "the end"
            lines = [each for each in lines if (each[0] > moment) is after]
        scribe.lines = lines
    world.with_nexus = world.part == "Nexus alone" or world.with_nexus


def judged_in_part(world, given):
    """What can be demanded of a part: a scenario that plays what is known, or the word that there is nothing."""
    try:
        found = import_logs(given, f"seed-{world.seed}", date(2026, 8, 24))
    except NothingFound:
        return [], ""
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is a finding
        return [f"{type(error).__name__}: {str(error)[:300]}"], ""
    wrong = [f"replay: {each}" for each in found.differences]
    quotes(given, found, wrong)
    return wrong, found.text


def judged(world, given):
    """What of the imported scenario is not as it was."""
    try:
        found = import_logs(given, f"seed-{world.seed}", date(2026, 8, 24))
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is a finding
        return [f"{type(error).__name__}: {str(error)[:300]}"], ""
    wrong = [f"replay: {each}" for each in found.differences] + [f"not met: {each}" for each in found.failed]
    scenario, problems = parse_scenario(found.text, "imported")
    if scenario is None:
        return [*wrong, f"not valid: {problems.text()[:200]}"], found.text
    shift = times_of(world, scenario, found, wrong)
    meant = set()
    for fault in world.faults:
        about = [rule for rule in scenario.rules if fits(world, fault, rule, shift)]
        meant.update(rule.name for rule in about)
        if fault.required and not about:
            wrong.append(f"no rule for {fault!r}")
    others = [rule.name for rule in scenario.rules if rule.name not in meant]
    wrong += [f"a rule for nothing: {name}" for name in others if not any(word in name for word in HARMLESS)]
    sleds = {agent.host.lower() for agent in world.agents if agent.written()}
    named = {over.name for over in scenario.fleet.overrides}
    if named != sleds:
        wrong.append(f"sleds {sorted(named)} instead of {sorted(sleds)}")
    for one in world.instances:
        states(world, one, found, wrong)
    quotes(given, found, wrong)
    return wrong, found.text


def times_of(world, scenario, found, wrong):
    """What users wanted, per VM in its order, and all at their time. Returns how much later the scenario is."""
    apart = []
    for one in world.instances:
        meant = [(verb, at) for verb, name, at in sorted(world.wishes, key=lambda w: w[2]) if name == one.name]
        played = []
        for load in scenario.load:
            verb = load.action()
            value = getattr(load, verb)
            who = value.hostname
            if one.name in (who if isinstance(who, tuple) else (who,)):
                played.append((verb, load.at / US))
        if one.name in world.guessed:  # a stop or a reboot: which, no log says
            meant = [(played[n][0], at) if n < len(played) else (verb, at) for n, (verb, at) in enumerate(meant)]
        if [verb for verb, _ in meant] != [verb for verb, _ in played]:
            wrong.append(f"{one.name}: users wanted {[v for v, _ in meant]}, played is {[v for v, _ in played]}")
            continue
        apart += [there - at for (_, at), (_, there) in zip(meant, played, strict=True)]
    if not apart:
        return 0.0
    shift = min(apart)  # some are a little later, and say so
    late = found.text.count("asked here when it runs") + found.text.count("a little later")
    off = [each for each in apart if abs(each - shift) > 1.0]
    if len(off) > late and not late:
        wrong.append(f"times are {[round(each, 1) for each in off]} apart, not {shift:.1f}")
    return shift


COMPARED = {"running", "rebooting", "migrating", "stopping", "stopped", "destroyed", "failed"}


def states(world, one, found, wrong):
    """Each VMM has gone through what it went through."""
    logged = [states_of(vmm) for vmm in found.draft.compared.get(one.name, [])]
    truth = []
    for vmm in one.vmms:
        out = []
        for state in vmm.states:
            if state in COMPARED and (not out or out[-1] != state):
                out.append(state)
        truth.append(tuple(out))
    for number, each in enumerate(truth):
        if number >= len(logged):
            if each and "as Nexus did then" not in found.text:
                wrong.append(f"{one.name}: VMM {number + 1} is missing: {each}")
        elif logged[number] != each:
            wrong.append(f"{one.name}: VMM {number + 1} went through {each}, read is {logged[number]}")


def quotes(given, found, wrong):
    """Rules and loads stand under a line of a log, or say that they are invented."""
    entries = re.findall(r"((?:^ *#.*\n)*)^- (?:name|at): (.*)$", found.text.partition("\nload:")[2], re.MULTILINE)
    for comments, name in entries:
        if not re.search(r"# \S*\S:\d+(  |$)|uncertain:", comments, re.MULTILINE):
            wrong.append(f"nothing is quoted for {name}")


def one_seed(seed, only=None, keep=None, *, part=False):
    """The world of one seed, and what is wrong with its scenario."""
    world = draw(seed, only)
    world.part = "all"
    if part:
        in_part(world)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if keep is not None:
            place = Path(keep) / str(seed)
            place.mkdir(parents=True, exist_ok=True)
        given = save(world, place)
        wrong, text = (judged_in_part if part else judged)(world, given)
        if keep is not None:
            (place / "scenario.yaml").write_text(text)
    return world, wrong


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.incidents")
    parser.add_argument("seeds", type=int, nargs="?", default=300)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--kind", default=None, choices=[kind.__name__ for kind in KINDS])
    parser.add_argument("--part", action="store_true", help="of each a part of its logs, and less is demanded")
    parser.add_argument("--keep", default=None, help="write the logs and the scenario of each seed here")
    options = parser.parse_args()
    bad, kinds = 0, Counter()
    for seed in range(options.first, options.first + options.seeds):
        world, wrong = one_seed(seed, options.kind, options.keep, part=options.part)
        kinds.update(world.kinds)
        if wrong:
            bad += 1
            logs = f"{'Nexus ' * world.with_nexus}{'Propolis' * world.with_propolis}"
            print(
                f"seed {seed}: {', '.join(world.kinds)}; {world.era.name}; {world.way}; {world.part}; {logs}",
                flush=True,
            )
            for each in wrong:
                print(f"    {each}")
    for kind, count in sorted(kinds.items()):
        print(f"{count:5} {kind}")
    print(f"{options.seeds} incidents, {bad} of which are not what happened")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
