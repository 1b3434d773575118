"""Every operation of the Sled Agent API, 1.0.0 to 48.0.0, by path (SA 3.1 to 3.3).

What this sled does not offer answers 405 "not implemented", after its path, query and body were looked at; that goes
through the same table, so a row gains a handler and a body type on the day the operation is built.

Read before: http/networks.py, http/routes.py, http/vmms.py. Read next: http/app.py.
"""

from __future__ import annotations

from typing import Final

from sim_sled.core.errors import NotImplementedHere
from sim_sled.http import bodies_small as small
from sim_sled.http import networks, vmms
from sim_sled.http.bodies_register import BODIES
from sim_sled.http.routes import (
    Answer,
    Call,
    Route,
    Router,
    by_versions,
    sha256_param,
    text_param,
    u64_param,
)


async def not_implemented(call: Call) -> Answer:  # noqa: ARG001 -- a handler like the others
    raise NotImplementedHere("this operation is not offered")


_VMM: Final = "/vmms/{propolis_id}"
_SUBNETS: Final = _VMM + "/attached-subnets"
_BUNDLES: Final = "/support-bundles/{zpool_id}/{dataset_id}"
_BUNDLE: Final = _BUNDLES + "/{support_bundle_id}"
_ZONE_BUNDLES: Final = "/zones/bundles"
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

_no = not_implemented
_json = small.ANY_JSON
_by_generation = {"generation": u64_param}

_NOT_OFFERED: Final = (
    Route("POST", _VMM + "/disks/{disk_id}/snapshot", _no, small.SNAPSHOT, op="vmm_issue_disk_snapshot_request"),
    Route("GET", "/inventory", _no, op="inventory"),
    Route("PUT", "/omicron-config", _no, _json, op="omicron_config_put"),
    Route("PUT", "/network-bootstore-config", _no, _json, op="write_network_bootstore_config"),
    Route("POST", "/local-storage", _no, _json, since=17, op="local_storage_dataset_ensure"),
    Route("DELETE", "/local-storage", _no, _json, since=17, op="local_storage_dataset_delete"),
    Route("GET", "/artifacts", _no, op="artifact_list"),
    Route("GET", "/artifacts-config", _no, op="artifact_config_get"),
    Route("PUT", "/artifacts-config", _no, _json, op="artifact_config_put"),
    Route("PUT", "/artifacts/{sha256}", _no, query=_by_generation, op="artifact_put"),
    Route("POST", "/artifacts/{sha256}/copy-from-depot", _no, _json, _by_generation, op="artifact_copy_from_depot"),
    Route("GET", _BUNDLES, _no, op="support_bundle_list"),
    Route("POST", _BUNDLE, _no, op="support_bundle_start_creation"),
    Route("PUT", _BUNDLE + "/transfer", _no, query={"offset": u64_param}, op="support_bundle_transfer"),
    Route("POST", _BUNDLE + "/finalize", _no, query={"hash": sha256_param}, op="support_bundle_finalize"),
    Route("GET", _BUNDLE + "/download", _no, op="support_bundle_download"),
    Route("HEAD", _BUNDLE + "/download", _no, op="support_bundle_head"),
    Route("GET", _BUNDLE + "/download/{file}", _no, op="support_bundle_download_file"),
    Route("HEAD", _BUNDLE + "/download/{file}", _no, op="support_bundle_head_file"),
    Route("GET", _BUNDLE + "/index", _no, op="support_bundle_index"),
    Route("HEAD", _BUNDLE + "/index", _no, op="support_bundle_head_index"),
    Route("DELETE", _BUNDLE, _no, op="support_bundle_delete"),
    Route("GET", "/support/logs/zones", _no, op="support_logs"),
    Route("GET", "/support/zoneadm-info", _no, op="support_zoneadm_info"),
    Route("GET", "/support/ipadm-info", _no, op="support_ipadm_info"),
    Route("GET", "/support/dladm-info", _no, op="support_dladm_info"),
    Route("GET", "/support/nvmeadm-info", _no, op="support_nvmeadm_info"),
    Route("GET", "/support/pargs-info", _no, op="support_pargs_info"),
    Route("GET", "/support/pstack-info", _no, op="support_pstack_info"),
    Route("GET", "/support/pfiles-info", _no, op="support_pfiles_info"),
    Route("GET", "/support/zfs-info", _no, op="support_zfs_info"),
    Route("GET", "/support/zpool-info", _no, op="support_zpool_info"),
    Route("GET", "/support/health-check", _no, op="support_health_check"),
    Route("GET", "/support/logs/download/{zone}", _no, query={"max_rotated": u64_param}, op="support_logs_download"),
    Route("GET", "/zones", _no, op="zones_list"),
    Route("GET", _ZONE_BUNDLES, _no, op="zone_bundle_list_all"),
    Route("GET", _ZONE_BUNDLES + "/{zone_name}", _no, op="zone_bundle_list"),
    Route("GET", _ZONE_BUNDLES + "/{zone_name}/{bundle_id}", _no, op="zone_bundle_get"),
    Route("DELETE", _ZONE_BUNDLES + "/{zone_name}/{bundle_id}", _no, op="zone_bundle_delete"),
    Route("POST", "/zones/bundle-cleanup", _no, op="zone_bundle_cleanup"),
    Route("GET", "/zones/bundle-cleanup/context", _no, op="zone_bundle_cleanup_context"),
    Route("PUT", "/zones/bundle-cleanup/context", _no, _json, op="zone_bundle_cleanup_context_update"),
    Route("GET", "/zones/bundle-cleanup/utilization", _no, op="zone_bundle_utilization"),
    Route("GET", "/sled-identifiers", _no, op="sled_identifiers"),
    Route("GET", "/bootstore/status", _no, op="bootstore_status"),
    Route("GET", "/debug/switch-zone-policy", _no, since=3, op="debug_operator_switch_zone_policy_get"),
    Route("PUT", "/debug/switch-zone-policy", _no, _json, since=3, op="debug_operator_switch_zone_policy_put"),
    Route("POST", "/trust-quorum/configuration", _no, _json, since=13, op="trust_quorum_reconfigure"),
    Route("POST", "/trust-quorum/upgrade", _no, _json, since=13, op="trust_quorum_upgrade_from_lrtq"),
    Route("PUT", "/trust-quorum/commit", _no, _json, since=13, op="trust_quorum_commit"),
    Route("GET", "/trust-quorum/coordinator-status", _no, since=13, op="trust_quorum_coordinator_status"),
    Route("PUT", "/trust-quorum/prepare-and-commit", _no, _json, since=13, op="trust_quorum_prepare_and_commit"),
    Route("PUT", "/trust-quorum/proxy/commit", _no, _json, since=13, op="trust_quorum_proxy_commit"),
    Route("PUT", "/trust-quorum/proxy/prepare-and-commit", _no, _json, since=13,
          op="trust_quorum_proxy_prepare_and_commit"),
    Route("GET", "/trust-quorum/proxy/status", _no, query={"part_number": text_param, "serial_number": text_param},
          since=13, op="trust_quorum_proxy_status"),
    Route("GET", "/trust-quorum/status", _no, since=15, op="trust_quorum_status"),
    Route("GET", "/trust-quorum/network-config", _no, since=15, op="trust_quorum_network_config_get"),
    Route("PUT", "/trust-quorum/network-config", _no, _json, since=15, op="trust_quorum_network_config_put"),
    Route("GET", "/rot/{rot}/measurement-log", _no, since=19, op="rot_measurement_log"),
    Route("GET", "/rot/{rot}/certificate-chain", _no, since=19, op="rot_certificate_chain"),
    Route("POST", "/rot/{rot}/attest", _no, _json, since=19, op="rot_attest"),
)  # fmt: skip

_GONE: Final = (  # SA 3.3
    Route("GET", _OLD_SWITCH, _no, until=2, op="chicken_switch_destroy_orphaned_datasets_get"),
    Route("PUT", _OLD_SWITCH, _no, _json, until=3, op="chicken_switch_destroy_orphaned_datasets_put"),
    Route("GET", "/sled-role", _no, until=8, op="sled_role_get"),
    Route("POST", _OLD_STORAGE, _no, _json, since=9, until=17, op="local_storage_dataset_ensure"),
    Route("DELETE", _OLD_STORAGE, _no, since=9, until=17, op="local_storage_dataset_delete"),
    Route("PUT", "/disks/{disk_id}", _no, _json, until=21, op="disk_put"),
    Route("GET", "/network-bootstore-config", _no, until=23, op="read_network_bootstore_config_cache"),
    Route("POST", "/switch-ports", _no, _json, until=45, op="uplink_ensure"),
)

ROUTER: Final = Router((*_VMMS, *_NETWORKS, *_NOT_OFFERED, *_GONE))
