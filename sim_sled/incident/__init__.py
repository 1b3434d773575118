"""From logs of an incident to a scenario that plays it: `sim-sled import` (LG).

lines (files to lines) -> facts (lines to what they say) -> timeline (clocks set right, who is who) -> derive (what
departs from a normal day, as rules) -> writing (YAML with file and line behind everything) -> verify (replay against
the logs).
"""
