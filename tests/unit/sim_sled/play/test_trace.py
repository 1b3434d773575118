"""Written traces: read, and compared."""

import attrs
import pytest
from support.rows import in_one_test

from sim_sled.play.trace import BadTrace, Trace, compare, read_trace

TRACE = Trace(
    7, "version: 1\n", ("      0.000000 user      - - one", "      1.000000 user      - - two"), "1.0 s, 2 steps"
)


def test_a_trace_that_is_written_and_read_is_the_same():
    written = attrs.evolve(TRACE, variant="no-watcher", marks=("rule a x.yaml:3",))
    assert read_trace(written.text()) == written


def test_the_same_run_differs_in_nothing():
    assert compare(TRACE, read_trace(TRACE.text())) == ""


@pytest.mark.parametrize(
    ("now", "said"),
    [
        pytest.param(attrs.evolve(TRACE, end="1.0 s, 2 steps, not at rest"), "-# end 1.0 s, 2 steps", id="the end"),
        pytest.param(attrs.evolve(TRACE, lines=TRACE.lines[:1]), "the runs part at line 2", id="a line less"),
        pytest.param(attrs.evolve(TRACE, lines=(TRACE.lines[0], "x")), "+x", id="another line"),
    ],
)
def test_where_two_runs_part_is_told(now, said):
    assert said in compare(TRACE, now)


@in_one_test("text", ["", "# sim-sled trace 2\n", "# sim-sled trace 1\n# seed x\n", "# sim-sled trace 1\n"])
def test_what_is_no_trace_is_refused(text):
    with pytest.raises(BadTrace):
        read_trace(text)
