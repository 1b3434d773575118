"""The rack's network configuration (SR 4.4)."""
