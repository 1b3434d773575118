"""What the diagnostic commands of a sled print (SR 4.7): made of this sled's zones, pools, datasets and VMMs.

A command is told as the original tells it, with its whole line. The same sled prints the same text.

Read before: core/identity/small.py, core/inventory.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final
from uuid import UUID

from sim_sled.core.config import GIB
from sim_sled.core.estate import Area
from sim_sled.core.identity.small import Identity, propolis_zone
from sim_sled.core.inventory import Inventory
from sim_sled.core.omicron_config.ledger import Ledger

LOG_LINES_MAX: Final = 1_000
"""Of one zone."""

_PFEXEC: Final = "/usr/bin/pfexec"
_AGENT_PID: Final = 1_000
_VMM_PID: Final = 2_000
_KIB: Final = 2**10
_PORT_OFFSET: Final = 100

_HEALTH: Final = (
    ("/usr/bin/uptime", "uptime"),
    ("/usr/bin/kstat -p unix::system_pages:low_mem_scan", "low memory"),
    ("/usr/bin/svcs -xZ", "services"),
    ('bash -c "diskinfo -pH | wc -l"', "disk count"),
    ("bash -c \"zfs list -rH -o name,mounted | grep 'no$' | wc -l\"", "unmounted"),
    ('bash -c "zfs list -H -o name | grep crucible | wc -l"', "crucible count"),
    ("bash -c \"zfs list -Hp -o name,used,quota | awk '$3 > 0 && $2 / $3 > 0.8'\"", "near quota"),
    ("bash -c \"zpool list -Hp -o name,free | awk '$2 < 300 * 2^30'\"", "nearly full"),
    ('bash -c "prtconf -v | grep -c dimm"', "DIMMs"),
)


class Diagnostics(Area):
    """A view of the other areas."""

    def run(self, which: str) -> Any:
        """Answer of `/support/WHICH`."""
        return _QUERIES[which](self)

    def log_zones(self) -> list[str]:
        """Zones that have logs: all that run, and the global one."""
        return ["global", *self.estate.of(Identity).zones()]

    def services(self, zone: str) -> list[str]:
        """Names of the services that log in a zone; none in a zone that is not there."""
        if zone not in self.log_zones():
            return []
        if zone == "global":
            return ["sled-agent"]
        if zone == "oxz_switch":
            return ["dendrite", "mgs"]
        return [zone.removeprefix("oxz_").rpartition("_")[0].replace("_", "-")]

    def vmm_of_zone(self, zone: str) -> UUID | None:
        """The VMM whose zone this is."""
        for key in self.estate.sled.vmms:
            if propolis_zone(key) == zone:
                return key
        return None

    # --- one method per query ---------------------------------------------------------------------------------------

    def _zoneadm(self) -> dict[str, Any]:
        rows = ["0:global:running:/::ipkg:shared:0:::"]
        for number, name in enumerate(self.estate.of(Identity).zones(), 1):
            rows.append(f"{number}:{name}:running:/zone/{name}::omicron1:excl:0:::")
        return _ran("zoneadm", "list -cip", rows)

    def _ipadm(self) -> list[dict[str, Any]]:
        host = self.estate.sled.address.rpartition(":")[0].strip("[]")
        return [
            _ran("ipadm", "show-if", ["IFNAME   CLASS    STATE  CURRENT       PERSISTENT", *_interfaces()]),
            _ran(
                "ipadm",
                "show-addr",
                [
                    "ADDROBJ           TYPE     STATE  ADDR",
                    "lo0/v4            static   ok     127.0.0.1/8",
                    "lo0/v6            static   ok     ::1/128",
                    f"underlay0/sled6   static   ok     {host}/64",
                ],
            ),
            _ran(
                "ipadm",
                "show-prop",
                [
                    "PROTO PROPERTY    PERM CURRENT PERSISTENT DEFAULT POSSIBLE",
                    "ipv6  forwarding  rw   on      on  off  on,off",
                ],
            ),
        ]

    def _dladm(self) -> list[dict[str, Any]]:
        zones = self.estate.of(Identity).zones()
        vnics = [f"oxControl{number:<12} cxgbe0  0  {_mac(number)}  fixed  0" for number in range(len(zones))]
        return [
            _ran("dladm", "show-phys -m", ["LINK     SLOT     ADDRESS            INUSE CLIENT", *_phys()]),
            _ran("dladm", "show-ether", ["LINK     PTYPE    STATE    AUTO  SPEED-DUPLEX  PAUSE", *_ether()]),
            _ran("dladm", "show-link", ["LINK     CLASS    MTU    STATE    BRIDGE  OVER", *_links()]),
            _ran("dladm", "show-vnic", ["LINK         OVER    SPEED  MACADDRESS  MACADDRTYPE  VID", *vnics]),
            _ran("dladm", "show-linkprop", ["LINK     PROPERTY  PERM  VALUE  DEFAULT  POSSIBLE", *_linkprop()]),
        ]

    def _nvmeadm(self) -> dict[str, Any]:
        rows = []
        for disk in self.estate.of(Inventory).read()["disks"]:
            identity = disk["identity"]
            rows.append(
                f"nvme{disk['slot']}: model: {identity['model']}, serial: {identity['serial']}, FW rev: SIMUL1"
            )
        return _ran("nvmeadm", "list", rows)

    def _zfs(self) -> dict[str, Any]:
        rows = ["NAME  USED  AVAIL  QUOTA  RESERV  MOUNTPOINT  MOUNTED"]
        for pool, size in self.estate.of(Ledger).pools().items():
            rows.append(f"oxp_{pool}  0  {_size(size)}  none  none  /oxp_{pool}  yes")
        for each in sorted(self.estate.of(Inventory).read()["datasets"], key=lambda row: str(row["name"])):
            quota, reserved = _size(each["quota"]), _size(each["reservation"])
            rows.append(f"{each['name']}  0  {_size(each['available'])}  {quota}  {reserved}  /{each['name']}  yes")
        return _ran("zfs", "list -o name,used,avail,quota,reservation,mountpoint,mounted", rows)

    def _zpool(self) -> dict[str, Any]:
        rows: list[str] = []
        for pool in self.estate.of(Inventory).read()["zpools"]:
            state = pool["health"].upper()
            rows += [
                f"  pool: oxp_{pool['id']}",
                f" state: {state}",
                "config:",
                "",
                f"\toxp_{pool['id']}  {state}",
                "",
            ]
        return _ran("zpool", "status", rows or ["no pools available"])

    def _per_process(self, tool: str, options: str, body: Callable[[str], list[str]]) -> list[dict[str, Any]]:
        processes = [(_AGENT_PID, "/opt/oxide/sled-agent/sled-agent run /opt/oxide/sled-agent/pkg/config.toml")]
        for number, key in enumerate(sorted(self.estate.sled.vmms, key=str)):
            address = self.estate.sled.vmms[key].about.propolis_addr
            processes.append((_VMM_PID + number, f"/opt/oxide/propolis-server/bin/propolis-server run {address}"))
        return [
            _done(f"{_PFEXEC} /usr/bin/{tool}{options} {pid}", [f"{pid}:\t{line}", *body(line)])
            for pid, line in processes
        ]

    def _pargs(self) -> list[dict[str, Any]]:
        return self._per_process(
            "pargs", " -ae", lambda line: [f"argv[{number}]: {each}" for number, each in enumerate(line.split())]
        )

    def _pstack(self) -> list[dict[str, Any]]:
        return self._per_process(
            "pstack",
            "",
            lambda _line: ["--------------------- thread# 1 / lwp# 1 ---------------------", " simulated: no frames"],
        )

    def _pfiles(self) -> list[dict[str, Any]]:
        return self._per_process(
            "pfiles", "", lambda _line: ["  Current rlimit: 65536 file descriptors", "   0: S_IFCHR /dev/null"]
        )

    def _health(self) -> list[dict[str, Any]]:
        ledger = self.estate.of(Ledger)
        inventory = self.estate.of(Inventory)
        told = inventory.read()
        crucible = sum(str(each["name"]).endswith("/crucible") for each in told["datasets"])
        services = inventory.services or ()
        printed: dict[str, Iterable[str]] = {
            "uptime": ["up simulated, 0 users, load average: 0.00, 0.00, 0.00"],
            "low memory": ["unix:0:system_pages:low_mem_scan\t0"],
            "services": [line for each in services for line in (each["fmri"], f" State: {each['state']}")],
            "disk count": [str(len(told["disks"]))],
            "unmounted": ["0"],
            "crucible count": [str(crucible)],
            "nearly full": [f"oxp_{key}\t{size}" for key, size in ledger.pools().items() if size < 300 * GIB],
            "DIMMs": ["16"],
        }
        return [_done(command, printed.get(what, ())) for command, what in _HEALTH]


_QUERIES: Final[dict[str, Callable[[Diagnostics], Any]]] = {
    "zoneadm-info": Diagnostics._zoneadm,  # noqa: SLF001 -- the table of this class
    "ipadm-info": Diagnostics._ipadm,  # noqa: SLF001 -- same
    "dladm-info": Diagnostics._dladm,  # noqa: SLF001 -- same
    "nvmeadm-info": Diagnostics._nvmeadm,  # noqa: SLF001 -- same
    "pargs-info": Diagnostics._pargs,  # noqa: SLF001 -- same
    "pstack-info": Diagnostics._pstack,  # noqa: SLF001 -- same
    "pfiles-info": Diagnostics._pfiles,  # noqa: SLF001 -- same
    "zfs-info": Diagnostics._zfs,  # noqa: SLF001 -- same
    "zpool-info": Diagnostics._zpool,  # noqa: SLF001 -- same
    "health-check": Diagnostics._health,  # noqa: SLF001 -- same
}


def _ran(tool: str, arguments: str, lines: Iterable[str]) -> dict[str, Any]:
    return _done(f"{_PFEXEC} /usr/sbin/{tool} {arguments}", lines)


def _done(command: str, lines: Iterable[str]) -> dict[str, Any]:
    text = "".join(f"{line}\n" for line in lines)
    return {"success": {"command": command, "stdio": text, "exit_status": "exit status: 0", "exit_code": 0}}


def _interfaces() -> list[str]:
    return ["lo0      loopback ok     -m-v------46  ---", "cxgbe0   ip       ok     bm--------46  -46"]


def _phys() -> list[str]:
    return [f"cxgbe{port}   primary  {_mac(_PORT_OFFSET + port)}  yes   cxgbe{port}" for port in range(2)]


def _ether() -> list[str]:
    return [f"cxgbe{port}   current  up       yes   100G-f        bi" for port in range(2)]


def _links() -> list[str]:
    return [f"cxgbe{port}   phys     9000   up       --      --" for port in range(2)]


def _linkprop() -> list[str]:
    return [f"cxgbe{port}   mtu       rw    9000   1500     1500-9216" for port in range(2)]


def _mac(number: int) -> str:
    return f"a8:40:25:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def _size(size: int | None) -> str:
    """As zfs prints it."""
    if size is None:
        return "none"
    for unit, name in ((_KIB**4, "T"), (_KIB**3, "G"), (_KIB**2, "M"), (_KIB, "K")):
        if size >= unit:
            return f"{size / unit:.3g}{name}"
    return str(size)
