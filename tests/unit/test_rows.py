"""Rows in one test fail as tests of their own would."""

import asyncio

import pytest
from support.rows import TOLD_MAX, in_one_test


def test_every_row_is_played_with_its_values_and_the_fixtures_of_the_test():
    seen = []

    @in_one_test("one, two", [(1, 2), pytest.param(3, 4, id="named")])
    @in_one_test("three", "ab")
    def test(one, two, three, fixture):
        seen.append((one, two, three, fixture))

    test(fixture=0)
    assert seen == [(1, 2, "a", 0), (1, 2, "b", 0), (3, 4, "a", 0), (3, 4, "b", 0)]


def test_one_wrong_row_fails_as_it_is_and_is_named():
    @in_one_test("n", [1, 2, 3], ids=str)
    def test(n):
        assert n != 2

    with pytest.raises(AssertionError) as failed:
        test()
    assert failed.value.__notes__ == ["row 2"]


def test_all_wrong_rows_are_counted_and_some_told():
    @in_one_test("n", range(30))
    def test(n):
        with pytest.raises(ValueError, match="x"):
            int("x" if n < 5 else "1")

    with pytest.raises(BaseExceptionGroup, match="25 of 30 rows are wrong") as failed:
        test()
    assert [each.__notes__ for each in failed.value.exceptions] == [[f"row {n}"] for n in range(5, 5 + TOLD_MAX)]


@in_one_test("n", [1, 2])
def test_all_rows_have_the_same_fixtures(tmp_path, n):
    (tmp_path / str(n)).touch()
    assert len(list(tmp_path.iterdir())) == n


def test_a_table_without_a_row_is_a_mistake():
    with pytest.raises(ValueError, match="without a row"):
        in_one_test("n", [])


@in_one_test("n", [1, 2])
async def test_rows_of_an_async_test_have_one_loop(tmp_path, n):
    (tmp_path / str(id(asyncio.get_running_loop()))).touch()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_wrong_row_of_an_async_test_is_named():
    @in_one_test("n", [1, 2, 3])
    async def test(n):
        assert n != 2

    with pytest.raises(AssertionError) as failed:
        asyncio.run(test())
    assert failed.value.__notes__ == ["row 2"]


def test_no_row_is_marked_or_skips_the_others():
    with pytest.raises(ValueError, match="row 1 is marked"):
        in_one_test("n", [1, pytest.param(2, marks=pytest.mark.long)])

    @in_one_test("n", [1, 2])
    def test(n):
        if n == 2:
            pytest.skip("not here")

    with pytest.raises(AssertionError, match="cannot be skipped: not here"):
        test()
