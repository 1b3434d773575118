"""`python -m tests.lint [--fix]`: citations that do not resolve, files that are named and not there, a reading order
that does not hold together, imports that go in a circle, and planted bugs whose line has moved.
"""

import subprocess
import sys
from pathlib import Path

from tests.lint import circles, citations, paths, reading
from tests.mutation import rows

ROOT = Path(__file__).parents[2]
PASSED_OVER = ("tests/data/", "tests/lint/")  # data, and examples of what is wrong
TEXTS = (".py", ".md", ".toml", ".yaml", ".yml")


def tracked() -> list[str]:
    """Our own texts that git knows, or would know."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return sorted(
        name
        for name in set(listed.stdout.split("\n"))
        if name.endswith(TEXTS) and not name.startswith(PASSED_OVER) and (ROOT / name).is_file()
    )


def main(arguments: list[str]) -> int:
    files = tracked()
    if "--fix" in arguments:
        for name, text in reading.fixed(reading.sources_of(ROOT, files)).items():
            (ROOT / name).write_text(text)
            print(f"{name}: reading order completed")
    found = (
        citations.problems(ROOT, files)
        + paths.problems(ROOT, files)
        + circles.problems(circles.imports())
        + list(reading.order_of(reading.sources_of(ROOT, files)).problems)
        + rows.misfits()
    )
    print("\n".join(found) or "citations, paths, reading order, circles and planted bugs: clean")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
