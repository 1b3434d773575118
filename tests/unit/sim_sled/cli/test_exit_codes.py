"""Exit codes of product.md 5 for what a person gets wrong: 2, one line, no traceback."""

import pytest
from typer.testing import CliRunner

from sim_sled.cli.main import app

VMM = "11111111-1111-4111-8111-111111111111"


def sim_sled(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["nowhere"], id="internal"),
        pytest.param(["example.org:80"], id="a name"),
        pytest.param(["[::1]:0", "--lockstep", "x"], id="lockstep"),
        pytest.param(["[::1]:0", "--control", "x"], id="control"),
    ],
)
def test_a_bad_address_of_the_nexus_model_is_bad_input(words):
    result = sim_sled("nexus", *words)
    assert result.exit_code == 2
    assert "is no address; write [::1]:12221" in result.stderr


def test_a_daemon_that_is_not_there_is_told_in_plain_words():
    result = sim_sled("ps", "--at", "[::1]:1")
    assert result.exit_code == 3
    assert result.stderr == "sim-sled: no control API at [::1]:1: Connection refused\n"
