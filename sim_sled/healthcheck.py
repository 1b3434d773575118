"""`python -m sim_sled.healthcheck [ADDRESS]`: exit 0 if the program whose control API is there is ready, else 1.

For containers, which ask every few seconds and have neither a shell nor curl: it imports nothing that takes time.
The address is that of `SIM_SLED_CONTROL` if none is given. Works for all three programs and needs no token.
"""

from __future__ import annotations

import os
import sys
from http.client import HTTPConnection, HTTPException
from typing import Final

TIMEOUT_S: Final = 5.0
"""Less than orchestrators wait by default, so that the reason can be told."""


def check(address: str) -> str:
    """Empty if it is ready, else why it is not."""
    host, _, port = address.removeprefix("http://").rstrip("/").rpartition(":")
    if not host or not port.isdecimal():
        return f"{address!r} is not an address like [::1]:12300"
    connection = HTTPConnection(host.strip("[]"), int(port), timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        said = response.read(1_000).decode(errors="replace")
    except (OSError, HTTPException) as error:
        return f"nobody answers at {address}: {error}"
    finally:
        connection.close()
    return "" if response.status == 200 else f"{response.status} {said}"


def main() -> int:
    """The exit code."""
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SIM_SLED_CONTROL", "")
    why_not = check(given)
    if why_not:
        sys.stderr.write(f"sim-sled: not ready: {why_not}\n")
    return 1 if why_not else 0


if __name__ == "__main__":
    sys.exit(main())
