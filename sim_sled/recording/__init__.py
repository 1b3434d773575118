"""Recordings of a live rack: what a line is, how it is played again, compared, scrubbed. No I/O."""
