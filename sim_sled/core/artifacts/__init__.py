"""The artifact store (SR 4.2)."""
