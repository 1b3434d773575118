"""Trust quorum: check order, coordination over several sleds, commits, expungement (SR 4.5)."""

import json
import uuid

import attrs
import pytest
from support.rack.estate import OTHER, POOLS, SECOND, SLED, THIRD, EstateDriver, Fixed
from support.rows import in_one_test

from sim_sled.core.config import Hardware
from sim_sled.core.errors import Internal
from sim_sled.core.trust_quorum import node
from sim_sled.core.trust_quorum.node import Baseboard, NetworkBlob, TrustQuorum, Wish, config_json, config_of

RACK = uuid.UUID(int=0xAC)
SLEDS = (SLED, OTHER, THIRD)
OUTSIDE = Baseboard("913-0000019", "BRM42220001")


def board(sled):
    return Baseboard("i86pc", f"sim-{sled}")


MEMBERS = frozenset(map(board, SLEDS))
WISH = Wish(RACK, 1, None, MEMBERS, 2)


def three(us=0):
    return EstateDriver(sleds=SLEDS, hardware=Hardware(zpools=POOLS), pacer=Fixed(us))


def tq(driver, how, *args, sled=SLED):
    return driver.ask(TrustQuorum, how, *args, sled=sled)


def epochs(driver, sled=SLED):
    state = tq(driver, TrustQuorum.status, sled=sled)["persistent_state"]
    return state["configs"], state["shares"], state["commits"]


def reconfigure(driver, wish=WISH, **changes):
    tq(driver, TrustQuorum.reconfigure, attrs.evolve(wish, **changes))


def committed(driver):
    """Epoch 1 at all three."""
    reconfigure(driver)
    driver.wait(SECOND)
    for sled in SLEDS:
        tq(driver, TrustQuorum.commit, RACK, 1, sled=sled)


@in_one_test(
    ("changes", "why"),
    [
        pytest.param({"members": MEMBERS - {board(SLED)}}, "not a member", id="the coordinator is no member"),
        pytest.param({"threshold": 3}, "threshold must be smaller", id="as many needed as there are"),
        pytest.param({"members": frozenset({board(SLED), OUTSIDE}), "threshold": 1}, "2 members", id="two members"),
        pytest.param(
            {"members": MEMBERS | {Baseboard("x", str(n)) for n in range(30)}}, "33 members", id="33 members"
        ),
        pytest.param({"threshold": 1}, "threshold 1", id="a threshold of one"),
        pytest.param({"last_committed_epoch": 1}, "last committed epoch is None", id="nothing was committed"),
        pytest.param({"epoch": 0}, "epoch 0 is not above 0", id="epochs begin at one"),
    ],
)
def test_wishes_that_are_refused_leave_nothing(changes, why):
    driver = three()
    with pytest.raises(Internal, match=why):
        reconfigure(driver, **changes)
    assert epochs(driver) == ([], [], [])
    assert driver.of(TrustQuorum).rack_id is None


def test_the_first_configuration_is_prepared_at_once_and_a_repeat_is_refused():
    driver = EstateDriver(pacer=Fixed(SECOND))
    reconfigure(driver, members=frozenset({board(SLED), OUTSIDE, Baseboard("x", "y")}))
    assert epochs(driver) == ([1], [1], [])
    with pytest.raises(Internal, match="not above 1"):
        reconfigure(driver, members=frozenset({board(SLED), OUTSIDE, Baseboard("x", "y")}))


def test_members_of_this_process_acknowledge_after_a_while_and_others_never():
    driver = three(SECOND)
    reconfigure(driver, members=MEMBERS | {OUTSIDE})
    config, acked = tq(driver, TrustQuorum.coordinator_status)
    assert (acked, config.coordinator) == ([board(SLED)], board(SLED))
    driver.wait(SECOND)
    assert tq(driver, TrustQuorum.coordinator_status)[1] == sorted(MEMBERS)
    assert epochs(driver, OTHER) == ([1], [1], [])
    driver.wait(3_600 * SECOND)
    assert tq(driver, TrustQuorum.coordinator_status)[1] == sorted(MEMBERS)


def test_a_member_may_stay_silent():
    driver = three()
    driver.of(TrustQuorum, OTHER).silent = True
    reconfigure(driver)
    assert tq(driver, TrustQuorum.coordinator_status)[1] == [board(SLED), board(THIRD)]


def test_a_commit_ends_the_coordination_and_may_be_repeated():
    driver = three()
    committed(driver)
    assert tq(driver, TrustQuorum.coordinator_status) is None
    tq(driver, TrustQuorum.commit, RACK, 1)
    assert epochs(driver) == ([1], [1], [1])


@pytest.mark.parametrize(
    ("rack", "epoch", "why"),
    [
        pytest.param(uuid.UUID(int=1), 1, "rack", id="of another rack"),
        pytest.param(RACK, 0, "commit returned Pending", id="an epoch that was skipped"),
        pytest.param(RACK, 2, "not prepared", id="an epoch that is not prepared"),
    ],
)
def test_commits_that_are_refused(rack, epoch, why):
    driver = three()
    committed(driver)
    with pytest.raises(Internal, match=why):
        tq(driver, TrustQuorum.commit, rack, epoch)


def test_a_later_configuration_of_another_rack_is_refused():
    driver = three()
    committed(driver)
    with pytest.raises(Internal, match=f"rack {uuid.UUID(int=1)} is not {RACK}"):
        reconfigure(driver, epoch=2, last_committed_epoch=1, rack_id=uuid.UUID(int=1))
    reconfigure(driver, epoch=2, last_committed_epoch=1)


def test_a_later_configuration_may_be_repeated_until_it_is_prepared():
    driver = three(SECOND)
    committed(driver)
    second = attrs.evolve(WISH, epoch=2, last_committed_epoch=1, members=MEMBERS | {OUTSIDE})
    for _ in range(2):
        reconfigure(driver, second)
    with pytest.raises(Internal, match="other parameters"):
        reconfigure(driver, second, threshold=3)
    reconfigure(driver, second, epoch=3)
    with pytest.raises(Internal, match="3 is coordinated, 2 is older"):
        reconfigure(driver, second)


def test_a_later_configuration_needs_shares_of_the_one_before():
    driver = three(SECOND)
    reconfigure(driver)
    driver.wait(SECOND)
    tq(driver, TrustQuorum.commit, RACK, 1)
    for sled in (OTHER, THIRD):
        driver.of(TrustQuorum, sled).silent = True
    reconfigure(driver, epoch=2, last_committed_epoch=1)
    driver.wait(10 * SECOND)
    assert epochs(driver) == ([1], [1], [1])
    assert tq(driver, TrustQuorum.coordinator_status)[1] == []


def test_who_is_left_out_is_expunged_and_refuses_everything():
    driver = three()
    committed(driver)
    rest = (MEMBERS - {board(THIRD)}) | {OUTSIDE}
    reconfigure(driver, epoch=2, last_committed_epoch=1, members=rest)
    tq(driver, TrustQuorum.commit, RACK, 2)
    expunged = tq(driver, TrustQuorum.status, sled=THIRD)["persistent_state"]["expunged"]
    assert expunged == {"epoch": 2, "from": {"part_number": "i86pc", "serial_number": f"sim-{SLED}"}}
    again = attrs.evolve(WISH, epoch=3, last_committed_epoch=1)
    ours = driver.of(TrustQuorum).configs[2]
    for how, args in (
        (TrustQuorum.commit, (RACK, 1)),
        (TrustQuorum.upgrade, (RACK, 3)),
        (TrustQuorum.reconfigure, (again,)),
        (TrustQuorum.prepare_and_commit, (ours,)),
    ):
        with pytest.raises(Internal, match="expunged"):
            tq(driver, how, *args, sled=THIRD)


def test_a_member_that_missed_the_prepare_collects_its_share():
    driver = three(SECOND)
    late = driver.of(TrustQuorum, THIRD)
    late.silent = True
    reconfigure(driver)
    driver.wait(SECOND)
    config, _ = tq(driver, TrustQuorum.coordinator_status)
    late.silent = False
    assert tq(driver, TrustQuorum.prepare_and_commit, config, sled=THIRD) == "pending"
    driver.wait(SECOND)
    assert tq(driver, TrustQuorum.prepare_and_commit, config, sled=THIRD) == "committed"
    assert epochs(driver, THIRD) == ([1], [1], [1])


def test_who_is_no_member_stays_pending():
    driver = three()
    committed(driver)
    config = driver.of(TrustQuorum).configs[1]
    stranger = attrs.evolve(config, epoch=2, members=((OUTSIDE, "00" * 32),))
    assert tq(driver, TrustQuorum.prepare_and_commit, stranger) == "pending"
    assert epochs(driver) == ([1], [1], [1])


def test_calls_for_others_go_to_those_who_are_connected():
    driver = three()
    reconfigure(driver)
    tq(driver, TrustQuorum.proxy_commit, board(OTHER), RACK, 1)
    assert epochs(driver, OTHER)[2] == [1]
    config = driver.of(TrustQuorum).configs[1]
    assert tq(driver, TrustQuorum.proxy_prepare_and_commit, board(THIRD), config) == "committed"
    assert tq(driver, TrustQuorum.proxy_status, board(THIRD)) == tq(driver, TrustQuorum.status, sled=THIRD)
    for how, args in (
        (TrustQuorum.proxy_commit, (OUTSIDE, RACK, 1)),
        (TrustQuorum.proxy_prepare_and_commit, (OUTSIDE, config)),
        (TrustQuorum.proxy_status, (OUTSIDE,)),
    ):
        with pytest.raises(Internal, match="disconnected"):
            tq(driver, how, *args)


def test_nobody_has_a_share_of_the_old_scheme():
    driver = three()
    with pytest.raises(Internal, match="no LRTQ share"):
        tq(driver, TrustQuorum.upgrade, RACK, 2)


def test_the_network_config_only_grows():
    driver = three()
    assert tq(driver, TrustQuorum.get_network) is None
    with pytest.raises(Internal):
        tq(driver, TrustQuorum.put_network, NetworkBlob(0, ""))
    tq(driver, TrustQuorum.put_network, NetworkBlob(3, "AAAA"))
    for generation in (2, 3):
        with pytest.raises(Internal):
            tq(driver, TrustQuorum.put_network, NetworkBlob(generation, ""))
    assert tq(driver, TrustQuorum.get_network) == NetworkBlob(3, "AAAA")


def test_all_is_there_after_a_restart():
    driver, again = three(), three()
    committed(driver)
    reconfigure(driver, epoch=2, last_committed_epoch=1)
    tq(driver, TrustQuorum.put_network, NetworkBlob(3, "AAAA"))
    again.of(TrustQuorum).load(driver.of(TrustQuorum).dump())
    assert epochs(again) == ([1, 2], [1, 2], [1])
    assert tq(again, TrustQuorum.get_network) == NetworkBlob(3, "AAAA")
    tq(again, TrustQuorum.commit, RACK, 2)


def test_after_a_restart_a_sled_knows_its_rack_and_that_it_was_expunged():
    driver, again = three(), three()
    committed(driver)
    reconfigure(driver, epoch=2, last_committed_epoch=1, members=(MEMBERS - {board(THIRD)}) | {OUTSIDE})
    tq(driver, TrustQuorum.commit, RACK, 2)
    for sled in SLEDS:
        kept = json.loads(json.dumps(driver.of(TrustQuorum, sled).dump()))
        again.of(TrustQuorum, sled).load(kept)
        assert tq(again, TrustQuorum.status, sled=sled) == tq(driver, TrustQuorum.status, sled=sled)
    with pytest.raises(Internal, match="expunged"):
        tq(again, TrustQuorum.commit, RACK, 1, sled=THIRD)
    with pytest.raises(Internal, match="rack"):
        tq(again, TrustQuorum.commit, uuid.uuid4(), 2)


def test_a_configuration_survives_the_wire():
    driver = three()
    committed(driver)
    reconfigure(driver, epoch=2, last_committed_epoch=1)
    for config in driver.of(TrustQuorum).configs.values():
        assert config_of(config_json(config)) == config


def test_a_member_that_missed_the_prepare_needs_as_many_shares_of_others_as_the_threshold_says():
    driver = three()
    driver.of(TrustQuorum, THIRD).silent = True
    reconfigure(driver)
    config, _ = tq(driver, TrustQuorum.coordinator_status)
    tq(driver, TrustQuorum.commit, RACK, 1)
    driver.of(TrustQuorum, OTHER).silent = True
    assert tq(driver, TrustQuorum.prepare_and_commit, config, sled=THIRD) == "pending"
    assert epochs(driver, THIRD) == ([], [], [])
    driver.of(TrustQuorum, OTHER).silent = False
    assert tq(driver, TrustQuorum.prepare_and_commit, config, sled=THIRD) == "committed"
    assert epochs(driver, THIRD) == ([1], [1], [1])


def test_a_member_acknowledges_what_it_has_prepared_and_nothing_else_of_that_epoch():
    driver = three()
    reconfigure(driver)
    config, _ = tq(driver, TrustQuorum.coordinator_status)
    member = driver.of(TrustQuorum, OTHER)
    assert member.asked_to_prepare(config), "again"
    assert not member.asked_to_prepare(attrs.evolve(config, coordinator=board(OTHER)))
    assert not member.asked_to_prepare(attrs.evolve(config, epoch=0))
    assert not member.asked_to_prepare(attrs.evolve(config, epoch=2, rack_id=uuid.UUID(int=1)))
    assert epochs(driver, OTHER) == ([1], [1], [])


def test_the_whole_status_of_a_node():
    driver = three()
    committed(driver)
    others = [{"part_number": "i86pc", "serial_number": f"sim-{sled}"} for sled in (OTHER, THIRD)]
    state = {"has_lrtq_share": False, "configs": [1], "shares": [1], "commits": [1], "expunged": None}
    assert tq(driver, TrustQuorum.status) == {
        "connected_peers": others, "alarms": [], "persistent_state": state, "proxied_requests": 0,
    }  # fmt: skip


def test_a_commit_that_stays_pending_is_not_taken_and_what_was_committed_may_be_repeated():
    driver = three()
    committed(driver)
    reconfigure(driver, epoch=2, last_committed_epoch=1)
    own = driver.of(TrustQuorum)
    own.pending = True
    config = own.configs[2]
    with pytest.raises(Internal, match="commit returned Pending"):
        tq(driver, TrustQuorum.commit, RACK, 2)
    assert tq(driver, TrustQuorum.prepare_and_commit, config) == "pending"
    tq(driver, TrustQuorum.commit, RACK, 1)
    assert epochs(driver)[2] == [1]
    own.pending = False
    assert tq(driver, TrustQuorum.prepare_and_commit, config) == "committed"
    assert epochs(driver)[2] == [1, 2]


def test_configurations_are_limited(monkeypatch):
    monkeypatch.setattr(node, "EPOCHS_MAX", 1)
    driver = three()
    committed(driver)
    with pytest.raises(Internal, match="more than 1 configurations"):
        reconfigure(driver, epoch=2, last_committed_epoch=1)
    assert epochs(driver) == ([1], [1], [1])
