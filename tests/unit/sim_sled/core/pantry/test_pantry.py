"""Volumes, bytes and jobs of a pantry (SR 5.2)."""

import base64
import hashlib
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.profile import by_profile

from propolis_stub.spec.volumes import Region, RegionOptions, Volume
from sim_sled.core.crucible.agents import Agents
from sim_sled.core.crucible.values import RegionRequest, RegionState
from sim_sled.core.errors import BadRequest, Gone, Internal, Missing, TooMany, Unavailable
from sim_sled.core.pantry.pantry import CHUNK_MAX, JOBS_MAX, Pantry
from sim_sled.core.pantry.request import DEPTH_MAX

DATASETS = [UUID(int=number) for number in (1, 2, 3, 4)]
BLOCK = 512


@pytest.fixture(name="agents")
def _agents():
    agents = Agents()
    agents.add_sled("::1", DATASETS)
    for number, dataset in enumerate(DATASETS):
        agents.agent(dataset).create(RegionRequest(UUID(int=10 + number), BLOCK, 131072, 2, True), 0)
    return agents


@pytest.fixture(name="pantry")
def _pantry(agents):
    return Pantry(agents, UUID(int=9))


def region(*ports, gen=1, upstairs=5, read_only=False):
    targets = tuple(f"[::1]:{port}" for port in ports or (1000, 1050, 1100))
    opts = RegionOptions(id=UUID(int=upstairs), target=targets, lossy=False, read_only=read_only)
    return Region(block_size=BLOCK, blocks_per_extent=131072, extent_count=2, opts=opts, gen=gen)


def volume(*ports, gen=1, parent=None, upstairs=5):
    part = region(*ports, gen=gen, upstairs=upstairs)
    return Volume(id=UUID(int=upstairs), block_size=BLOCK, sub_volumes=(part,), read_only_parent=parent)


def only_region(agents, dataset):
    (region,) = agents.agent(dataset).regions.values()
    return region


def b64(data):
    return base64.b64encode(data).decode()


def read(pantry, name, offset, size):
    return base64.b64decode(pantry.bulk_read(name, offset, size))


def test_attaching_is_idempotent_and_another_request_is_refused(pantry):
    assert pantry.attach("v", volume(), 0).active
    pantry.attach("v", volume(), 0)
    with pytest.raises(Internal):
        pantry.attach("v", volume(gen=2), 0)
    with pytest.raises(BadRequest):
        pantry.attach_in_background("v", volume(), "job", 0)
    assert pantry.status() == (["v"], 0)


def test_a_background_attach_becomes_active_later_and_its_job_is_kept_until_the_detach(pantry):
    pantry.knobs.attach_us = 10
    pantry.attach_in_background("v", volume(), "job", 0)
    pantry.attach_in_background("v", volume(), "job", 1)
    with pytest.raises(BadRequest):
        pantry.attach_in_background("v", volume(), "other", 1)
    with pytest.raises(Internal):
        pantry.attach("v", volume(), 1)
    assert (pantry.is_finished("job"), pantry.is_ok("job"), pantry.volume("v").seen_active) == (False, None, False)
    with pytest.raises(Unavailable):
        pantry.bulk_write("v", 0, b64(bytes(BLOCK)))
    assert pantry.next_deadline_us() == 10
    pantry.tick(10)
    assert (pantry.is_finished("job"), pantry.volume("v").seen_active, pantry.next_deadline_us()) == (
        True,
        True,
        None,
    )
    assert pantry.is_ok("job")
    assert pantry.is_ok("job"), "a result is repeatable"
    pantry.detach("v")
    pantry.detach("v")
    with pytest.raises(Missing):
        pantry.is_finished("job")


def test_a_volume_that_never_becomes_active(pantry):
    pantry.knobs.activates = False
    pantry.attach_in_background("v", volume(), "job", 0)
    assert pantry.next_deadline_us() is None
    pantry.tick(10**12)
    assert not pantry.is_finished("job")
    assert pantry.info("v")["volume"]["sub_volumes"][0]["upstairs"]["state"] == "initializing"


def test_a_volume_that_was_taken_over_is_told_and_does_no_work(pantry):
    pantry.attach("v", volume(), 0)
    pantry.take_over("v")
    assert (pantry.volume("v").active, pantry.volume("v").seen_active) == (False, True)
    for work in (
        lambda: pantry.bulk_write("v", 0, b64(bytes(BLOCK))),
        lambda: pantry.snapshot("v", UUID(int=7), 0),
        lambda: pantry.start_job("v", 0),
    ):
        with pytest.raises(Gone):
            work()


@pytest.mark.parametrize(
    ("offset", "data", "refusal"),
    [
        pytest.param(1, b64(bytes(BLOCK)), "Offset not aligned", id="an offset inside of a block"),
        pytest.param(0, b64(bytes(BLOCK - 1)), "Data length", id="part of a block"),
        pytest.param(2 * 64 * 2**20, b64(bytes(BLOCK)), "beyond the end", id="behind the end"),
        pytest.param(0, b64(bytes(CHUNK_MAX + BLOCK)), "max chunk size", id="more than half a MiB"),
        pytest.param(0, "%%%", "base64", id="no base64"),
        pytest.param(0, "ä===", "base64", id="no ASCII"),
    ],
)
def test_bulk_writes_that_are_refused(pantry, offset, data, refusal):
    pantry.attach("v", volume(), 0)
    with pytest.raises(BadRequest, match=refusal):
        pantry.bulk_write("v", offset, data)


def test_bytes_lie_in_the_regions_and_survive_a_detach(pantry):
    pantry.attach("v", volume(), 0)
    pantry.bulk_write("v", 1024, b64(b"x" * BLOCK))
    pantry.detach("v")
    pantry.attach("w", volume(gen=2), 0)
    assert read(pantry, "w", 0, 2048) == bytes(1024) + b"x" * 512 + bytes(512)


def test_validation_hashes_a_bit_at_a_time_and_finds_a_wrong_byte(pantry, monkeypatch):
    monkeypatch.setattr("sim_sled.core.pantry.pantry.HASHED_AT_ONCE", CHUNK_MAX)
    small = part([1000, 1050, 1100], 8 * 2**20 // BLOCK, 5)
    pantry.attach("v", Volume(id=UUID(int=5), block_size=BLOCK, sub_volumes=(small,)), 0)
    data = bytes(range(256)) * (CHUNK_MAX // 256)
    for number in range(4):
        pantry.bulk_write("v", number * len(data), b64(data))
    right = pantry.validate("v", hashlib.sha256(data * 4).hexdigest(), 4 * len(data), 0)
    wrong = pantry.validate("v", hashlib.sha256(data * 3).hexdigest(), 4 * len(data), 0)
    whole = pantry.validate("v", hashlib.sha256(data * 4 + bytes(6 * 2**20)).hexdigest(), None, 0)
    too_much = pantry.validate("v", "00", 2**40, 0)
    steps = 0
    while pantry.next_deadline_us() is not None:
        pantry.tick(0)
        steps += 1
    assert 10 < steps < 100
    assert [pantry.is_ok(job) for job in (right, wrong, whole, too_much)] == [True, False, True, False]


def test_jobs_fail_when_somebody_wants_it(pantry):
    pantry.attach("v", volume(), 0)
    pantry.knobs.jobs_ok = False
    assert pantry.is_ok(pantry.start_job("v", 0)) is False


def test_a_snapshot_is_made_in_every_region_but_not_in_the_parents(agents, pantry):
    parent = Volume(id=UUID(int=6), block_size=BLOCK, sub_volumes=(region(1150, upstairs=6, read_only=True),))
    pantry.attach("v", volume(parent=parent), 0)
    pantry.snapshot("v", UUID(int=7), 3)
    pantry.snapshot("v", UUID(int=7), 4)
    made = [only_region(agents, dataset).snapshots for dataset in DATASETS]
    assert [list(each) for each in made] == [[str(UUID(int=7))]] * 3 + [[]]


def test_a_disk_of_an_image_reads_the_image_until_it_is_written(agents, pantry):
    image = Volume(id=UUID(int=6), block_size=BLOCK, sub_volumes=(region(1150, upstairs=6),))
    pantry.attach("image", image, 0)
    pantry.bulk_write("image", 0, b64(b"i" * 4096))
    pantry.detach("image")
    pantry.attach("disk", volume(parent=image), 0)
    pantry.bulk_write("disk", 512, b64(b"d" * 512))
    pantry.bulk_write("disk", 1024, b64(bytes(512)))
    assert read(pantry, "disk", 0, 4096) == b"i" * 512 + b"d" * 512 + bytes(512) + b"i" * 2560
    assert only_region(agents, DATASETS[3]).blocks.read(0, 4096) == b"i" * 4096


def test_one_target_can_be_replaced_and_the_new_region_gets_the_bytes(agents, pantry):
    pantry.knobs.replace_us = 10
    pantry.attach("v", volume(), 0)
    pantry.bulk_write("v", 0, b64(b"x" * BLOCK))
    assert pantry.replace("v", volume(), 0) == "vcr_matches"
    new = volume(1000, 1150, 1100, gen=2)
    assert pantry.replace("v", new, 0) == "started"
    assert pantry.replace("v", new, 5) == "started_already"
    assert pantry.next_deadline_us() == 10
    pantry.tick(10)
    assert pantry.replace("v", new, 10) == "completed_already"
    assert only_region(agents, DATASETS[3]).blocks.read(0, BLOCK) == b"x" * BLOCK
    assert pantry.next_deadline_us() is None, "it is over"
    targets = pantry.info("v")["volume"]["sub_volumes"][0]["upstairs"]["targets"]
    assert [each["target_addr"] for each in targets] == ["[::1]:1000", "[::1]:1150", "[::1]:1100"]
    for bad in (
        volume(1001, 1151, 1100, gen=3),
        volume(1000, 1150, gen=3),
        msgspec.structs.replace(new, block_size=4096),
    ):
        with pytest.raises(BadRequest):
            pantry.replace("v", bad, 20)


def test_volumes_that_were_not_to_become_active_do_so_when_they_may(pantry):
    pantry.knobs.activates, pantry.knobs.attach_us = False, 0
    pantry.attach_in_background("v", volume(), "job", 0)
    pantry.go_on(5)
    assert (pantry.volume("v").seen_active, pantry.next_deadline_us()) == (False, None)
    pantry.knobs.activates = True
    pantry.go_on(7)
    assert (pantry.volume("v").active, pantry.is_finished("job")) == (True, True), "at once: it takes no time"


def test_the_info_of_a_volume_has_its_parent_beside_its_parts(pantry):
    pantry.attach("v", volume(parent=region(1150, 1150, 1150, upstairs=6, read_only=True)), 0)
    told = pantry.info("v")["volume"]
    assert [each["upstairs"]["upstairs_id"] for each in told["sub_volumes"]] == [str(UUID(int=5))]
    assert told["read_only_parent"]["upstairs"]["upstairs_id"] == str(UUID(int=6))
    assert (told["read_only_parent"]["upstairs"]["read_only"], told["sub_volumes"][0]["upstairs"]["read_only"]) == (
        True,
        False,
    )
    pantry.attach("w", volume(upstairs=8), 0)
    assert pantry.info("w")["volume"]["read_only_parent"] is None


def test_a_broken_region_shows_in_the_info(agents, pantry):
    pantry.attach("v", volume(), 0)
    only_region(agents, DATASETS[1]).state = RegionState.FAILED
    targets = pantry.info("v")["volume"]["sub_volumes"][0]["upstairs"]["targets"]
    assert [each["state"]["type"] for each in targets] == ["active", "connecting", "active"]
    assert targets[0]["repair_addr"] == "[::1]:5000"


def test_what_is_unknown(pantry):
    for ask in (
        lambda: pantry.volume("v"),
        lambda: pantry.snapshot("v", UUID(int=7), 0),
        lambda: pantry.bulk_write("v", 0, ""),
        lambda: pantry.start_job("v", 0),
        lambda: pantry.start_import("v"),
        lambda: pantry.replace("v", volume(), 0),
        lambda: pantry.is_ok("job"),
    ):
        with pytest.raises(Missing):
            ask()


def test_whoever_is_taken_over_is_told_so_also_while_its_jobs_go_on(pantry):
    pantry.attach("v", volume(), 0)
    pantry.knobs.job_us = 100
    pantry.start_job("v", 0)
    pantry.take_over("v")
    for act in (lambda: pantry.bulk_write("v", 0, b64(bytes(BLOCK))), lambda: pantry.start_job("v", 1)):
        with pytest.raises(Gone):
            act()


@pytest.mark.parametrize(("offset", "size"), [(512, 4096), (0, 512), (4096, 4096 + 512), (2048, 2048)])
def test_what_is_written_lies_on_the_blocks_of_the_volume_however_large_they_are(agents, pantry, offset, size):
    for dataset in DATASETS[:3]:
        agents.agent(dataset).create(RegionRequest(UUID(int=77), 4096, 64, 2, True), 0)
    ports = [agents.agent(dataset).get(str(UUID(int=77))).port for dataset in DATASETS[:3]]
    large = msgspec.structs.replace(region(*ports), block_size=4096, blocks_per_extent=64)
    pantry.attach("v", large, 0)
    pantry.bulk_write("v", 4096, b64(bytes(4096)))
    for act in (
        lambda: pantry.bulk_write("v", offset, b64(bytes(size))),
        lambda: pantry.bulk_read("v", offset, size),
    ):
        with pytest.raises(BadRequest):
            act()


def test_a_hash_may_be_written_in_capitals(pantry):
    pantry.attach("v", volume(), 0)
    pantry.bulk_write("v", 0, b64(b"x" * BLOCK))
    wanted = hashlib.sha256(b"x" * BLOCK).hexdigest()
    jobs = [pantry.validate("v", spelled, BLOCK, 0) for spelled in (wanted.upper(), wanted, "0" * 64)]
    while (due_us := pantry.next_deadline_us()) is not None:
        pantry.tick(due_us)
    assert [pantry.is_ok(job) for job in jobs] == [True, True, False]


def test_the_job_of_one_volume_cannot_be_that_of_another(pantry):
    pantry.attach_in_background("v", volume(), "job", 0)
    with pytest.raises(BadRequest):
        pantry.attach_in_background("w", volume(upstairs=6), "job", 0)
    assert pantry.status()[0] == ["v"]
    pantry.detach("v")
    pantry.attach_in_background("w", volume(upstairs=6), "job", 0)
    assert pantry.is_ok("job")


@pytest.mark.parametrize(("why", "ok"), [(None, True), ("the depot is gone", False)])
def test_an_import_ends_when_and_how_whoever_carries_it_out_says(pantry, why, ok):
    pantry.attach("v", volume(), 0)
    job = pantry.start_import("v")
    pantry.tick(10**12)
    assert (pantry.is_finished(job), pantry.is_ok(job)) == (False, None), "time alone ends no import"
    pantry.job_done(job, why)
    pantry.job_done(job, None if why else "too late: it has ended")
    assert (pantry.is_finished(job), pantry.is_ok(job)) == (True, ok)


def test_jobs_are_limited_and_one_too_many_changes_nothing(pantry):
    pantry.attach("v", volume(), 0)
    jobs = [pantry.start_import("v") for _ in range(JOBS_MAX)]
    with pytest.raises(TooMany):
        pantry.start_import("v")
    assert list(pantry.volume("v").jobs) == jobs


@pytest.mark.parametrize("background", [False, True])
def test_a_downstairs_that_was_never_written_has_what_the_others_have_when_the_volume_is_active(
    agents, pantry, background
):
    only_region(agents, DATASETS[1]).blocks.write(0, b"x" * BLOCK)
    if background:
        pantry.knobs.attach_us = 10
        pantry.attach_in_background("v", volume(), "job", 0)
        assert not only_region(agents, DATASETS[0]).blocks.any_written()
        pantry.tick(10)
    else:
        pantry.attach("v", volume(), 0)
    for dataset in DATASETS[:3]:
        assert only_region(agents, dataset).blocks.read(0, BLOCK) == b"x" * BLOCK


# ---- bytes, against an array of bytes

SIZES = (300, 77, 260)
"""Blocks of the parts: none ends where a piece of memory does."""
WHOLE = sum(SIZES)


def part(ports, blocks, upstairs, *, read_only=False):
    targets = tuple(f"[::1]:{port}" for port in ports)
    opts = RegionOptions(id=UUID(int=upstairs), target=targets, lossy=False, read_only=read_only)
    return Region(block_size=BLOCK, blocks_per_extent=blocks, extent_count=1, opts=opts, gen=1)


@st.composite
def _spans(draw):
    first = draw(st.integers(0, WHOLE - 1))
    return first * BLOCK, draw(st.integers(1, WHOLE - first)) * BLOCK


@pytest.mark.nightly
@settings(max_examples=by_profile(25, nightly=5_000))
@given(
    parent_blocks=st.sampled_from([0, 1, 129, 350, 500, WHOLE]),
    writes=st.lists(st.tuples(_spans(), st.integers(1, 255)), max_size=4),
    reads=st.lists(_spans(), min_size=1, max_size=4),
)
def test_a_volume_of_parts_over_an_image_is_one_array_of_bytes(parent_blocks, writes, reads):
    """Where nothing was written the image shows, which may be shorter than the disk; behind it are zeros."""
    agents = Agents()
    agents.add_sled("::1", DATASETS)
    image = agents.agent(DATASETS[3]).create(RegionRequest(UUID(int=13), BLOCK, 131072, 2, True), 0)
    seen = b"".join(bytes([block % 251 + 1]) * BLOCK for block in range(parent_blocks))
    image.blocks.write(0, seen)
    parent = part([1150] * 3, parent_blocks, 6, read_only=True) if parent_blocks else None
    # the first and the last part lie on one region each, at other places than in the volume; the middle one nowhere
    for dataset in DATASETS[:2]:
        agents.agent(dataset).create(RegionRequest(UUID(int=dataset.int + 9), BLOCK, 131072, 2, True), 0)
    parts = tuple(part([port] * 3, blocks, 5) for port, blocks in zip((1000, 9000, 1050), SIZES, strict=True))
    pantry = Pantry(agents, UUID(int=9))
    pantry.attach("v", Volume(id=UUID(int=5), block_size=BLOCK, sub_volumes=parts, read_only_parent=parent), 0)
    oracle = bytearray(seen.ljust(WHOLE * BLOCK, b"\0"))
    for (offset, size), byte in writes:
        pantry.bulk_write("v", offset, b64(bytes([byte]) * size))
        oracle[offset : offset + size] = bytes([byte]) * size
    for offset, size in reads:
        assert read(pantry, "v", offset, size) == oracle[offset : offset + size]


def test_what_lay_nowhere_gives_its_memory_back_at_the_detach(agents, pantry):
    before = agents.memory.left
    pantry.attach("v", volume(7000, 7050, 7100), 0)
    pantry.bulk_write("v", 0, b64(b"x" * BLOCK))
    assert agents.memory.left < before
    pantry.detach("v")
    assert agents.memory.left == before


def nested(depth):
    inner = region()
    for _ in range(depth):
        inner = Volume(id=UUID(int=5), block_size=BLOCK, sub_volumes=(inner,), read_only_parent=None)
    return inner


def test_volumes_are_nested_as_deep_as_it_says_and_no_deeper(pantry):
    pantry.attach("v", nested(DEPTH_MAX - 1), 0)
    with pytest.raises(BadRequest, match=f"more than {DEPTH_MAX} deep"):
        pantry.attach("w", nested(DEPTH_MAX), 0)
