"""Every operation of the Sled Agent API, 1.0.0 to 48.0.0, by path (sled-agent-api.md 3.1 to 3.3).

Operations on VMMs and their networks are what a sled is asked all day; everything else belongs to an area whose code
is imported when somebody asks for it.

Read before: vmms.py, networks.py. Read next: app.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sim_sled.http import bodies_small as small
from sim_sled.http import networks, vmms
from sim_sled.http.bodies_register import BODIES
from sim_sled.http.routes import (
    Later,
    LaterJson,
    Parser,
    Route,
    Router,
    by_versions,
    sha256_param,
    text_param,
    u64_param,
)
from sim_sled.http.versions import NEWEST

_VMM: Final = "/vmms/{propolis_id}"
_SUBNETS: Final = _VMM + "/attached-subnets"
_BUNDLES: Final = "/support-bundles/{zpool_id}/{dataset_id}"
_BUNDLE: Final = _BUNDLES + "/{support_bundle_id}"
_ZONE_BUNDLES: Final = "/zones/bundles"
_CLEANUP: Final = "/zones/bundle-cleanup"
_NETWORK_CONFIG: Final = "/network-bootstore-config"
_POLICY: Final = "/debug/switch-zone-policy"
_OLD_STORAGE: Final = "/local-storage/{zpool_id}/{dataset_id}"
_OLD_SWITCH: Final = "/chicken-switch/destroy-orphaned-datasets"

_VMMS: Final = (
    *by_versions("PUT", _VMM, vmms.register, BODIES, "vmm_register"),
    Route("DELETE", _VMM, vmms.unregister, op="vmm_unregister"),
    Route("GET", _VMM + "/state", vmms.get_state, op="vmm_get_state"),
    Route("PUT", _VMM + "/state", vmms.put_state, small.PUT_STATE, op="vmm_put_state"),
    # the simulators' own: at every version, in no OpenAPI document
    Route("POST", _VMM + "/poke", vmms.poke),
    Route("POST", _VMM + "/poke-single-step", vmms.poke_single_step),
    Route("POST", _VMM + "/sim-migration-source", vmms.sim_migration_source, small.SIM_MIGRATION),
)

_NETWORKS: Final = (
    Route("PUT", _VMM + "/external-ip", networks.put_external_ip, small.EXTERNAL_IP, op="vmm_put_external_ip"),
    Route("DELETE", _VMM + "/external-ip", networks.delete_external_ip, small.EXTERNAL_IP,
          op="vmm_delete_external_ip"),
    Route("PUT", _VMM + "/multicast-group", networks.join_multicast_group, small.MULTICAST, since=7,
          op="vmm_join_multicast_group"),
    Route("DELETE", _VMM + "/multicast-group", networks.leave_multicast_group, small.MULTICAST, since=7,
          op="vmm_leave_multicast_group"),
    Route("PUT", _SUBNETS, networks.put_attached_subnets, small.SUBNETS, since=18, op="vmm_put_attached_subnets"),
    Route("POST", _SUBNETS, networks.post_attached_subnet, small.SUBNET, since=18, op="vmm_post_attached_subnet"),
    Route("DELETE", _SUBNETS, networks.delete_attached_subnets, since=18, op="vmm_delete_attached_subnets"),
    Route("DELETE", _SUBNETS + "/{subnet}", networks.delete_attached_subnet, since=18,
          op="vmm_delete_attached_subnet"),
    Route("GET", "/v2p", networks.list_v2p, op="list_v2p"),
    Route("PUT", "/v2p", networks.set_v2p, small.V2P, op="set_v2p"),
    Route("DELETE", "/v2p", networks.delete_v2p, small.V2P, op="del_v2p"),
    Route("GET", "/vpc-routes", networks.list_vpc_routes, op="list_vpc_routes"),
    Route("PUT", "/vpc-routes", networks.set_vpc_routes, small.ROUTE_SETS, op="set_vpc_routes"),
    *by_versions("PUT", "/vpc/{vpc_id}/firewall/rules", networks.put_firewall_rules, small.FIREWALL,
                 "vpc_firewall_rules_put"),
    Route("PUT", "/eip-gateways", networks.set_eip_gateways, small.GATEWAYS, op="set_eip_gateways"),
    *by_versions("PUT", "/probes", networks.put_probes, small.PROBES, "probes_put"),
    Route("PUT", "/sleds", networks.add_sled, small.ADD_SLED, op="sled_add"),
)  # fmt: skip

_by_generation = {"generation": u64_param}


def _row(
    method: str,
    template: str,
    area: str,
    handler: str,
    op: str,
    body: str | None = None,
    *,
    query: Mapping[str, Parser] | None = None,
    optional: Mapping[str, Parser] | None = None,
    since: int = 0,
    until: int = NEWEST + 1,
) -> Route:
    """One operation of an area, which is imported at its first request."""
    module, dot, name = (body or "").rpartition(".")
    found = None if body is None else LaterJson(module if dot else area, name)
    return Route(
        method,
        template,
        Later(area, handler),
        found,
        query or {},
        optional=optional or {},
        since=since,
        until=until,
        op=op,
    )


def _versioned(
    method: str, template: str, area: str, handler: str, op: str, bodies: str, shapes: tuple[int, ...], until: int
) -> tuple[Route, ...]:
    """One row per shape of the body. `bodies`: MODULE.TABLE, whose rows are made when they are used."""
    module, table = bodies.split(".")
    ends = [*shapes[1:], until]
    return tuple(
        Route(
            method,
            template,
            Later(area, handler),
            LaterJson(module, table, since),
            since=0 if since == 1 else since,
            until=end,
            op=op,
        )
        for since, end in zip(shapes, ends, strict=True)
    )


_CONFIG: Final = (
    _row("GET", "/inventory", "omicron", "inventory", "inventory"),
    *_versioned("PUT", "/omicron-config", "omicron", "put_config", "omicron_config_put", "bodies_omicron.CONFIGS",
                (1, 10, 14), NEWEST + 1),
)  # fmt: skip

_STORAGE: Final = (
    _row("POST", _VMM + "/disks/{disk_id}/snapshot", "storage", "snapshot", "vmm_issue_disk_snapshot_request",
         "bodies_small.SNAPSHOT"),
    _row("POST", "/local-storage", "storage", "ensure", "local_storage_dataset_ensure", "ENSURE", since=17),
    _row("DELETE", "/local-storage", "storage", "delete", "local_storage_dataset_delete", "DELETE", since=17),
    _row("POST", _OLD_STORAGE, "storage", "old_ensure", "local_storage_dataset_ensure", "OLD_ENSURE", since=9, until=17),
    _row("DELETE", _OLD_STORAGE, "storage", "old_delete", "local_storage_dataset_delete", since=9, until=17),
    _row("PUT", "/disks/{disk_id}", "storage", "put_disk", "disk_put", "DISK", until=21),
)  # fmt: skip

_ARTIFACTS: Final = (
    _row("GET", "/artifacts", "artifacts", "list_artifacts", "artifact_list"),
    _row("GET", "/artifacts-config", "artifacts", "get_config", "artifact_config_get"),
    _row("PUT", "/artifacts-config", "artifacts", "put_config", "artifact_config_put", "CONFIG"),
    _row("PUT", "/artifacts/{sha256}", "artifacts", "put_artifact", "artifact_put", query=_by_generation),
    _row("POST", "/artifacts/{sha256}/copy-from-depot", "artifacts", "copy_from_depot", "artifact_copy_from_depot", "COPY",
         query=_by_generation),
)  # fmt: skip

_SUPPORT_BUNDLES: Final = (
    _row("GET", _BUNDLES, "bundles", "list_bundles", "support_bundle_list"),
    _row("POST", _BUNDLE, "bundles", "start", "support_bundle_start_creation"),
    _row("PUT", _BUNDLE + "/transfer", "bundles", "transfer", "support_bundle_transfer", query={"offset": u64_param}),
    _row(
        "POST", _BUNDLE + "/finalize", "bundles", "finalize", "support_bundle_finalize", query={"hash": sha256_param}
    ),
    _row("GET", _BUNDLE + "/download", "bundles", "download", "support_bundle_download"),
    _row("HEAD", _BUNDLE + "/download", "bundles", "head", "support_bundle_head"),
    _row("GET", _BUNDLE + "/download/{file}", "bundles", "download_file", "support_bundle_download_file"),
    _row("HEAD", _BUNDLE + "/download/{file}", "bundles", "head_file", "support_bundle_head_file"),
    _row("GET", _BUNDLE + "/index", "bundles", "index", "support_bundle_index"),
    _row("HEAD", _BUNDLE + "/index", "bundles", "head_index", "support_bundle_head_index"),
    _row("DELETE", _BUNDLE, "bundles", "delete", "support_bundle_delete"),
)

_BOOTSTORE: Final = (
    _row("GET", "/bootstore/status", "bootstore", "status", "bootstore_status"),
    *_versioned("PUT", _NETWORK_CONFIG, "bootstore", "put_old", "write_network_bootstore_config",
                "bodies_bootstore.REQUESTS", (1, 20), 25),
    *_versioned("PUT", _NETWORK_CONFIG, "bootstore", "put", "write_network_bootstore_config",
                "bodies_bootstore.REQUESTS", (25, 26, 30, 33, 39, 42, 47, 48), NEWEST + 1),
    _row("GET", _NETWORK_CONFIG, "bootstore", "get", "read_network_bootstore_config_cache", until=23),
    *_versioned("POST", "/switch-ports", "bootstore", "ensure_uplinks", "uplink_ensure",
                "bodies_bootstore.SWITCH_PORTS", (1, 20, 30), 45),
)  # fmt: skip

_SMALL: Final = (
    _row("GET", "/sled-identifiers", "small", "sled_identifiers", "sled_identifiers"),
    _row("GET", "/sled-role", "small", "sled_role", "sled_role_get", until=8),
    _row("GET", "/zones", "small", "zones", "zones_list"),
    _row("GET", _POLICY, "small", "get_policy", "debug_operator_switch_zone_policy_get", since=3),
    _row("PUT", _POLICY, "small", "put_policy", "debug_operator_switch_zone_policy_put", "POLICY", since=3),
    _row("GET", _OLD_SWITCH, "small", "get_destroy_orphans", "chicken_switch_destroy_orphaned_datasets_get", until=2),
    _row("PUT", _OLD_SWITCH, "small", "put_destroy_orphans", "chicken_switch_destroy_orphaned_datasets_put", "ORPHANS",
         until=3),
    _row("GET", "/rot/{rot}/measurement-log", "small", "measurement_log", "rot_measurement_log", since=19),
    _row("GET", "/rot/{rot}/certificate-chain", "small", "certificate_chain", "rot_certificate_chain", since=19),
    _row("POST", "/rot/{rot}/attest", "small", "attest", "rot_attest", "NONCE", since=19),
)  # fmt: skip

_QUERIES: Final = ("zoneadm", "ipadm", "dladm", "nvmeadm", "pargs", "pstack", "pfiles", "zfs", "zpool")

_SUPPORT: Final = (
    *(_row("GET", f"/support/{each}-info", "support", "query", f"support_{each}_info") for each in _QUERIES),
    _row("GET", "/support/health-check", "support", "query", "support_health_check"),
    _row("GET", "/support/logs/zones", "support", "log_zones", "support_logs"),
    _row("GET", "/support/logs/download/{zone}", "support", "download_logs", "support_logs_download",
         query={"max_rotated": u64_param}),
    _row("GET", _ZONE_BUNDLES, "support", "list_all", "zone_bundle_list_all", optional={"filter": text_param}),
    _row("GET", _ZONE_BUNDLES + "/{zone_name}", "support", "list_zone", "zone_bundle_list"),
    _row("GET", _ZONE_BUNDLES + "/{zone_name}/{bundle_id}", "support", "get_bundle", "zone_bundle_get"),
    _row("DELETE", _ZONE_BUNDLES + "/{zone_name}/{bundle_id}", "support", "delete_bundle", "zone_bundle_delete"),
    _row("POST", _CLEANUP, "support", "cleanup", "zone_bundle_cleanup"),
    _row("GET", _CLEANUP + "/context", "support", "get_context", "zone_bundle_cleanup_context"),
    _row("PUT", _CLEANUP + "/context", "support", "put_context", "zone_bundle_cleanup_context_update", "CONTEXT"),
    _row("GET", _CLEANUP + "/utilization", "support", "utilization", "zone_bundle_utilization"),
)  # fmt: skip

_TQ: Final = "trust_quorum"
_MEMBER: Final = {"part_number": text_param, "serial_number": text_param}

_TRUST_QUORUM: Final = (
    _row("POST", "/trust-quorum/configuration", _TQ, "reconfigure", "trust_quorum_reconfigure", "RECONFIGURE", since=13),
    _row("POST", "/trust-quorum/upgrade", _TQ, "upgrade", "trust_quorum_upgrade_from_lrtq", "UPGRADE", since=13),
    _row("PUT", "/trust-quorum/commit", _TQ, "commit", "trust_quorum_commit", "COMMIT", since=13),
    _row("GET", "/trust-quorum/coordinator-status", _TQ, "coordinator_status", "trust_quorum_coordinator_status", since=13),
    _row("PUT", "/trust-quorum/prepare-and-commit", _TQ, "prepare_and_commit", "trust_quorum_prepare_and_commit", "PREPARE",
         since=13),
    _row("PUT", "/trust-quorum/proxy/commit", _TQ, "proxy_commit", "trust_quorum_proxy_commit", "PROXY_COMMIT", since=13),
    _row("PUT", "/trust-quorum/proxy/prepare-and-commit", _TQ, "proxy_prepare_and_commit",
         "trust_quorum_proxy_prepare_and_commit", "PROXY_PREPARE", since=13),
    _row("GET", "/trust-quorum/proxy/status", _TQ, "proxy_status", "trust_quorum_proxy_status", query=_MEMBER, since=13),
    _row("GET", "/trust-quorum/status", _TQ, "status", "trust_quorum_status", since=15),
    _row("GET", "/trust-quorum/network-config", _TQ, "get_network", "trust_quorum_network_config_get", since=15),
    _row("PUT", "/trust-quorum/network-config", _TQ, "put_network", "trust_quorum_network_config_put", "NETWORK", since=15),
)  # fmt: skip

ROUTER: Final = Router(
    (
        *_VMMS,
        *_NETWORKS,
        *_CONFIG,
        *_STORAGE,
        *_ARTIFACTS,
        *_SUPPORT_BUNDLES,
        *_BOOTSTORE,
        *_SMALL,
        *_SUPPORT,
        *_TRUST_QUORUM,
    )
)
