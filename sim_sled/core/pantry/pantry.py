"""A Crucible pantry: volumes attached for imports, snapshots and repairs, and the jobs on them (SR 5.2).

Attaching takes `Knobs.attach_us`; whoever wants to answer only then asks `activated` at `next_deadline_us`. Jobs are
kept until their volume is detached. A volume that another upstairs has taken over is still told, but refuses work.

Read before: core/pantry/volume.py. Read next: companions/pantry.py, core/companions.py. Read next: ../companions.py.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID, uuid5

import attrs

from nexus_client.dropshot.text import SocketAddress
from propolis_stub.spec import volumes
from propolis_stub.spec.volumes import File, Region, Request, Url
from sim_sled.core.crucible.agents import Agents
from sim_sled.core.crucible.blocks import Forgotten
from sim_sled.core.crucible.values import REPAIR_PORT_OFFSET, RegionState
from sim_sled.core.errors import BadRequest, Gone, Internal, Missing, TooMany, Unavailable
from sim_sled.core.pantry.request import check_depth, regions_of, size_of
from sim_sled.core.pantry.volume import Contents
from sim_sled.core.timed import timed

CHUNK_MAX: Final = 512 * 1024
"""Bytes of one bulk read or write (SR 5.2)."""

VOLUMES_MAX: Final = 1_000
"""Attached at once: Nexus attaches one per import, snapshot and repair under way."""

JOBS_MAX: Final = 1_000
"""Of one volume: Nexus starts one at a time."""

HASHED_AT_ONCE: Final = 8 * 1024 * 1024
"""Bytes of a validation between two other things that a sled does: some 10 ms."""


@attrs.define
class Knobs:
    """How a pantry misbehaves (SR 8). Times in microseconds.

    `activates`: False and no volume ever becomes active. `jobs_ok`: False and every job fails. `crashed`: it answers
    nobody, and its volumes and jobs are gone.
    """

    activates: bool = True
    attach_us: int = 0
    jobs_ok: bool = True
    job_us: int = 0
    replace_us: int = 0
    crashed: bool = False


@attrs.define(eq=False)
class _Validation:
    """What of a volume is hashed already."""

    expected: str
    size: int
    at: int = 0
    hash: Any = attrs.field(factory=hashlib.sha256)


@attrs.define(eq=False)
class Job:
    """`due_us`: when it ends by itself; `why` it failed."""

    ok: bool = True
    finished: bool = False
    due_us: int | None = None
    why: str | None = None
    validation: _Validation | None = None


@attrs.define(eq=False)
class Volume:
    """`job_id`: of the background attach that brought it. `gone`: another upstairs has taken it over."""

    request: Request
    session_id: UUID
    contents: Contents
    job_id: str | None = None
    active: bool = False
    seen_active: bool = False
    gone: bool = False
    due_us: int | None = None
    jobs: dict[str, Job] = attrs.field(factory=dict)
    replacement: Request | None = None
    replaced_us: int = 0


class Pantry:
    """The volumes of one pantry, by id. Ids of jobs and sessions follow from `namespace` and their number."""

    def __init__(self, agents: Agents, namespace: UUID) -> None:
        self.agents = agents
        self.knobs = Knobs()
        self.volumes: dict[str, Volume] = {}
        self._namespace = namespace
        self._made = 0

    # --- volumes ----------------------------------------------------------------------------------------------------

    def status(self) -> tuple[list[str], int]:
        """Ids of the volumes, and how many jobs there are."""
        return list(self.volumes), sum(len(volume.jobs) for volume in self.volumes.values())

    def volume(self, volume_id: str) -> Volume:
        found = self.volumes.get(volume_id)
        if found is None:
            raise Missing(f"no volume {volume_id}")
        return found

    @timed
    def attach(self, volume_id: str, request: Request, now_us: int) -> Volume:
        """The volume, perhaps not active yet. Idempotent; raises `Internal` for another request or one that came by a
        background attach.
        """
        there = self.volumes.get(volume_id)
        if there is not None:
            if there.request != request or there.job_id is not None:
                raise Internal(f"volume {volume_id} was attached with another request")
            return there
        return self._attach(volume_id, request, None, now_us)

    @timed
    def attach_in_background(self, volume_id: str, request: Request, job_id: str, now_us: int) -> None:
        """Idempotent; raises `BadRequest` for another request or job."""
        there = self.volumes.get(volume_id)
        if there is not None:
            if there.request != request or there.job_id != job_id:
                raise BadRequest(f"volume {volume_id} already an entry with a different request or job")
            return
        self._attach(volume_id, request, job_id, now_us)

    def _attach(self, volume_id: str, request: Request, job_id: str | None, now_us: int) -> Volume:
        check_depth(request)
        if len(self.volumes) >= VOLUMES_MAX:
            raise TooMany(f"more than {VOLUMES_MAX} volumes")
        if job_id is not None and self._job(job_id) is not None:
            raise BadRequest(f"there is a job {job_id} already")
        session = self._id(f"session/{volume_id}")
        made = self.volumes[volume_id] = Volume(request, session, Contents(self.agents), job_id)
        if job_id is not None:
            made.jobs[job_id] = Job()
        if self.knobs.activates:
            made.due_us = now_us + self.knobs.attach_us
        self.tick(now_us)
        return made

    def activated(self, volume_id: str) -> bool:
        """Whether an attach may be answered."""
        return self.volume(volume_id).seen_active

    def detach(self, volume_id: str) -> None:
        """Forget a volume and its jobs; an unknown one: nothing to do."""
        volume = self.volumes.pop(volume_id, None)
        if volume is not None:
            volume.contents.close()

    def take_over(self, volume_id: str) -> None:
        """Another upstairs activates the volume: for a scenario, and for an instance that starts with its disk."""
        volume = self.volume(volume_id)
        volume.active, volume.gone = False, True

    def _working(self, volume_id: str) -> Volume:
        """The volume if work can be done on it. Raises `Missing`, `Gone`, `Unavailable`."""
        volume = self.volume(volume_id)
        if volume.gone:
            raise Gone(f"volume {volume_id} is no longer active!")
        if not volume.active:
            raise Unavailable(f"volume {volume_id} is not active")
        return volume

    # --- bytes ------------------------------------------------------------------------------------------------------

    def bulk_write(self, volume_id: str, offset: int, encoded: str) -> None:
        """Raises `BadRequest` for text that is no base64 before it looks for the volume."""
        try:
            data = base64.b64decode(encoded, validate=True)
        except ValueError as error:  # of binascii, and for what is not ASCII
            raise BadRequest(f"base64: {error}") from None
        self.write(volume_id, offset, data)

    def write(self, volume_id: str, offset: int, data: bytes) -> None:
        volume = self._working(volume_id)
        self._check(volume.request, offset, len(data))
        volume.contents.write(volume.request, offset, data)

    def bulk_read(self, volume_id: str, offset: int, size: int) -> str:
        """Base64. Raises `Internal` for bytes that did not fit in memory when they were written."""
        volume = self._working(volume_id)
        self._check(volume.request, offset, size)
        try:
            return base64.b64encode(volume.contents.read(volume.request, offset, size)).decode()
        except Forgotten as forgotten:
            raise Internal(str(forgotten)) from None

    def _check(self, request: Request, offset: int, size: int) -> None:
        if size > CHUNK_MAX:
            raise BadRequest(f"data len {size} over max chunk size {CHUNK_MAX}!")
        block = request.block_size or 1  # nothing refuses a volume of no use before it is used
        if offset % block:
            raise BadRequest("Offset not aligned to the block size")
        if size % block:
            raise BadRequest("Data length not a multiple of the block size")
        if offset + size > size_of(request):
            raise BadRequest("Offset is invalid: beyond the end of the volume")

    @timed
    def snapshot(self, volume_id: str, snapshot_id: UUID, now_us: int) -> None:
        """Of every region of the volume, parents not included (SR 4.3). Raises `Internal` as that does."""
        volume = self._working(volume_id)
        self.agents.snapshot(
            (target for part in regions_of(volume.request) for target in part.opts.target), snapshot_id, now_us
        )

    @timed
    def replace(self, volume_id: str, request: Request, now_us: int) -> str:
        """The answer's word. Raises `BadRequest` if more than one target differs, or anything else does."""
        volume = self._working(volume_id)
        check_depth(request)
        if volume.replacement is not None and volume.replacement == request:
            return "completed_already" if volume.replaced_us <= now_us else "started_already"
        if volume.request == request:
            return "vcr_matches"
        if volume.replacement is not None and volume.request != volume.replacement:
            raise BadRequest("Replacement request is invalid: another replacement is under way")
        try:
            result = volumes.compare(volume.request, request)
        except ValueError as error:
            raise BadRequest(f"Replacement request is invalid: {error}") from None
        if result != "started":
            return result
        volume.replacement = request
        volume.replaced_us = now_us + self.knobs.replace_us
        self.tick(now_us)
        return "started"

    # --- jobs -------------------------------------------------------------------------------------------------------

    @timed
    def start_job(self, volume_id: str, now_us: int) -> str:
        """A scrub, or whatever else only takes its time. Returns the job's id."""
        return self._start(volume_id, Job(due_us=now_us + self.knobs.job_us), now_us)

    def start_import(self, volume_id: str) -> str:
        """A job that the shell carries out: `write` piece by piece, then `job_done`."""
        return self._start(volume_id, Job(), None)

    def job_done(self, job_id: str, why: str | None) -> None:
        """A job of the shell has ended; `why` it failed. One whose volume was detached is forgotten already."""
        job = self._job(job_id)
        if job is not None and not job.finished:
            self._finish(job, why)

    @timed
    def validate(self, volume_id: str, expected: str, size: int | None, now_us: int) -> str:
        """Compare the SHA-256 of the first `size` bytes, of all without one. The hash is made a bit at a time."""
        volume = self.volume(volume_id)
        job = Job(
            due_us=now_us, validation=_Validation(expected.lower(), size_of(volume.request) if size is None else size)
        )
        return self._start(volume_id, job, now_us)

    def is_finished(self, job_id: str) -> bool:
        return self._known(job_id).finished

    def is_ok(self, job_id: str) -> bool | None:
        """None: it has not ended."""
        job = self._known(job_id)
        return job.ok if job.finished else None

    def _start(self, volume_id: str, job: Job, now_us: int | None) -> str:
        volume = self._working(volume_id)
        if len(volume.jobs) >= JOBS_MAX:
            raise TooMany(f"more than {JOBS_MAX} jobs")
        job_id = str(self._id(f"job/{volume_id}"))
        volume.jobs[job_id] = job
        if now_us is not None:
            self.tick(now_us)
        return job_id

    def _job(self, job_id: str) -> Job | None:
        return next((volume.jobs[job_id] for volume in self.volumes.values() if job_id in volume.jobs), None)

    def _known(self, job_id: str) -> Job:
        job = self._job(job_id)
        if job is None:
            raise Missing(f"no job {job_id}")
        return job

    def _finish(self, job: Job, why: str | None) -> None:
        job.finished, job.due_us, job.validation = True, None, None
        job.why = why if why is not None or self.knobs.jobs_ok else "somebody wants jobs to fail"
        job.ok = job.why is None

    def _hash(self, volume: Volume, job: Job, now_us: int) -> None:
        """Some more of a validation."""
        todo = job.validation
        assert todo is not None, "asked for only then"
        if todo.size > size_of(volume.request):
            self._finish(job, "more bytes to validate than the volume has")
            return
        size = min(HASHED_AT_ONCE, todo.size - todo.at)
        try:
            todo.hash.update(volume.contents.read(volume.request, todo.at, size))
        except Forgotten as forgotten:
            self._finish(job, str(forgotten))
            return
        todo.at += size
        job.due_us = now_us
        if todo.at == todo.size:
            found = todo.hash.hexdigest()
            self._finish(job, None if found == todo.expected else f"sha256 is {found}, not {todo.expected}")

    # --- time -------------------------------------------------------------------------------------------------------

    def next_deadline_us(self) -> int | None:
        dues: list[int] = []
        for volume in self.volumes.values():
            dues += [due for due in (volume.due_us, *(job.due_us for job in volume.jobs.values())) if due is not None]
            if volume.replacement is not None and volume.request != volume.replacement:
                dues.append(volume.replaced_us)
        return min(dues, default=None)

    def go_on(self, now_us: int) -> None:
        """A knob was turned: volumes that were never to become active become so after all, if it says so now."""
        if self.knobs.crashed:
            self.volumes.clear()
        if not self.knobs.activates:
            return
        for volume in self.volumes.values():
            if not volume.seen_active and volume.due_us is None:
                volume.due_us = now_us + self.knobs.attach_us
        self.tick(now_us)

    def tick(self, now_us: int) -> None:
        for volume in self.volumes.values():
            if volume.due_us is not None and volume.due_us <= now_us:
                volume.due_us = None
                volume.active = volume.seen_active = True
                volume.contents.settle(volume.request)
                if volume.job_id is not None:
                    self._finish(volume.jobs[volume.job_id], None)
            for job in list(volume.jobs.values()):
                if job.due_us is not None and job.due_us <= now_us:
                    if job.validation is not None:
                        self._hash(volume, job, now_us)
                    else:
                        self._finish(job, None)
            replacement = volume.replacement
            if replacement is not None and volume.request != replacement and volume.replaced_us <= now_us:
                volume.request = replacement
                volume.contents.settle(replacement)

    def _id(self, what: str) -> UUID:
        self._made += 1
        return UUID(bytes=uuid5(self._namespace, f"{what}/{self._made}").bytes, version=4)

    # --- how a volume is --------------------------------------------------------------------------------------------

    def told(self, volume_id: str) -> dict[str, Any]:
        """A volume as the API has it. Raises `Missing`."""
        volume = self.volume(volume_id)
        return {
            "active": volume.active,
            "seen_active": volume.seen_active,
            "num_job_handles": len(volume.jobs),
            "info": self.info(volume_id),
        }

    def info(self, volume_id: str) -> dict[str, Any]:
        """`VolumeInfo` of the wire: the tree of the request, with the state of each downstairs."""
        volume = self.volume(volume_id)
        return _info(volume.request, volume, self._downstairs(volume))

    def _downstairs(self, volume: Volume) -> Callable[[str], dict[str, Any]]:
        def of(target: str) -> dict[str, Any]:
            region = self.agents.region(target)
            well = region is None or region.state is RegionState.CREATED
            state: dict[str, Any] = {"type": "active"}
            if not volume.active or not well:
                mode = "new" if well else "faulted"
                state = {"type": "connecting", "state": "wait_connect", "mode": mode}
            try:
                address = SocketAddress.parse(target)
                repair = str(SocketAddress(address.host, address.port + REPAIR_PORT_OFFSET))
            except ValueError:
                repair = None
            return {
                "region_id": None if region is None else str(region.request.id),
                "target_addr": target,
                "repair_addr": repair,
                "state": state,
            }

        return of


def _info(part: Request, volume: Volume, downstairs: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    match part:
        case volumes.Volume():
            parts = [_info(each, volume, downstairs) for each in part.sub_volumes]
            parent = None if part.read_only_parent is None else _info(part.read_only_parent, volume, downstairs)
            return {"volume": {"sub_volumes": parts, "read_only_parent": parent}}
        case Region():
            return {
                "upstairs": {
                    "state": "active" if volume.active else "disabled" if volume.gone else "initializing",
                    "upstairs_id": str(part.opts.id),
                    "session_id": str(volume.session_id),
                    "generation": part.gen,
                    "read_only": part.opts.read_only,
                    "encrypted": part.opts.key is not None,
                    "block_size": part.block_size if volume.seen_active else None,
                    "live_repair_in_progress": False,
                    "reconcile_in_progress": False,
                    "targets": [downstairs(target) for target in part.opts.target],
                }
            }
        case Url() | File():
            return {"volume": {"sub_volumes": [], "read_only_parent": None}}
