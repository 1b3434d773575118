"""hardware_file.py: TOML or JSON to `Hardware`, every problem at once."""

import json
from pathlib import Path
from uuid import UUID

import attrs
import pytest
from msgspec.structs import replace
from support.rows import in_one_test

from nexus_client.types import SledCpuFamily, SledRole
from sim_sled.core.config import BareDisk, CrucibleDataset, Hardware, PhysicalDisk, Zpool
from sim_sled.daemon.hardware_file import FILE_BYTES_MAX, ConfigError, hardware, load, places, size, take_identity

POOL = "87e071d2-482a-45c3-8a80-c8ac7441273a"
DATASET = "7d1492e0-ac7a-4663-98d4-0c749e2b7897"
DISK = {
    "id": "55b708c5-ac64-4ecf-b4c1-0635ff6899e6",
    "vendor": "1b96",
    "model": "WUS4C6432DSP3X3",
    "serial": "AFCF92DB",
}


@in_one_test(
    ("text", "number"),
    [
        pytest.param("0", 0, id="nothing"),
        pytest.param("4096", 4096, id="a plain number is bytes"),
        pytest.param("12B", 12, id="bytes by name"),
        pytest.param("2KiB", 2048, id="kibibytes"),
        pytest.param("512 MiB", 512 * 2**20, id="a space before the unit"),
        pytest.param(" 64GiB ", 64 * 2**30, id="spaces around"),
        pytest.param("1TiB", 2**40, id="tebibytes"),
    ],
)
def test_size(text, number):
    assert size(text) == number


@in_one_test("text", ["", "GiB", "-1", "1.5GiB", "64GB", "64gib", "64 GiB each", "1e9", "٣GiB x"])
def test_what_is_no_size_is_refused_with_a_hint(text):
    with pytest.raises(ValueError, match="is not a size; write bytes or a number with KiB"):
        size(text)


def test_no_fields_is_the_default_hardware():
    assert hardware({}) == Hardware()


def test_every_field_can_be_given():
    fields = {
        "hardware_threads": 128,
        "physical_ram": "1TiB",
        "reservoir_size": 2**39,
        "zpools": [{"id": POOL, "total_size": "2TiB", "disk": DISK}],
        "zpool_size": "2TiB",
        "disks": [{"disk": DISK | {"id": DATASET}, "size": "1TiB"}],
        "crucible_datasets": [{"zpool_id": POOL, "dataset_id": DATASET}],
        "cpu_family": "amd_turin_dense",
        "role": "gimlet",
        "baseboard_model": "913-0000019",
        "baseboard_revision": 6,
        "baseboard_serial": "BRM42220031",
    }
    assert set(fields) == {field.name for field in attrs.fields(Hardware)}
    made = hardware(fields)
    assert (made.physical_ram, made.reservoir_size, made.zpool_size) == (2**40, 2**39, 2**41)
    disk = PhysicalDisk(UUID(DISK["id"]), "1b96", "WUS4C6432DSP3X3", "AFCF92DB")
    assert made.zpools == (Zpool(UUID(POOL), 2**41, disk),)
    assert made.disks == (BareDisk(replace(disk, id=UUID(DATASET)), 2**40),)
    assert made.crucible_datasets == (CrucibleDataset(UUID(POOL), UUID(DATASET)),)
    assert (made.cpu_family, made.role) == (SledCpuFamily.AMD_TURIN_DENSE, SledRole.GIMLET)
    assert (made.baseboard_model, made.baseboard_revision, made.baseboard_serial) == ("913-0000019", 6, "BRM42220031")


@in_one_test(
    ("fields", "problem"),
    [
        pytest.param({"disks": "3"}, "disks: a list is expected", id="a text is no list of disks"),
        pytest.param({"zpools": [3]}, "zpools: [0]: an object is expected", id="a number is no pool"),
        pytest.param(
            {"crucible_datasets": [{"zpool_id": POOL}]},
            "crucible_datasets: [0]: 'dataset_id' is missing",
            id="half a dataset",
        ),
        pytest.param(
            {"disks": [{"disk": DISK, "size": -1}]}, "disks: [0].size: a whole number", id="less than a byte"
        ),
        pytest.param(
            {"zpools": [{"id": "p", "total_size": 1, "disk": DISK}]},
            "zpools: [0].id: 'p' is no UUID",
            id="a pool without a name",
        ),
        pytest.param(
            {"zpools": [{"id": POOL, "total_size": 1, "disk": DISK}] * 2},
            f"zpools: {DISK['id']} is there twice",
            id="a pool twice",
        ),
        pytest.param({"cpus": 3}, "unknown field 'cpus'; known are baseboard_model", id="unknown field"),
        pytest.param({"physical_ram": "much"}, "physical_ram: 'much' is not a size", id="no size"),
        pytest.param({"physical_ram": True}, "physical_ram: a whole number is expected", id="a truth is no number"),
        pytest.param({"zpools": -1}, "zpools: a whole number is expected, not negative", id="negative"),
        pytest.param({"zpools": 1.5}, "zpools: a whole number is expected", id="half a pool"),
        pytest.param({"zpools": "10"}, "zpools: a whole number is expected", id="a count is no size"),
        pytest.param({"zpools": 2**63}, "zpools: a whole number is expected", id="too large for the wire"),
        pytest.param({"zpool_size": f"{2**63}"}, "zpool_size: a whole number is expected", id="too large a size"),
        pytest.param({"cpu_family": "z80"}, "cpu_family: 'z80' is none of unknown, amd_milan, ", id="unknown CPU"),
        pytest.param({"role": "router"}, "role: 'router' is none of gimlet, scrimlet", id="unknown role"),
        pytest.param({"zpools": 1001}, "zpools: at most 1000", id="more pools than anybody has"),
        pytest.param({"hardware_threads": 0}, "hardware_threads: at least 1", id="a sled without a processor"),
        pytest.param({"baseboard_model": 3}, "baseboard_model: a text is expected", id="a number for a text"),
        pytest.param(
            {"reservoir_size": "64GiB", "physical_ram": "64GiB"},
            "reservoir_size must be smaller than physical_ram",
            id="Nexus would refuse this one with a 500",
        ),
    ],
)
def test_a_bad_field_is_named(fields, problem):
    with pytest.raises(ConfigError) as error:
        hardware(fields, where="x.toml")
    [line] = error.value.problems
    assert line.startswith(f"x.toml: {problem}")


def test_every_problem_is_told_at_once():
    with pytest.raises(ConfigError) as error:
        hardware({"cpus": 1, "zpools": -1, "role": "x"})
    assert [line.split(": ")[1].split(" ")[0] for line in error.value.problems] == ["unknown", "zpools", "role"]
    assert str(error.value) == "\n".join(error.value.problems)


def test_a_file_is_loaded(tmp_path):
    path = tmp_path / "h.toml"
    path.write_text('hardware_threads = 4\nphysical_ram = "8GiB"\n')
    assert load(path) == {"hardware_threads": 4, "physical_ram": "8GiB"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"hardware_threads = ", "Invalid value", id="broken TOML"),
        pytest.param(b"\xff\xfe", "can't decode", id="no text"),
        pytest.param(b"#" * (FILE_BYTES_MAX + 1), f"larger than {FILE_BYTES_MAX} bytes", id="the wrong file"),
    ],
)
def test_a_bad_file_is_one_problem_with_its_name(tmp_path, content, problem):
    path = tmp_path / "h.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load(path)
    [line] = error.value.problems
    assert line.startswith(f"{path}: ")
    assert problem in line


def _read(path):
    return hardware(load(path), str(path), places(path))


def test_a_missing_file_is_a_problem_not_a_traceback(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.toml")


def test_a_bad_field_of_a_file_is_told_with_line_and_column(tmp_path):
    path = tmp_path / "h.toml"
    path.write_text('# ours\nhardware_threads = 4\n  "role" = "router"\n[cpus]\nn = 1\n')
    with pytest.raises(ConfigError) as error:
        _read(path)
    assert [line.split(" ")[0] for line in error.value.problems] == [f"{path}:3:4:", f"{path}:4:2:"]


def test_the_sled_of_a_tape_is_a_hardware_file_as_it_is(tmp_path):
    tape = Path(__file__).parents[3] / "data" / "tapes-ext" / "rest-pantry.jsonl"
    sled = json.loads(tape.read_text().splitlines()[0])["sled"]
    path = tmp_path / "sled.json"
    path.write_text(json.dumps(sled))
    fields = load(path)
    take_identity(fields, UUID(sled["id"]), sled["address"], str(path))
    made = hardware(fields, str(path), places(path))
    assert [str(each.id) for each in made.zpools] == [each["id"] for each in sled["zpools"]]
    told = [(str(each.zpool_id), str(each.dataset_id)) for each in made.crucible_datasets]
    assert told == [(each["zpool_id"], each["dataset_id"]) for each in sled["crucible_datasets"]]


def test_an_identity_that_is_not_the_command_lines_is_told_in_full():
    fields = {"id": str(UUID(int=1)), "address": "[::1]:1", "hardware_threads": 4}
    with pytest.raises(ConfigError) as caught:
        take_identity(fields, UUID(int=2), "[::1]:2", "sled.json")
    assert len(caught.value.problems) == 2
    left_out = {"hardware_threads": 4}
    take_identity(left_out, UUID(int=2), "[::1]:2", "sled.json")
    assert left_out == {"hardware_threads": 4}


def test_the_file_of_the_documentation_is_one(tmp_path):
    page = (Path(__file__).parents[4] / "docs" / "beside-a-sled.md").read_text()
    (tmp_path / "h.toml").write_text(page.partition("```toml\n")[2].partition("```")[0])
    made = hardware(load(tmp_path / "h.toml"))
    assert (len(made.zpools), len(made.disks), made.crucible_datasets[0].zpool_id) == (1, 1, made.zpools[0].id)


def test_broken_json_is_told_with_its_place(tmp_path):
    path = tmp_path / "sled.json"
    path.write_text('{"hardware_threads": }')
    with pytest.raises(ConfigError, match="line 1 column"):
        load(path)


@in_one_test(
    "text",
    [
        pytest.param("a = " + "[" * 50_000, id="50,000 nested lists"),
        pytest.param("hardware_threads = " + "9" * 5_000, id="5,000 digits"),
        pytest.param("x = -" + "1" * 100_000, id="100,000 digits, negative"),
        pytest.param("a." * 2_000 + "b = 1", id="2,000 dotted keys"),  # deeper than Python calls; quadratic
        pytest.param("[" * 50_000, id="50,000 tables"),
        pytest.param('{"a": ' * 50_000, id="50,000 nested JSON objects"),
        pytest.param('{"hardware_threads": ' + "9" * 5_000 + "}", id="5,000 digits in JSON"),
        pytest.param("hardware_threads = 1979-05-27", id="a date"),
        pytest.param("hardware_threads = inf", id="infinity"),
        pytest.param('role = "\x1b[2J"', id="an escape sequence"),
        pytest.param("\x00", id="a NUL"),
        pytest.param("= 1", id="no key"),
        pytest.param("[1, 2]", id="no object"),
    ],
)
def test_hostile_toml_is_a_sentence(tmp_path, text):
    path = tmp_path / "h.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        _read(path)
    assert error.value.problems
    assert all("\n" not in problem for problem in error.value.problems)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/urandom"])
def test_a_file_without_end_is_refused(name):
    with pytest.raises(ConfigError):
        load(Path(name))
