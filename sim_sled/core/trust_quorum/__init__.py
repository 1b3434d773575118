"""Membership of the rack (SR 4.5)."""
