"""Every operation of the Sled Agent API, 1.0.0 to 48.0.0, by path (SA 3.1 to 3.3).

What a sled is asked of a VMM all day is here from the start; everything else belongs to an area whose code is
imported when somebody asks for it, with the shapes of its bodies.

Read before: http/arrivals.py, http/artifacts.py, http/bootstore.py, http/bundles.py, http/networks.py,
http/omicron.py, http/routes.py, http/small.py, http/storage.py, http/support.py, http/trust_quorum.py, http/vmms.py.
Read next: http/app.py, http/coverage.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sim_sled.http import vmms
from sim_sled.http.routes import (
    NEWEST,
    Later,
    LaterJson,
    Parser,
    Route,
    Router,
    sha256_param,
    text_param,
    u64_param,
)

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


class _Area:
    """Rows of one module of `sim_sled.http`, which is imported at their first request."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __call__(
        self,
        method: str,
        template: str,
        handler: str,
        op: str | None,
        body: str | None = None,
        *,
        query: Mapping[str, Parser] = MappingProxyType({}),
        optional: Mapping[str, Parser] = MappingProxyType({}),
        since: int = 0,
        until: int = NEWEST + 1,
    ) -> Route:
        """One operation. `body`: name of its type in the module, or MODULE.NAME."""
        module, _, name = (body or "").rpartition(".")
        found = None if body is None else LaterJson(module or self._module, name)
        later = Later(self._module, handler)
        return Route(method, template, later, found, query, optional=optional, since=since, until=until, op=op)

    def versions(
        self,
        method: str,
        template: str,
        handler: str,
        op: str,
        bodies: str,
        *,
        shapes: tuple[int, ...],
        until: int = NEWEST + 1,
    ) -> tuple[Route, ...]:
        """One row per shape of the body. `bodies`: MODULE.TABLE, whose rows are made when they are used."""
        module, table = bodies.split(".")
        later = Later(self._module, handler)
        return tuple(
            Route(
                method,
                template,
                later,
                LaterJson(module, table, since),
                since=0 if since == 1 else since,
                until=end,
                op=op,
            )
            for since, end in zip(shapes, [*shapes[1:], until], strict=True)
        )


_arrivals = _Area("arrivals")
_VMMS: Final = (
    *_arrivals.versions(
        "PUT",
        _VMM,
        "register",
        "vmm_register",
        "bodies_register.BODIES",
        shapes=(1, 7, 9, 10, 11, 17, 18, 29, 31, 32, 41, 44),
    ),
    Route("DELETE", _VMM, vmms.unregister, op="vmm_unregister"),
    Route("GET", _VMM + "/state", vmms.get_state, op="vmm_get_state"),
    Route("PUT", _VMM + "/state", vmms.put_state, vmms.PUT_STATE, op="vmm_put_state"),
    # the simulators' own: at every version, in no OpenAPI document
    Route("POST", _VMM + "/poke", vmms.poke),
    Route("POST", _VMM + "/poke-single-step", vmms.poke_single_step),
    _arrivals("POST", _VMM + "/sim-migration-source", "sim_migration_source", None, "bodies_small.SIM_MIGRATION"),
)

_networks = _Area("networks")
_NETWORKS: Final = (
    _networks("PUT", _VMM + "/external-ip", "put_external_ip", "vmm_put_external_ip", "bodies_small.EXTERNAL_IP"),
    _networks(
        "DELETE", _VMM + "/external-ip", "delete_external_ip", "vmm_delete_external_ip", "bodies_small.EXTERNAL_IP"
    ),
    _networks(
        "PUT",
        _VMM + "/multicast-group",
        "join_multicast_group",
        "vmm_join_multicast_group",
        "bodies_small.MULTICAST",
        since=7,
    ),
    _networks(
        "DELETE",
        _VMM + "/multicast-group",
        "leave_multicast_group",
        "vmm_leave_multicast_group",
        "bodies_small.MULTICAST",
        since=7,
    ),
    _networks("PUT", _SUBNETS, "put_attached_subnets", "vmm_put_attached_subnets", "bodies_small.SUBNETS", since=18),
    _networks("POST", _SUBNETS, "post_attached_subnet", "vmm_post_attached_subnet", "bodies_small.SUBNET", since=18),
    _networks("DELETE", _SUBNETS, "delete_attached_subnets", "vmm_delete_attached_subnets", since=18),
    _networks("DELETE", _SUBNETS + "/{subnet}", "delete_attached_subnet", "vmm_delete_attached_subnet", since=18),
    _networks("GET", "/v2p", "list_v2p", "list_v2p"),
    _networks("PUT", "/v2p", "set_v2p", "set_v2p", "bodies_small.V2P"),
    _networks("DELETE", "/v2p", "delete_v2p", "del_v2p", "bodies_small.V2P"),
    _networks("GET", "/vpc-routes", "list_vpc_routes", "list_vpc_routes"),
    _networks("PUT", "/vpc-routes", "set_vpc_routes", "set_vpc_routes", "bodies_small.ROUTE_SETS"),
    *_networks.versions(
        "PUT",
        "/vpc/{vpc_id}/firewall/rules",
        "put_firewall_rules",
        "vpc_firewall_rules_put",
        "bodies_small.FIREWALL",
        shapes=(1, 10, 31),
    ),
    _networks("PUT", "/eip-gateways", "set_eip_gateways", "set_eip_gateways", "bodies_small.GATEWAYS"),
    *_networks.versions("PUT", "/probes", "put_probes", "probes_put", "bodies_small.PROBES", shapes=(6, 10)),
    _networks("PUT", "/sleds", "add_sled", "sled_add", "bodies_small.ADD_SLED"),
)

_by_generation = {"generation": u64_param}


_omicron = _Area("omicron")
_CONFIG: Final = (
    _omicron("GET", "/inventory", "inventory", "inventory"),
    *_omicron.versions(
        "PUT", "/omicron-config", "put_config", "omicron_config_put", "bodies_omicron.CONFIGS", shapes=(1, 10, 14)
    ),
)

_storage = _Area("storage")
_STORAGE: Final = (
    _storage(
        "POST",
        _VMM + "/disks/{disk_id}/snapshot",
        "snapshot",
        "vmm_issue_disk_snapshot_request",
        "bodies_small.SNAPSHOT",
    ),
    _storage("POST", "/local-storage", "ensure", "local_storage_dataset_ensure", "ENSURE", since=17),
    _storage("DELETE", "/local-storage", "delete", "local_storage_dataset_delete", "DELETE", since=17),
    _storage("POST", _OLD_STORAGE, "old_ensure", "local_storage_dataset_ensure", "OLD_ENSURE", since=9, until=17),
    _storage("DELETE", _OLD_STORAGE, "old_delete", "local_storage_dataset_delete", since=9, until=17),
    _storage("PUT", "/disks/{disk_id}", "put_disk", "disk_put", "DISK", until=21),
)

_artifacts = _Area("artifacts")
_ARTIFACTS: Final = (
    _artifacts("GET", "/artifacts", "list_artifacts", "artifact_list"),
    _artifacts("GET", "/artifacts-config", "get_config", "artifact_config_get"),
    _artifacts("PUT", "/artifacts-config", "put_config", "artifact_config_put", "CONFIG"),
    _artifacts("PUT", "/artifacts/{sha256}", "put_artifact", "artifact_put", query=_by_generation),
    _artifacts(
        "POST",
        "/artifacts/{sha256}/copy-from-depot",
        "copy_from_depot",
        "artifact_copy_from_depot",
        "COPY",
        query=_by_generation,
    ),
)

_bundles = _Area("bundles")
_SUPPORT_BUNDLES: Final = (
    _bundles("GET", _BUNDLES, "list_bundles", "support_bundle_list"),
    _bundles("POST", _BUNDLE, "start", "support_bundle_start_creation"),
    _bundles("PUT", _BUNDLE + "/transfer", "transfer", "support_bundle_transfer", query={"offset": u64_param}),
    _bundles("POST", _BUNDLE + "/finalize", "finalize", "support_bundle_finalize", query={"hash": sha256_param}),
    _bundles("GET", _BUNDLE + "/download", "download", "support_bundle_download"),
    _bundles("HEAD", _BUNDLE + "/download", "head", "support_bundle_head"),
    _bundles("GET", _BUNDLE + "/download/{file}", "download_file", "support_bundle_download_file"),
    _bundles("HEAD", _BUNDLE + "/download/{file}", "head_file", "support_bundle_head_file"),
    _bundles("GET", _BUNDLE + "/index", "index", "support_bundle_index"),
    _bundles("HEAD", _BUNDLE + "/index", "head_index", "support_bundle_head_index"),
    _bundles("DELETE", _BUNDLE, "delete", "support_bundle_delete"),
)

_bootstore = _Area("bootstore")
_BOOTSTORE: Final = (
    _bootstore("GET", "/bootstore/status", "status", "bootstore_status"),
    *_bootstore.versions(
        "PUT",
        _NETWORK_CONFIG,
        "put_old",
        "write_network_bootstore_config",
        "bodies_bootstore.REQUESTS",
        shapes=(1, 20),
        until=25,
    ),
    *_bootstore.versions(
        "PUT",
        _NETWORK_CONFIG,
        "put",
        "write_network_bootstore_config",
        "bodies_bootstore.REQUESTS",
        shapes=(25, 26, 30, 33, 39, 42, 47, 48),
    ),
    _bootstore("GET", _NETWORK_CONFIG, "get", "read_network_bootstore_config_cache", until=23),
    *_bootstore.versions(
        "POST",
        "/switch-ports",
        "ensure_uplinks",
        "uplink_ensure",
        "bodies_bootstore.SWITCH_PORTS",
        shapes=(1, 20, 30),
        until=45,
    ),
)

_small = _Area("small")
_SMALL: Final = (
    _small("GET", "/sled-identifiers", "sled_identifiers", "sled_identifiers"),
    _small("GET", "/sled-role", "sled_role", "sled_role_get", until=8),
    _small("GET", "/zones", "zones", "zones_list"),
    _small("GET", _POLICY, "get_policy", "debug_operator_switch_zone_policy_get", since=3),
    _small("PUT", _POLICY, "put_policy", "debug_operator_switch_zone_policy_put", "POLICY", since=3),
    _small("GET", _OLD_SWITCH, "get_destroy_orphans", "chicken_switch_destroy_orphaned_datasets_get", until=2),
    _small(
        "PUT", _OLD_SWITCH, "put_destroy_orphans", "chicken_switch_destroy_orphaned_datasets_put", "ORPHANS", until=3
    ),
    _small("GET", "/rot/{rot}/measurement-log", "measurement_log", "rot_measurement_log", since=19),
    _small("GET", "/rot/{rot}/certificate-chain", "certificate_chain", "rot_certificate_chain", since=19),
    _small("POST", "/rot/{rot}/attest", "attest", "rot_attest", "NONCE", since=19),
)

_QUERIES: Final = ("zoneadm", "ipadm", "dladm", "nvmeadm", "pargs", "pstack", "pfiles", "zfs", "zpool")

_support = _Area("support")
_SUPPORT: Final = (
    *(_support("GET", f"/support/{each}-info", "query", f"support_{each}_info") for each in _QUERIES),
    _support("GET", "/support/health-check", "query", "support_health_check"),
    _support("GET", "/support/logs/zones", "log_zones", "support_logs"),
    _support(
        "GET",
        "/support/logs/download/{zone}",
        "download_logs",
        "support_logs_download",
        query={"max_rotated": u64_param},
    ),
    _support("GET", _ZONE_BUNDLES, "list_all", "zone_bundle_list_all", optional={"filter": text_param}),
    _support("GET", _ZONE_BUNDLES + "/{zone_name}", "list_zone", "zone_bundle_list"),
    _support("GET", _ZONE_BUNDLES + "/{zone_name}/{bundle_id}", "get_bundle", "zone_bundle_get"),
    _support("DELETE", _ZONE_BUNDLES + "/{zone_name}/{bundle_id}", "delete_bundle", "zone_bundle_delete"),
    _support("POST", _CLEANUP, "cleanup", "zone_bundle_cleanup"),
    _support("GET", _CLEANUP + "/context", "get_context", "zone_bundle_cleanup_context"),
    _support("PUT", _CLEANUP + "/context", "put_context", "zone_bundle_cleanup_context_update", "CONTEXT"),
    _support("GET", _CLEANUP + "/utilization", "utilization", "zone_bundle_utilization"),
)

_MEMBER: Final = {"part_number": text_param, "serial_number": text_param}

_trust_quorum = _Area("trust_quorum")
_TRUST_QUORUM: Final = (
    _trust_quorum(
        "POST", "/trust-quorum/configuration", "reconfigure", "trust_quorum_reconfigure", "RECONFIGURE", since=13
    ),
    _trust_quorum("POST", "/trust-quorum/upgrade", "upgrade", "trust_quorum_upgrade_from_lrtq", "UPGRADE", since=13),
    _trust_quorum("PUT", "/trust-quorum/commit", "commit", "trust_quorum_commit", "COMMIT", since=13),
    _trust_quorum(
        "GET", "/trust-quorum/coordinator-status", "coordinator_status", "trust_quorum_coordinator_status", since=13
    ),
    _trust_quorum(
        "PUT",
        "/trust-quorum/prepare-and-commit",
        "prepare_and_commit",
        "trust_quorum_prepare_and_commit",
        "PREPARE",
        since=13,
    ),
    _trust_quorum(
        "PUT", "/trust-quorum/proxy/commit", "proxy_commit", "trust_quorum_proxy_commit", "PROXY_COMMIT", since=13
    ),
    _trust_quorum(
        "PUT",
        "/trust-quorum/proxy/prepare-and-commit",
        "proxy_prepare_and_commit",
        "trust_quorum_proxy_prepare_and_commit",
        "PROXY_PREPARE",
        since=13,
    ),
    _trust_quorum(
        "GET", "/trust-quorum/proxy/status", "proxy_status", "trust_quorum_proxy_status", query=_MEMBER, since=13
    ),
    _trust_quorum("GET", "/trust-quorum/status", "status", "trust_quorum_status", since=15),
    _trust_quorum("GET", "/trust-quorum/network-config", "get_network", "trust_quorum_network_config_get", since=15),
    _trust_quorum(
        "PUT", "/trust-quorum/network-config", "put_network", "trust_quorum_network_config_put", "NETWORK", since=15
    ),
)

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
