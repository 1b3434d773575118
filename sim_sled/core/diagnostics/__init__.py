"""What a sled tells people who look for a fault (SR 4.7)."""
