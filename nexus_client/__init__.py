"""What is said to Nexus: wire types, codec, registration, ordered and retried delivery. See docs/architecture.md.

The shell is not imported here: `nexus_client.client` needs aiohttp, everything else does not.
"""
