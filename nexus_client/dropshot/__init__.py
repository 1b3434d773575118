"""The web framework that the sled agent, Propolis and Nexus share, as its clients see it (DS, SA 1.1 to 1.5).

Dropshot is one library in the original, so it stands once here: versions, routes, bodies, answers, listeners, and
control APIs in one manner. It imports nothing else of ours. Nothing here knows what a VMM is.

    text      UUIDs, addresses, networks, times: checked, and made canonical
    json      bodies: one decoder, which takes and refuses what serde_json does
    version   the `api-version` header
"""
