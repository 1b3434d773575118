"""Players of the recorded decisions (tests/data/nexus-traces): each answers one line's input with what we do.

`PLAYERS` has one per recorded function; what a player answers has the shape of the recording's output.
"""

from conformance.nexus_players.agent import AGENT
from conformance.nexus_players.nexus import NEXUS
from conformance.nexus_players.propolis import PROPOLIS

PLAYERS = {**NEXUS, **AGENT, **PROPOLIS}
