"""The internal DNS server: configured by Nexus, asked by everybody (SR 5.3)."""
