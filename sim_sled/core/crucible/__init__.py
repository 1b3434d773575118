"""Crucible agents: regions and their snapshots, one agent per dataset (SR 5.1)."""
