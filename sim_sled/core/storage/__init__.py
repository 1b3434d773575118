"""Datasets that VMs and volumes lie on (SR 3.4, 4.3, 4.9)."""
