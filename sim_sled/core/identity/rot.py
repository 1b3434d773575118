"""The root of trust of a sled: measurements, certificates, attestations (SR 4.6).

All of it is made up: right in form, following from the sled's id, and worth nothing as a proof. A signature that
could be checked needs a key that is nobody's secret here.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from sim_sled.core.estate import Area

_LINE: Final = 64


class RootOfTrust(Area):
    """What the sled's root of trust says: all of it follows from the sled's id."""

    def measurement_log(self) -> list[dict[str, str]]:
        return [{"sha3_256": self._digest(f"measurement/{number}").hex()} for number in range(2)]

    def certificate_chain(self) -> list[str]:
        """Leaf first."""
        return [_pem(self._digest(f"certificate/{number}") * 16) for number in ("leaf", "intermediate", "root")]

    def attest(self, nonce: str) -> dict[str, str]:
        """64 bytes that follow from the log and the nonce."""
        log = "".join(each["sha3_256"] for each in self.measurement_log())
        text = f"{self.estate.sled_id}/{log}/{nonce}"
        return {"ed25519": hashlib.sha3_512(text.encode()).hexdigest()}

    def _digest(self, what: str) -> bytes:
        return hashlib.sha3_256(f"{self.estate.sled_id}/{what}".encode()).digest()


def _pem(data: bytes) -> str:
    text = base64.b64encode(data).decode()
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
