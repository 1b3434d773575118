"""Snapshots of disks of a VM, through its Propolis (SR 4.3).

Read before: core/estate.py.
"""

from __future__ import annotations

from uuid import UUID

from sim_sled.core.errors import Missing, NotImplementedHere
from sim_sled.core.estate import Area


class Volumes(Area):
    """The Crucible disks of this sled's VMMs."""

    def snapshot(self, propolis_id: UUID, disk_id: UUID, snapshot_id: UUID) -> UUID:
        """Make a snapshot of every region of a disk. Idempotent per region.

        Raises `NoSuchVmm`, `Missing` for a disk that this VMM does not have, `Internal` where a region is missing or
        unusable; snapshots of regions before that one stay.
        """
        vmm = self.estate.sled.get(propolis_id)
        targets = dict(vmm.about.disk_targets).get(disk_id)
        if targets is None:
            raise Missing(f"VMM {propolis_id} has no Crucible disk {disk_id}")
        regions = self.estate.sled.regions
        if regions is None:
            raise NotImplementedHere("there are no Crucible agents in this process")
        regions.snapshot(targets, snapshot_id, self.estate.now_us)
        return snapshot_id
