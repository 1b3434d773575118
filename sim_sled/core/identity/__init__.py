"""Who this sled is, and small switches (SR 4.6)."""
