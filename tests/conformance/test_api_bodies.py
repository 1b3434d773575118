"""Request bodies of the areas, drawn from the documents of the versions that changed them: all are taken (SR 1, 2.1).

What the documents allow and the original refuses all the same is told in `SPECIAL`.
"""

from __future__ import annotations

import json
import re

import pytest
import support.wire.openapi_sled as documents
from conformance.drawn_values import each_of
from conformance.test_openapi_sled import SPECIAL as VMM_SPECIAL
from conformance.test_openapi_sled import _old_nic
from hypothesis import strategies as st
from support.rows import in_one_test

from nexus_client.dropshot.json import plain
from sim_sled.core.errors import SledError
from sim_sled.core.omicron_config.values import DATASET_KINDS, OmicronConfig
from sim_sled.http.bodies_bootstore import newer, older, shape_of
from sim_sled.http.bodies_omicron import older as older_config
from sim_sled.http.operations import ROUTER

SOCKETS_V6 = st.builds(lambda ip, port: f"[{ip}]:{port}", st.ip_addresses(v=6), st.integers(0, 65535))
_ID = st.uuids(version=4).map(str)
_PEER = st.sampled_from(["198.51.100.1", "169.254.1.1", "240.0.0.1", "2001:db8::1"])


def _snat():
    return st.builds(
        lambda ip, block: {"ip": ip, "first_port": block * 16384, "last_port": block * 16384 + 16383},
        st.ip_addresses().map(str),
        st.integers(0, 3),
    )


@st.composite
def _nat_entries(draw):
    """One of each kind at least, no address twice."""
    ips = draw(st.lists(st.ip_addresses(v=4).map(str), min_size=3, max_size=5, unique=True))
    kinds = []
    for number, ip in enumerate(ips):
        kind = ("nexus", "external_dns", "boundary_ntp")[number % 3]
        if kind == "boundary_ntp":
            kinds.append({"kind": kind, "snat_cfg": {"ip": ip, "first_port": 0, "last_port": 16383}})
        else:
            kinds.append({"kind": kind, "external_ip": ip})
    ids = draw(st.lists(_ID, min_size=len(kinds), max_size=len(kinds), unique=True))
    return [
        {"zone_id": key, "sled_underlay_ip": "fd00::1", "nic_mac": "A8:40:25:FF:80:01", "vni": 100, "kind": kind}
        for key, kind in zip(ids, kinds, strict=True)
    ]


@st.composite
def _numbered(draw):
    target = draw(_PEER)
    same = st.sampled_from(["2001:db8::2"] if ":" in target else ["198.51.100.2"])
    return {"type": "numbered", "target_addr": target} | draw(
        st.sampled_from([{}, {"src_addr": None}]) | st.builds(lambda ip: {"src_addr": ip}, same)
    )


def _peer_type(level):
    unnumbered = st.builds(lambda s: {"type": "unnumbered", "router_lifetime": s}, st.integers(0, 9000))
    numbered = _numbered() if level >= 47 else st.builds(lambda ip: {"type": "numbered", "ip": ip}, _PEER)
    return lambda: unnumbered | numbered


_UPLINK = st.just({"type": "addrconf"}) | st.builds(lambda ip: {"type": "static", "ip_net": f"{ip}/29"}, _PEER)

SPECIAL = {
    **{key: value for key, value in VMM_SPECIAL.items() if key not in {"SourceNatConfig", "Vni"}},
    "Vni": lambda: st.integers(0, 2**32 - 1),
    "SourceNatConfig": _snat,
    "SourceNatConfigGeneric": _snat,
    "DatasetKind": lambda: st.sampled_from(sorted(DATASET_KINDS)) | st.text(max_size=5).map("zone/{}".format),
    "ByteCount": lambda: st.integers(0, 2**63 - 1),
    "ServiceZoneNatEntries": _nat_entries,
    "UplinkAddress": lambda: _UPLINK,
    "ExternalZpoolUuid": lambda: _ID,
    ".address": lambda: SOCKETS_V6,
    ".http_address": lambda: SOCKETS_V6,
    ".dns_address": lambda: SOCKETS_V6,
    ".internal_address": lambda: SOCKETS_V6,
    "TrustQuorumNetworkConfig.blob": lambda: st.sampled_from(["", "AAAA", "AQ=="]),
}

OPERATIONS = sorted(
    {
        (operation["operationId"], method, path)
        for level in documents.VERSIONS
        for (method, path), operation in documents.operations(level).items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
        and not path.startswith(("/v2p", "/vpc", "/eip", "/probes", "/sleds", "/vmms/"))
    }
)


def bodies(level, method, path):
    special = SPECIAL | {"RouterPeerType": _peer_type(level)}
    if level < 10:
        special["NetworkInterface"] = _old_nic
    return documents.Bodies(level, special).of(documents.body_schema(level, method, path))


def kind_at(level, method, path):
    return ROUTER.find(method, re.sub(r"\{[^}]*\}", "x", path), level)[0].body


def _changes(method, path):
    """Versions that have another body than the one before, and the last."""
    found, before = [], None
    for level in documents.VERSIONS:
        if (method, path) not in documents.operations(level):
            continue
        now = json.dumps(documents.expanded(level, documents.body_schema(level, method, path)))
        if now != before:
            found.append(level)
        before = now
    return found


def each_body(level, method, path, check):
    """`check` each kept body of an operation, after seeing that it is one of the document."""
    schema = documents.body_schema(level, method, path)

    def is_one_and_right(body):
        assert documents.faults(level, schema, body) == []
        check(body)

    name = f"bodies/{documents.operations(level)[method, path]['operationId']}-{level}"
    each_of(name, lambda: bodies(level, method, path), is_one_and_right, number=16)


@pytest.mark.nightly
@in_one_test(("op", "method", "path"), OPERATIONS)
def test_every_body_of_the_document_is_taken(op, method, path):
    for level in _changes(method, path):
        kind = kind_at(level, method, path)
        each_body(level, method, path, lambda body, kind=kind: kind.decode(json.dumps(body).encode()))


@pytest.mark.nightly
@in_one_test("level", [1, 4, 10, 14, 48])
def test_a_configuration_comes_back_in_every_shape_that_has_words_for_it(level):
    """Written at one version, read at all: it fits the document of the reader, or is refused (SR 9 no. 12)."""
    kind = kind_at(level, "PUT", "/omicron-config")

    def check(body):
        config = kind.decode(json.dumps(body).encode())
        assert isinstance(config, OmicronConfig)
        dual = any(
            zone["zone_type"].get("nic", {}).get("ip_config", {}).get("type") == "dual_stack"
            for zone in config.wire["zones"].values()
        )
        assert len(config.zones) == len(body["zones"])
        for reader in (1, 3, 4, 9, 10, 13, 14, 48):
            try:
                told = json.loads(json.dumps(older_config(config.wire, reader)))
            except SledError:
                told = None
            assert (told is None) == (dual and reader < 10), "nothing is left out on the quiet"
            if told is None:
                continue
            assert told["zones"].keys() == config.wire["zones"].keys()
            schema = {"$ref": "#/components/schemas/OmicronSledConfig"}
            assert documents.faults(reader, schema, told) == []
            again = kind_at(reader, "PUT", "/omicron-config").decode(json.dumps(told).encode())
            if reader >= 14 or not config.wire["measurements"]:
                assert again.generation == config.generation
                assert again.wire["zones"].keys() == config.wire["zones"].keys()
            if reader >= 14:
                assert again == config, "the newest shapes lose nothing"

    each_body(level, "PUT", "/omicron-config", check)


@pytest.mark.nightly
@in_one_test("level", [25, 26, 29, 30, 33, 39, 42, 47, 48])
def test_a_network_configuration_is_read_by_old_versions_or_refused(level):
    kind = kind_at(level, "PUT", "/network-bootstore-config")
    schema = {"$ref": "#/components/schemas/EarlyNetworkConfig"}

    def check(body):
        stored = plain(kind.decode(json.dumps(body).encode()).body)
        for reader in (1, 19, 20, 22):
            try:
                told = older(newer(stored, shape_of(level)), reader)
            except SledError:
                continue
            answer = {"generation": 1, "schema_version": 2, "body": json.loads(json.dumps(told))}
            assert documents.faults(reader, schema, answer) == []

    each_body(level, "PUT", "/network-bootstore-config", check)
