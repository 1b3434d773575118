"""Every tape, over a real socket, against our daemon (SIM_SLED_TAPES says where the tapes are)."""

import asyncio
import gc
from collections import Counter

import pytest
from conformance.sled_under_test import DaemonSled
from conformance.tape_player import How, Played, play_file, tapes

NOT_OFFERED = frozenset(
    {
        "artifact_config_get",
        "artifact_config_put",
        "artifact_copy_from_depot",
        "artifact_get_by_sha256",
        "artifact_list",
        "artifact_put",
        "attach",
        "attach_activate_background",
        "bootstore_status",
        "bulk_read",
        "bulk_write",
        "chicken_switch_destroy_orphaned_datasets_get",
        "chicken_switch_destroy_orphaned_datasets_put",
        "debug_operator_switch_zone_policy_get",
        "debug_operator_switch_zone_policy_put",
        "detach",
        "disk_put",
        "dns_config_get",
        "dns_config_put",
        "inventory",
        "is_job_finished",
        "job_result_ok",
        "local_storage_dataset_delete",
        "local_storage_dataset_ensure",
        "omicron_config_put",
        "pantry_status",
        "read_network_bootstore_config_cache",
        "region_create",
        "region_delete",
        "region_delete_running_snapshot",
        "region_delete_snapshot",
        "region_get",
        "region_get_snapshot",
        "region_get_snapshots",
        "region_list",
        "region_run_snapshot",
        "rot_attest",
        "rot_certificate_chain",
        "rot_measurement_log",
        "sled_identifiers",
        "sled_role_get",
        "snapshot",
        "support_bundle_delete",
        "support_bundle_download",
        "support_bundle_download_file",
        "support_bundle_finalize",
        "support_bundle_head",
        "support_bundle_head_file",
        "support_bundle_head_index",
        "support_bundle_index",
        "support_bundle_list",
        "support_bundle_start_creation",
        "support_bundle_transfer",
        "support_dladm_info",
        "support_health_check",
        "support_ipadm_info",
        "support_logs",
        "support_logs_download",
        "support_nvmeadm_info",
        "support_pargs_info",
        "support_pfiles_info",
        "support_pstack_info",
        "support_zfs_info",
        "support_zoneadm_info",
        "support_zpool_info",
        "trust_quorum_commit",
        "trust_quorum_coordinator_status",
        "trust_quorum_network_config_get",
        "trust_quorum_network_config_put",
        "trust_quorum_prepare_and_commit",
        "trust_quorum_proxy_commit",
        "trust_quorum_proxy_prepare_and_commit",
        "trust_quorum_proxy_status",
        "trust_quorum_reconfigure",
        "trust_quorum_status",
        "trust_quorum_upgrade_from_lrtq",
        "uplink_ensure",
        "vmm_issue_disk_snapshot_request",
        "volume_status",
        "write_network_bootstore_config",
        "zone_bundle_cleanup",
        "zone_bundle_cleanup_context",
        "zone_bundle_cleanup_context_update",
        "zone_bundle_delete",
        "zone_bundle_get",
        "zone_bundle_list",
        "zone_bundle_list_all",
        "zone_bundle_utilization",
        "zones_list",
    }
)
"""Operations that answer the original's 405 so far, or whose server a sled does not have yet. Whoever brings one
strikes it out here: one that is offered after all fails the test."""

_AT_A_TIME = 6
"""Tapes played at the same time: they mostly wait, and each must still be answered at once."""

_PATHS = tapes()


def _report(results: list[Played]) -> str:
    hows = [How.PASSED, How.ALTERNATIVE, How.NOT_OFFERED, How.SKIPPED, How.FAILED]
    counts = Counter((result.op, result.how) for result in results)
    lines = [f"{'operation':40}" + "".join(f"{how.value:>16}" for how in hows)]
    lines += [
        f"{op:40}" + "".join(f"{counts[op, how] or '-':>16}" for how in hows)
        for op in sorted({result.op for result in results})
    ]
    total = Counter(result.how for result in results)
    lines.append(f"{'all':40}" + "".join(f"{total[how]:>16}" for how in hows))
    return "\n".join(lines)


@pytest.fixture(autouse=True)
def _calm_collector():
    """A full collection of this suite's heap takes longer than "at once"."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize(
    "explicit",
    [
        pytest.param(False, id="a sled that works by itself"),
        pytest.param(True, id="a sled that is poked, compared with the existing simulator's generations"),
    ],
)
async def test_every_tape_is_answered_as_nexus_expects(explicit, capsys):
    assert _PATHS, "no tapes where SIM_SLED_TAPES says"
    turns = asyncio.Semaphore(_AT_A_TIME)

    async def played(path):
        async with turns:
            return await play_file(path, DaemonSled(explicit=explicit), not_offered=NOT_OFFERED, exact=explicit)

    results = [result for tape in await asyncio.gather(*map(played, _PATHS)) for result in tape]
    with capsys.disabled():
        print(f"\n{len(_PATHS)} tapes\n{_report(results)}")
    failed = [f"{r.tape}:{r.line} {r.op}: {r.detail}" for r in results if r.how is How.FAILED]
    assert not failed, "\n".join(failed)
    lacking = {result.op for result in results if result.how is How.NOT_OFFERED}
    offered = NOT_OFFERED & {result.op for result in results if result.succeeded} - lacking
    assert not offered, f"strike these out of NOT_OFFERED: {sorted(offered)}"
