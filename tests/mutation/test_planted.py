"""The rows of planted bugs fit the code; and the player sees each of the three fates."""

from collections import Counter

import attrs
import pytest

from tests.mutation import __main__ as player
from tests.mutation.rows import Planted, all_rows, misfits, read


def test_every_row_fits_the_code() -> None:
    assert misfits() == []


def test_a_row_whose_line_or_test_has_moved_does_not_fit() -> None:
    row = next(iter(all_rows()))
    assert attrs.evolve(row, text="nowhere").misfit() == f"{row.id}: the text occurs 0 times in {row.file}"
    assert attrs.evolve(row, tests=("tests/none.py::x",)).misfit() == f"{row.id}: there is no tests/none.py::x"
    assert attrs.evolve(row, tests=()).misfit() == f"{row.id}: no tests"
    assert "none.py" in attrs.evolve(row, file="none.py").misfit()


def test_no_id_is_given_twice() -> None:
    twice = [name for name, count in Counter(row.id for row in all_rows()).items() if count > 1]
    assert not twice


@pytest.mark.parametrize(
    ("source", "said"),
    [("", "occurs 0 times"), ("x = 1\nx = 1\n", "occurs 2 times")],
)
def test_a_text_that_is_not_there_exactly_once_cannot_be_planted(source: str, said: str) -> None:
    row = Planted("A1", "b", "f.py", "x = 1", "x = 2", ("t",))
    with pytest.raises(ValueError, match=said):
        row.planted_in(source)


def test_a_row_with_other_keys_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def] # pytest's own fixture
    path = tmp_path / "a.yaml"
    path.write_text("- {id: A1, bug: b, file: f.py, txt: x, replacement: y, tests: [t]}")
    with pytest.raises(ValueError, match="text, txt wrong"):
        read(path)


@pytest.mark.parametrize(
    ("test", "fate"),
    [
        ("def test_it():\n    assert thing.double(2) == 4\n", player.Fate.KILLED),
        pytest.param("def test():\n    assert thing.double(0) == 0\n", player.Fate.SURVIVED, marks=pytest.mark.long),
        pytest.param("import nothing_of_this_name\n", player.Fate.UNFIT, marks=pytest.mark.long),
        pytest.param("", player.Fate.UNFIT, marks=pytest.mark.long),
    ],
)
def test_the_player_tells_what_the_tests_made_of_a_bug(tmp_path, test: str, fate: player.Fate) -> None:  # type: ignore[no-untyped-def] # pytest's own fixture
    (tmp_path / "thing.py").write_text("def double(n):\n    return 2 * n\n")
    (tmp_path / "test_thing.py").write_text("import thing\n\n\n" + test)
    row = Planted("A1", "b", "thing.py", "2 * n", "3 * n", ("test_thing.py",))
    assert player.play(row, tmp_path)[0] is fate
    assert "2 * n" in (tmp_path / "thing.py").read_text(), "the bug is taken out again"
