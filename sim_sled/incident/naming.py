"""Which VMMs are of which instance, what it is called, and whom users mean (LG 5).

Read before: incident/timeline.py. Read next: incident/collecting.py.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Final

import attrs

from sim_sled.incident.facts import Op, User
from sim_sled.incident.timeline import WISH_US, Incident, Instance
from sim_sled.language.schema import GIB

NCPUS_MAX: Final = 254
MEMORY_GIB_MAX: Final = 1536
"""The largest VM that a Nexus takes; its memory is whole GiB."""
_HOST_NAME: Final = re.compile("[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def give_names(out: Incident) -> None:
    """Instances get their VMMs, names, sizes and users."""
    for vmm in sorted(out.vmms.values(), key=lambda each: each.first_us()):
        owner = out.instance(vmm.instance or f"of-{vmm.id}")
        owner.vmms.append(vmm)
        about = vmm.described
        if about is not None:
            owner.name = owner.name or about.hostname
            owner.ncpus = owner.ncpus if owner.ncpus is not None else _of_nexus(about.ncpus, NCPUS_MAX)
            whole = None if about.memory is None else -(-about.memory // GIB)
            memory_gib = _of_nexus(whole, MEMORY_GIB_MAX)
            owner.memory = owner.memory if owner.memory is not None or memory_gib is None else memory_gib * GIB
    unknown: dict[str, list[User]] = defaultdict(list)
    for user in out.users:
        meant = out.instances.get(user.key) or _named_then(out, user) or out.instances.get(user.instance)
        if meant is not None and user.verb != "create":
            meant.users.append(user)
        elif user.verb != "create" and user.key:
            unknown[user.key].append(user)
    for key, users in unknown.items():
        _whom_users_name(out, key, users)
    for each in out.instances.values():
        each.users = [attrs.evolve(user, begun=_begun(each, user)) for user in each.users]
    count = 0
    for each in out.told():
        if each.shown and _HOST_NAME.fullmatch(each.shown) is None:
            # no host name of the language: the replay calls it something like it
            like = re.sub("[^a-z0-9]+", "-", each.shown.lower()).strip("-")[:50]
            each.name, each.placeholder = "", like if like[:1].isalpha() else f"vm-{like}".strip("-")
        if not each.name and not each.placeholder:
            count += 1
            each.placeholder = f"vm-{count}"
    _tell_apart(out)


def _named_then(out: Incident, user: User) -> Instance | None:
    """Of the instances with the name that a user gives the one that was there: after a delete it is free again."""
    named = [each for each in out.instances.values() if each.name and each.name == user.key]
    named.sort(key=lambda each: min((vmm.first_us() for vmm in each.vmms), default=0))
    there = [each for each in named if any(vmm.first_us() <= user.at_us + WISH_US for vmm in each.vmms)]
    return next(iter(there[-1:] or named[:1]), None)


def _of_nexus(size: int | None, most: int) -> int | None:
    """A size that Nexus would have taken (NX 4.2); another one was garbled."""
    return size if size is not None and 1 <= size <= most else None


def _whom_users_name(out: Incident, key: str, users: list[User]) -> None:
    """An instance has a name beside its host name, and users may call it by that: it is the one to which something
    happened each time. If nothing ever did, it is one of which the logs know nothing else (LG 3 #22).
    """
    accepted = [user for user in users if user.status < 400 and user.verb != "delete"]
    if not accepted:
        out.in_vain += users  # nothing came of it, and nobody knows whom it meant
        return
    fits = [each for each in out.instances.values() if all(_happened_after(each, user) for user in accepted)]
    if len(fits) == 1:
        [meant] = fits
        meant.placeholder = meant.placeholder or key
    else:
        meant = out.instance(key)
        meant.placeholder = key
    meant.users += users
    out.called[key] = meant


def _begun(instance: Instance, user: User) -> bool:
    """Whether what a user was refused had begun: a start or a migration whose VMM is there."""
    targets = user.verb == "migrate"
    begins = (
        vmm for vmm in instance.vmms if targets is (vmm.described is not None and vmm.described.migration != "")
    )
    wished = user.verb in ("start", "migrate")
    return wished and any(-WISH_US <= vmm.first_us() - user.at_us <= 2 * WISH_US for vmm in begins)


def _happened_after(instance: Instance, user: User) -> bool:
    """Whether what a user wished began just then."""
    begins = [start.at_us for start in instance.starts if not start.automatic]
    for vmm in instance.vmms:
        begins += [each.at_us - each.latency_us for each in vmm.asked if each.op in (Op.PUT_STATE, Op.REGISTER)]
        begins += [each.at_us for each in vmm.received if each.state in ("stopping", "rebooting")]
        begins += [each.at_us for each in vmm.declined[:1]]  # the report that told of it was not taken
    return any(abs(at_us - user.at_us) <= WISH_US for at_us in begins)


def _tell_apart(out: Incident) -> None:
    """Two instances of one name: the second gets a number, or a rule would mean both."""
    taken: set[str] = set()
    for each in out.told():
        shown = each.shown
        while each.shown in taken:
            each.name, each.placeholder = "", f"{shown}-{len(taken)}"
        taken.add(each.shown)
