"""Planted bugs, and the player that shows which tests notice them: `make mutants`.

`planted/*.yaml` hold them as data, one list per area::

    - id: CD1
      bug: wrong path in errors inside maps        # what a user or Nexus would see
      file: nexus_client/codec.py
      text: "..."                                  # occurs exactly once in the file
      replacement: "..."
      tests: [tests/unit/nexus_client/test_codec.py]   # of which at least one must fail

`test_planted.py` holds that every row still fits the code, so that none is green because it was not planted.
"""
