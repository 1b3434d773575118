"""The words a scenario may use for things that exist elsewhere: operations, states, edges, phases, error codes.

One list per idea, each with its source; a test holds them against the OpenAPI documents and Propolis's table.

Read next: page/looks.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from propolis_stub.table import TRANSITIONS
from propolis_stub.types import InstanceState
from sim_sled.core.mishaps import OPERATIONS as BESIDE


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPERATIONS: Final = _words(
    """
    artifact_config_get artifact_config_put artifact_copy_from_depot artifact_list artifact_put
    bootstore_status debug_operator_switch_zone_policy_get debug_operator_switch_zone_policy_put del_v2p
    inventory list_v2p list_vpc_routes local_storage_dataset_delete local_storage_dataset_ensure
    omicron_config_put probes_put rot_attest rot_certificate_chain rot_measurement_log set_eip_gateways
    set_v2p set_vpc_routes sled_add sled_identifiers support_bundle_delete support_bundle_download
    support_bundle_download_file support_bundle_finalize support_bundle_head support_bundle_head_file
    support_bundle_head_index support_bundle_index support_bundle_list support_bundle_start_creation
    support_bundle_transfer support_dladm_info support_health_check support_ipadm_info support_logs
    support_logs_download support_nvmeadm_info support_pargs_info support_pfiles_info support_pstack_info
    support_zfs_info support_zoneadm_info support_zpool_info trust_quorum_commit
    trust_quorum_coordinator_status trust_quorum_network_config_get trust_quorum_network_config_put
    trust_quorum_prepare_and_commit trust_quorum_proxy_commit trust_quorum_proxy_prepare_and_commit
    trust_quorum_proxy_status trust_quorum_reconfigure trust_quorum_status trust_quorum_upgrade_from_lrtq
    vmm_delete_attached_subnet vmm_delete_attached_subnets vmm_delete_external_ip vmm_get_state
    vmm_issue_disk_snapshot_request vmm_join_multicast_group vmm_leave_multicast_group
    vmm_post_attached_subnet vmm_put_attached_subnets vmm_put_external_ip vmm_put_state vmm_register
    vmm_unregister vpc_firewall_rules_put write_network_bootstore_config zone_bundle_cleanup
    zone_bundle_cleanup_context zone_bundle_cleanup_context_update zone_bundle_delete zone_bundle_get
    zone_bundle_list zone_bundle_list_all zone_bundle_utilization zones_list
    """
)
"""Operation ids of the newest Sled Agent API (48.0.0)."""

EARLIER_OPERATIONS: Final = _words(
    """
    chicken_switch_destroy_orphaned_datasets_get chicken_switch_destroy_orphaned_datasets_put cockroachdb_init
    disk_put host_os_write_start host_os_write_status_delete host_os_write_status_get
    instance_delete_external_ip instance_get_state instance_issue_disk_snapshot_request
    instance_put_external_ip instance_put_migration_ids instance_put_state instance_register
    instance_unregister omicron_physical_disks_get omicron_physical_disks_put omicron_zones_get
    omicron_zones_put read_network_bootstore_config_cache sled_role_get timesync_get update_artifact
    uplink_ensure zone_bundle_create zpools_get
    """
)
"""Operation ids that only earlier versions of the API have; `BESIDE` are those of the servers beside a sled."""

ALL_OPERATIONS: Final = OPERATIONS | EARLIER_OPERATIONS | BESIDE


class Truth(StrEnum):
    """What a VMM can be in truth: Propolis's states in lower case, without `repairing` (PR 1)."""

    CREATING = "creating"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    REBOOTING = "rebooting"
    MIGRATING = "migrating"
    FAILED = "failed"
    DESTROYED = "destroyed"


TRUTH_OF: Final[Mapping[InstanceState, Truth]] = {
    state: Truth(state.value.lower()) for state in InstanceState if state is not InstanceState.REPAIRING
}
"""Propolis's state as a scenario calls it. A state that Propolis gets and scenarios do not know ends every import."""


class On(StrEnum):
    """What sets a rule off, in the order in which the reference has it."""

    REQUEST = "request"
    RESPONSE = "response"
    STATE = "state"
    EDGE = "edge"
    MIGRATION = "migration"
    PUBLISH = "publish"
    AT = "at"
    EVERY = "every"
    IDLE = "idle"
    RULE = "rule"
    MANUAL = "manual"


STATES: Final = tuple(Truth)

PUBLISHED_STATES: Final = tuple(s for s in STATES if s not in (Truth.CREATING, Truth.STOPPED))
"""What a sled tells Nexus: `stopped` is folded into `stopping`, `creating` is Nexus's own (NX 7 #4 and #5)."""

PUBLIC_STATES: Final = (
    "creating",
    "starting",
    "running",
    "stopping",
    "stopped",
    "rebooting",
    "migrating",
    "failed",
    "destroyed",
)
"""What users see of an instance (NX 2)."""

TERMINAL_STATES: Final = (Truth.FAILED, Truth.DESTROYED)

EDGES: Final = frozenset(
    (TRUTH_OF[before], TRUTH_OF[after]) for (before, _), after in TRANSITIONS.items() if before is not after
)
"""Every change of state that Propolis can publish (PR 1.1), without publications that keep the state."""

PHASES: Final = (
    "connect",
    "sync",
    "ram_push",
    "pause",
    "ram_push_dirty",
    "time_data",
    "device",
    "ram_pull",
    "server",
    "finish",
)
"""Phases of a migration that take time (PR 3.5, 3.6; `time_data` publishes nothing)."""

MIGRATION_EVENTS: Final = (*PHASES, "error")
"""What `when: {migration: ...}` may name: a phase begins, or `error`: this side gives up."""

MIGRATION_STATES: Final = ("pending", "in_progress", "completed", "failed")

ASKED: Final = ("running", "stopped", "reboot", "migration_target")
"""Kinds of `vmm_put_state` (nexus_client.types.Asked)."""

TASKS: Final = ("collect", "config", "disk", "artifact", "bundle", "expunge_disk", "remove_datasets")
"""What Nexus does by itself with sleds beside VMMs, as far as `load` has it (SR 7)."""


class Ended(StrEnum):
    """What a task has come to."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


POOL_HEALTH: Final = ("online", "degraded", "faulted", "offline", "removed", "unavailable")
"""What an inventory may say of a pool (SR 3.6)."""

SMF_STATES: Final = ("offline", "degraded", "maintenance", "unrecognized")
"""Of services that are enabled and not online (SR 3.6); versions before 46 have no word for `unrecognized`."""

DATASET_KINDS: Final = (
    "cockroachdb", "crucible", "clickhouse", "clickhouse_keeper", "clickhouse_server", "external_dns", "internal_dns",
    "zone", "debug", "local_storage", "local_storage_unencrypted",
)  # fmt: skip
"""Of datasets in a sled's configuration (SR 3.3)."""

ZONE_KINDS: Final = (
    "boundary_ntp", "clickhouse", "clickhouse_keeper", "clickhouse_server", "cockroach_db", "crucible",
    "crucible_pantry", "external_dns", "internal_dns", "internal_ntp", "nexus", "oximeter",
)  # fmt: skip
"""Of zones in a sled's configuration, as `zone_type` says."""

INVARIANTS: Final = {
    "gen_monotonic": "generations published for one VMM never go down; equal ones carry equal states",
    "final_state_acked": "at the end of the run Nexus has confirmed the last state of every VMM it can be told of",
    "one_running_vmm": "no instance has two VMMs whose guests run at once",
    "no_leaks": "at the end nothing is left behind: VMMs that Nexus has forgotten, records that nobody refers to",
    "capacity": "no sled ever carries more CPUs or memory than its shape has",
    "no_unexplained_5xx": "every 5xx answer to Nexus or from Nexus was made by a rule",
    "wishes_kept": "what was stopped does not run at the end, nor is restarted; what failed is not `stopped` unasked",
    "over_left_alone": "Nexus asks no sled for a VMM that it knows to be failed or destroyed (virtual time only)",
    "agents_live": "no sled agent aborts",
    "nexus_lives": "Nexus does not end by itself: it is restarted by rules alone (virtual time only)",
    "time_ordered": "`time_updated` of one VMM never goes back",
}
DEFAULT_INVARIANTS: Final = ("gen_monotonic", "final_state_acked", "one_running_vmm")

AGENT_CODES: Final = _words(
    """
    NO_SUCH_INSTANCE INSTANCE_CHANNEL_FULL SUBNET_ALREADY_ATTACHED InvalidRequest Conflict Internal Gone Forbidden
    ServiceNotAvailable ObjectNotFound ObjectAlreadyExists InvalidValue InsufficientCapacity Unauthorized
    """
)
"""`error_code`s that agents and the common error type use (SA 1.3, 2.12; NX 3)."""

BOOLEAN_KEYS: Final = {
    **dict.fromkeys(("on", "yes", "true", "y"), "true"),
    **dict.fromkeys(("off", "no", "false", "n"), "false"),
}
"""Plain keys that a YAML 1.1 reader turns into booleans."""


def nearest(word: str, known: Iterable[str | None]) -> str | None:
    """The known name that `word` most likely meant. None among them: something whose own name is missing or wrong,
    which is told elsewhere.
    """
    word = word[:64]
    matcher = SequenceMatcher(b=word)
    its_letters = str.maketrans("", "", word)
    least, found = 0.55, None
    for name in sorted(filter(None, known)):  # as difflib.get_close_matches would, of thousands of host names at once
        alike = len(name) - len(name.translate(its_letters))
        if 2.0 * alike / (len(word) + len(name)) < least:
            continue
        matcher.set_seq1(name)
        if matcher.quick_ratio() >= least and (ratio := matcher.ratio()) >= least:
            least, found = ratio, name
    return found


def nearest_two(word: str, known: Iterable[str]) -> list[str]:
    return get_close_matches(word[:64], sorted(known), n=2, cutoff=0.4)


def hint(word: str, known: Iterable[str | None]) -> str:
    """` (did you mean 'x'?)` or nothing."""
    found = nearest(word, known)
    return f" (did you mean '{found}'?)" if found else ""


def is_glob(text: str) -> bool:
    return any(c in text for c in "*?[")


def matching(pattern: str, known: Iterable[str]) -> list[str]:
    """Names that a glob means, sorted."""
    return sorted(k for k in known if fnmatchcase(k, pattern))
