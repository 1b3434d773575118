"""The servers beside a sled, on sockets: Crucible agents, pantry, repo depot, internal DNS (SR 5)."""
