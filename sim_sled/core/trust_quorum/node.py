"""One sled's part in the rack's trust quorum (SR 4.5).

    reconfigure --> coordinating: members prepare and acknowledge --> commit, at each member --> committed

Members that are sleds of this process take part; one outside of it never acknowledges. There is no cryptography:
digests and secrets have the right lengths and follow from rack, epoch and member.

Every refusal is a 500 on the wire.

Read before: core/estate.py. Read next: core/facts.py, http/trust_quorum.py.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final
from uuid import UUID

import attrs

from sim_sled.core.errors import Internal
from sim_sled.core.estate import Area, Estate, SledPoint

MEMBERS: Final = range(3, 33)
THRESHOLD: Final = range(2, 32)

EPOCHS_MAX: Final = 10_000
"""Configurations kept: one per change of the rack's members, years of it; a client that runs wild is stopped."""


@attrs.frozen(order=True)
class Baseboard:
    part: str
    serial: str


@attrs.frozen
class Configuration:
    """`members` in order, each with the digest of its share. `secrets`: salt and data, as hexadecimal digits."""

    rack_id: UUID
    epoch: int
    coordinator: Baseboard
    members: tuple[tuple[Baseboard, str], ...]
    threshold: int
    secrets: tuple[str, str] | None = None

    @property
    def boards(self) -> frozenset[Baseboard]:
        return frozenset(board for board, _ in self.members)


@attrs.frozen
class Wish:
    """What `reconfigure` is asked for."""

    rack_id: UUID
    epoch: int
    last_committed_epoch: int | None
    members: frozenset[Baseboard]
    threshold: int


@attrs.define
class Coordination:
    """Under way: who has acknowledged, and when the next step is due (None: nobody is left to wait for)."""

    wish: Wish
    config: Configuration
    acked: set[Baseboard]
    due_us: int | None


@attrs.frozen
class NetworkBlob:
    generation: int
    blob: str  # Base64


class TrustQuorum(Area):
    """`silent`: prepares of others are not acknowledged. `pending`: no commit comes to its end (SR 8)."""

    kept_as = "trust-quorum"

    def __init__(self, estate: Estate) -> None:
        super().__init__(estate)
        self.rack_id: UUID | None = None
        self.configs: dict[int, Configuration] = {}
        self.shares: set[int] = set()
        self.commits: set[int] = set()
        self.expunged: tuple[int, Baseboard] | None = None
        self.coordination: Coordination | None = None
        self.collecting: dict[int, int] = {}  # epoch to when its share is there
        self.network: NetworkBlob | None = None
        self.silent = False
        self.pending = False

    @property
    def board(self) -> Baseboard:
        return Baseboard(self.estate.hardware.baseboard_model, self.estate.serial)

    @property
    def committed(self) -> int | None:
        """The latest committed epoch."""
        return max(self.commits, default=None)

    # --- calls ------------------------------------------------------------------------------------------------------

    def reconfigure(self, wish: Wish) -> None:
        """Become the coordinator of a new configuration."""
        self._check_wish(wish)
        under_way = self.coordination
        if under_way is not None and under_way.wish.epoch == wish.epoch:
            if under_way.wish != wish:
                raise Internal(f"epoch {wish.epoch} is coordinated with other parameters")
            self.changed()  # see Ledger.is_new
            return
        if under_way is not None and under_way.wish.epoch > wish.epoch:
            raise Internal(f"epoch {under_way.wish.epoch} is coordinated, {wish.epoch} is older")
        first = not self.configs
        config = _configuration(wish, self.board, first=first)
        self.rack_id = wish.rack_id
        due_us = self.estate.now_us + self.estate.pace_us(SledPoint.TRUST_QUORUM_ACK, wish.epoch)
        self.coordination = Coordination(wish, config, set(), due_us)
        if first:
            self._prepare(config)  # there is no older secret to collect: persisted at once
            self.coordination.acked.add(self.board)
        if due_us == self.estate.now_us:
            self._go_on()
        self.changed()

    def _check_wish(self, wish: Wish) -> None:
        if self.board not in wish.members:
            raise Internal("the coordinator is not a member")
        if len(wish.members) <= wish.threshold:
            raise Internal("the threshold must be smaller than the number of members")
        if len(wish.members) not in MEMBERS:
            raise Internal(f"{len(wish.members)} members")
        if wish.threshold not in THRESHOLD:
            raise Internal(f"threshold {wish.threshold}")
        self._check_rack(wish.rack_id)
        self._check_expunged()
        if wish.last_committed_epoch != self.committed:
            raise Internal(f"last committed epoch is {self.committed}, not {wish.last_committed_epoch}")
        if wish.epoch <= max(self.configs, default=0):
            raise Internal(f"epoch {wish.epoch} is not above {max(self.configs, default=0)}")
        if len(self.configs) >= EPOCHS_MAX:
            raise Internal(f"more than {EPOCHS_MAX} configurations")

    def upgrade(self, rack_id: UUID, epoch: int) -> None:  # noqa: ARG002 -- no sled here has a share to go by
        """Upgrade from the old scheme: this sled never had a share of it."""
        self._check_expunged()
        self._check_rack(rack_id)
        raise Internal("no LRTQ share")

    def commit(self, rack_id: UUID, epoch: int) -> None:
        """Commit a prepared configuration; again is no error."""
        self._check_expunged()
        self._check_rack(rack_id)
        latest = self.committed
        if latest is not None and epoch <= latest:
            if epoch not in self.commits:
                raise Internal("commit returned Pending")
            self.changed()  # see Ledger.is_new
            return
        if epoch not in self.shares:
            raise Internal(f"epoch {epoch} is not prepared")
        if self.pending:
            raise Internal("commit returned Pending")
        self._commit(epoch)

    def prepare_and_commit(self, config: Configuration) -> str:
        """For a member that missed the prepare. `committed`, or `pending`: its share has to be collected first."""
        self._check_expunged()
        self._check_rack(config.rack_id)
        latest = self.committed
        if latest is not None and config.epoch < latest:
            raise Internal(f"epoch {config.epoch} is older than the committed {latest}")
        if config.epoch not in self.shares and self.board in config.boards:
            if config.epoch not in self.collecting:
                took_us = self.estate.pace_us(SledPoint.TRUST_QUORUM_ACK, config.epoch)
                self.collecting[config.epoch] = self.estate.now_us + took_us
            self._collect(config)
        if config.epoch not in self.shares or (self.pending and config.epoch not in self.commits):
            return "pending"
        if config.epoch not in self.commits:
            self._commit(config.epoch)
        return "committed"

    def coordinator_status(self) -> tuple[Configuration, list[Baseboard]] | None:
        """The configuration that is coordinated and who has acknowledged it; None: nothing is."""
        under_way = self.coordination
        return None if under_way is None else (under_way.config, sorted(under_way.acked))

    def status(self) -> dict[str, Any]:
        """`NodeStatus`."""
        expunged = self.expunged
        return {
            "connected_peers": [board_json(each.board) for each in self._peers()],
            "alarms": [],
            "persistent_state": {
                "has_lrtq_share": False,
                "configs": sorted(self.configs),
                "shares": sorted(self.shares),
                "commits": sorted(self.commits),
                "expunged": None if expunged is None else {"epoch": expunged[0], "from": board_json(expunged[1])},
            },
            "proxied_requests": 0,
        }

    def proxy_commit(self, to: Baseboard, rack_id: UUID, epoch: int) -> None:
        self._peer(to).commit(rack_id, epoch)

    def proxy_prepare_and_commit(self, to: Baseboard, config: Configuration) -> str:
        return self._peer(to).prepare_and_commit(config)

    def proxy_status(self, to: Baseboard) -> dict[str, Any]:
        return self._peer(to).status()

    def get_network(self) -> NetworkBlob | None:
        return self.network

    def put_network(self, new: NetworkBlob) -> None:
        """Raises `Internal` for a generation that does not grow."""
        if new.generation <= (0 if self.network is None else self.network.generation):
            raise Internal(f"generation {new.generation} is not newer")
        self.network = new
        self.changed()

    # --- what members do among themselves ---------------------------------------------------------------------------

    def _peers(self) -> list[TrustQuorum]:
        found = []
        for estate in self.estate.neighbours:
            estate.now_us = self.estate.now_us
            found.append(estate.of(TrustQuorum))
        return sorted(found, key=lambda each: each.board)

    def _peer(self, to: Baseboard) -> TrustQuorum:
        for each in self._peers():
            if each.board == to:
                return each
        raise Internal(f"{to.serial} is not connected (disconnected)")

    def _go_on(self) -> None:
        """The time for acknowledgements has come: collect what is needed, prepare, ask the members."""
        under_way = self.coordination
        assert under_way is not None, "nothing is coordinated"
        under_way.due_us = None
        config = under_way.config
        if config.epoch not in self.shares:
            latest = self.committed
            if latest is not None and not self._enough_shares(self.configs[latest]):
                return  # the old secret cannot be put together: nobody can be told a share
            self._prepare(config)
            under_way.acked.add(self.board)
        for each in self._peers():
            if each.board in config.boards and each.asked_to_prepare(config):
                under_way.acked.add(each.board)

    def asked_to_prepare(self, config: Configuration) -> bool:
        """Whether this member prepared what a coordinator sent."""
        if self.silent or self.expunged is not None or self.rack_id not in {None, config.rack_id}:
            return False
        if config.epoch in self.shares:
            return self.configs[config.epoch] == config
        if config.epoch <= max(self.configs, default=0):
            return False
        self._prepare(config)
        return True

    def told_expunged(self, epoch: int, by: Baseboard) -> None:
        """A member of a newer configuration says that this sled is no part of it."""
        if self.expunged is None:
            self.expunged = (epoch, by)
            self.coordination = None
            self.changed()

    def _enough_shares(self, config: Configuration) -> bool:
        holders = sum(
            not each.silent and each.board in config.boards and config.epoch in each.shares for each in self._peers()
        )
        return holders + (config.epoch in self.shares) >= config.threshold

    def _collect(self, config: Configuration) -> None:
        if self.collecting[config.epoch] <= self.estate.now_us and self._enough_shares(config):
            del self.collecting[config.epoch]
            self._prepare(config)

    def _prepare(self, config: Configuration) -> None:
        self.rack_id = config.rack_id
        self.configs[config.epoch] = config
        self.shares.add(config.epoch)
        self.changed()

    def _commit(self, epoch: int) -> None:
        before = self.committed
        self.commits.add(epoch)
        if self.coordination is not None and self.coordination.config.epoch <= epoch:
            self.coordination = None
        if before is not None:
            left = self.configs[before].boards - self.configs[epoch].boards
            for each in self._peers():
                if each.board in left:
                    each.told_expunged(epoch, self.board)
        self.changed()

    def _check_rack(self, rack_id: UUID) -> None:
        if self.rack_id is not None and rack_id != self.rack_id:
            raise Internal(f"rack {rack_id} is not {self.rack_id}")

    def _check_expunged(self) -> None:
        if self.expunged is not None:
            raise Internal(f"expunged at epoch {self.expunged[0]}")

    # --- time and restarts ------------------------------------------------------------------------------------------

    def next_deadline_us(self) -> int | None:
        return None if self.coordination is None else self.coordination.due_us

    def tick(self) -> None:
        due_us = self.next_deadline_us()
        if due_us is not None and due_us <= self.estate.now_us:
            self._go_on()

    def dump(self) -> Any:
        return {
            "rack_id": None if self.rack_id is None else str(self.rack_id),
            "configs": [config_json(self.configs[epoch]) for epoch in sorted(self.configs)],
            "shares": sorted(self.shares),
            "commits": sorted(self.commits),
            "expunged": None
            if self.expunged is None
            else [self.expunged[0], self.expunged[1].part, self.expunged[1].serial],
            "network": None if self.network is None else [self.network.generation, self.network.blob],
        }

    def load(self, kept: Any) -> None:
        self.rack_id = None if kept["rack_id"] is None else UUID(kept["rack_id"])
        self.configs = {config.epoch: config for config in map(config_of, kept["configs"])}
        self.shares, self.commits = set(kept["shares"]), set(kept["commits"])
        if kept["expunged"] is not None:
            epoch, part, serial = kept["expunged"]
            self.expunged = (epoch, Baseboard(part, serial))
        if kept["network"] is not None:
            self.network = NetworkBlob(*kept["network"])


def _configuration(wish: Wish, coordinator: Baseboard, *, first: bool) -> Configuration:
    name = f"{wish.rack_id}/{wish.epoch}"
    secrets = None if first else (_digest(f"{name}/salt"), _digest(f"{name}/data"))
    members = tuple((board, _digest(f"{name}/{board.part}/{board.serial}")) for board in sorted(wish.members))
    return Configuration(wish.rack_id, wish.epoch, coordinator, members, wish.threshold, secrets)


def _digest(text: str) -> str:
    return hashlib.sha3_256(text.encode()).hexdigest()


def board_json(board: Baseboard) -> dict[str, str]:
    """`BaseboardId`."""
    return {"part_number": board.part, "serial_number": board.serial}


def config_json(config: Configuration) -> dict[str, Any]:
    """`Configuration` as on the wire: members are pairs, whatever the documents say (SR 4.5)."""
    return {
        "rack_id": str(config.rack_id),
        "epoch": config.epoch,
        "coordinator": board_json(config.coordinator),
        "members": [[board_json(board), digest] for board, digest in config.members],
        "threshold": config.threshold,
        "encrypted_rack_secrets": None
        if config.secrets is None
        else {"salt": config.secrets[0], "data": config.secrets[1]},
    }


def config_of(value: Any) -> Configuration:
    """The inverse of `config_json`."""
    secrets = value["encrypted_rack_secrets"]
    return Configuration(
        UUID(value["rack_id"]),
        value["epoch"],
        _board_of(value["coordinator"]),
        tuple((_board_of(board), digest) for board, digest in value["members"]),
        value["threshold"],
        None if secrets is None else (secrets["salt"], secrets["data"]),
    )


def _board_of(value: Any) -> Baseboard:
    return Baseboard(value["part_number"], value["serial_number"])
