"""The rack hand-off: what makes a Nexus's external API come up (SR 6)."""
