"""Every tape, over a real socket, against our daemon (SIM_SLED_TAPES says where the tapes are)."""

import asyncio
import os
from collections import Counter

import pytest
from conformance.sled_under_test import DaemonSled
from conformance.tape_player import How, Played, play_file, tapes

NOT_OFFERED: frozenset[str] = frozenset()
"""Operations that answer the original's 405: none is left, and a new one would be named here."""

_AT_A_TIME = 6
"""Tapes played at the same time: they mostly wait, and each must still be answered at once."""

_PATHS = tapes()


def _report(results: list[Played]) -> str:
    hows = [How.PASSED, How.ALTERNATIVE, How.NOT_OFFERED, How.SKIPPED, How.FAILED]
    counts = Counter((result.op, result.how) for result in results)
    lines = [f"{'operation':40}" + "".join(f"{how.value:>16}" for how in hows)]
    lines += [
        f"{op:40}" + "".join(f"{counts[op, how] or '-':>16}" for how in hows)
        for op in sorted({result.op for result in results})
    ]
    total = Counter(result.how for result in results)
    lines.append(f"{'all':40}" + "".join(f"{total[how]:>16}" for how in hows))
    return "\n".join(lines)


def _of_vmms(path):
    """Only of a VMM it makes a difference whether the sled is poked, and only there generations are compared."""
    text = path.read_text()
    return '"/vmms' in text or '"sim_subset"' in text


@pytest.mark.early
@pytest.mark.parametrize(
    ("explicit", "wanted"),
    [
        pytest.param(False, lambda _: True, id="a sled that works by itself"),
        pytest.param(True, _of_vmms, id="a sled that is poked, compared with the existing simulator's generations"),
        pytest.param(
            True,
            lambda path: not _of_vmms(path),
            id="a sled that is poked, of which the tape says nothing that has to do with it",
            marks=() if os.environ.get("SIM_SLED_TAPES") else pytest.mark.long,
        ),
    ],
)
async def test_every_tape_is_answered_as_nexus_expects(explicit, wanted, capsys):
    assert _PATHS, "no tapes where SIM_SLED_TAPES says"
    paths = list(filter(wanted, _PATHS))
    turns = asyncio.Semaphore(_AT_A_TIME)

    async def played(path):
        async with turns:
            return await play_file(path, DaemonSled(explicit=explicit), not_offered=NOT_OFFERED, exact=explicit)

    results = [result for tape in await asyncio.gather(*map(played, paths)) for result in tape]
    with capsys.disabled():
        print(f"\n{len(paths)} tapes\n{_report(results)}")
    failed = [f"{r.tape}:{r.line} {r.op}: {r.detail}" for r in results if r.how is How.FAILED]
    assert not failed, "\n".join(failed)
    lacking = {result.op for result in results if result.how is How.NOT_OFFERED}
    offered = NOT_OFFERED & {result.op for result in results if result.succeeded} - lacking
    assert not offered, f"strike these out of NOT_OFFERED: {sorted(offered)}"
