"""Support bundles (SR 4.1)."""
