"""Strict YAML with positions: text -> a tree of `Node`s, or problems. Nothing of the file is ever executed.

Read from libyaml's events, not with a constructor: no tag can name a class, no alias can multiply, and depth and
number of values are bounded before anything is built. Then `include` is followed and `${variables}` are replaced.

Errors: E103..E109, E111 (vars), E120..E122. Read next: language/field_types.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn, cast

import attrs
import yaml

from sim_sled.language.files import TooLong, inside, is_file, is_folder, read_bounded, read_stdin
from sim_sled.language.source import Mark, Problems
from sim_sled.language.words import BOOLEAN_KEYS, hint

STDIN: Final = "-"
"""Where other programs put a file name, this means standard input."""
TRACE_HEAD: Final = "# sim-sled trace "
"""Begins the trace of a run (`play/trace.py`), behind it stands its version: who gives one for a scenario is told."""
SIZE_MAX: Final = 4 * 1024 * 1024
"""Bytes of one file. A scenario that a person wrote has a few kB; ten thousand sleds with overrides have 1 MB."""
ALL_SIZE_MAX: Final = 4 * SIZE_MAX
"""Bytes of one scenario with everything that it includes."""
DEPTH_MAX: Final = 32
"""Nesting; the language itself needs nine levels, `not` and `any` in selectors may add more."""
NODES_MAX: Final = 250_000
"""Values of one scenario, includes and all: about a second to read."""
INCLUDES_MAX: Final = 64
"""Files of one scenario, itself included."""
SCALAR_MAX: Final = 10_000
"""Characters of one value after variables were replaced."""
REPLACED_MAX: Final = SIZE_MAX
"""Characters that all replacements of one scenario make together: variables do not make more than a file may hold."""

_BASE_60: Final = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_VARIABLE: Final = re.compile(r"\$\{([^}]*)(\}?)")
# what an event is, is asked of a quarter of a million of them: not by way of the package each time
_Alias, _Scalar, _Sequence = yaml.AliasEvent, yaml.ScalarEvent, yaml.SequenceStartEvent
_Begin = yaml.AliasEvent | yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent
_End = yaml.CollectionEndEvent
_Event = _Begin | _End
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_MERGED_LISTS: Final = ("rules", "expect", "load")
_MERGED_MAPS: Final = ("vars", "latency", "fleet", "agent")


@attrs.define(eq=False)
class Scalar:
    text: str
    plain: bool
    mark: Mark
    refused: bool = False
    """A problem with it was told; whoever reads it says nothing more."""

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in _NULLS


@attrs.define(eq=False)
class Seq:
    items: list[Node]
    mark: Mark


@attrs.define(eq=False)
class Map:
    pairs: list[tuple[Scalar, Node]]
    mark: Mark

    def get(self, key: str) -> Node | None:
        return next((value for k, value in self.pairs if k.text == key), None)

    def keys(self) -> list[str]:
        return [k.text for k, _ in self.pairs]


Node = Scalar | Seq | Map


class _Refused(Exception):
    """The file cannot be read any further; the problem has been told."""


Advice = Callable[[str], str]
"""What to say besides of a file that does not exist, by its name; "" is nothing."""


def no_advice(_name: str) -> str:
    """Nothing is known of other names."""
    return ""


@attrs.define(eq=False)
class _Budget:
    """What one scenario may still take, over all of its files."""

    folders: tuple[Path, ...]
    """Where included files may be."""
    advice: Advice
    files: int = INCLUDES_MAX
    size: int = ALL_SIZE_MAX
    nodes: int = NODES_MAX
    replaced: int = REPLACED_MAX


def read_tree(
    path: Path,
    shown: str,
    problems: Problems,
    folders: tuple[Path, ...] | None = None,
    advice: Advice = no_advice,
) -> Map | None:
    """The tree of a scenario file with its includes merged and its variables replaced; None if that failed.

    `folders`: where included files may be; None: in the file's own folder and below.
    """
    budget = _Budget((path.parent,) if folders is None else folders, advice)
    root = _load_with_includes(path, shown, problems, (), budget)
    if root is None:
        return None
    _replace_variables(root, problems, budget)
    return root


def read_text(text: str, shown: str, problems: Problems) -> Map | None:
    """As `read_tree` of a text without a file (includes are refused: there is no folder to look in)."""
    budget = _Budget((), no_advice)
    root = _parse(text, shown, problems, budget)
    if root is None:
        return None
    include = root.get("include")
    if include is not None:
        problems.add("E120", include.mark, "a text without a file cannot include others")
    _replace_variables(root, problems, budget)
    return root


def _load_with_includes(
    path: Path, shown: str, problems: Problems, chain: tuple[Path, ...], budget: _Budget
) -> Map | None:
    text = _read_file(path, shown, problems, budget, regular=bool(chain))
    root = _parse(text, shown, problems, budget) if text is not None else None
    if root is None:
        return None
    include = root.get("include")
    if include is None or (isinstance(include, Scalar) and include.is_null):
        return root
    chain = (*chain, path.resolve())
    base = Map([], root.mark)
    for item in include.items if isinstance(include, Seq) else [include]:
        if not isinstance(item, Scalar):
            problems.add("E111", item.mark, "'include' is a list of files")
            continue
        target = path.parent / item.text
        if not inside(budget.folders, target):
            told = f"file '{item.text[:200]}' is not in the scenario's folder; --files-from FOLDER allows another"
            problems.add("E120", item.mark, told)
            continue
        if not is_file(target):
            near = hint(Path(item.text).name, [p.name for p in _siblings(target)])
            problems.add("E120", item.mark, f"file '{item.text}' not found{near}")
            continue
        if target.resolve() in chain:
            names = " -> ".join(p.name for p in (*chain, target.resolve()))
            problems.add("E121", item.mark, f"files include each other: {names}")
            continue
        budget.files -= 1
        if budget.files <= 0:
            problems.add("E109", item.mark, f"more than {INCLUDES_MAX} files in one scenario")
            break
        shown_there = str(Path(shown).parent / item.text)
        child = _load_with_includes(target, shown_there, problems, chain, budget)
        if child is not None:
            _merge(base, child)
    _merge(base, root)
    return base


def _siblings(target: Path) -> Iterator[Path]:
    if is_folder(target.parent):
        yield from sorted(target.parent.glob("*.y*ml"))[:1000]


def _merge(base: Map, over: Map) -> None:
    """Lays `over` on `base`: lists of rules, expectations and load are joined, maps are merged, the rest replaced."""
    for key, value in over.pairs:
        old = base.get(key.text)
        if old is None:
            base.pairs.append((key, value))
        elif key.text in _MERGED_LISTS and isinstance(old, Seq) and isinstance(value, Seq):
            _put(base, key, Seq([*old.items, *value.items], value.mark))
        elif key.text in _MERGED_MAPS and isinstance(old, Map) and isinstance(value, Map):
            taken = {k.text for k, _ in value.pairs}
            _put(base, key, Map([*(p for p in old.pairs if p[0].text not in taken), *value.pairs], value.mark))
        else:
            _put(base, key, value)


def _put(base: Map, key: Scalar, value: Node) -> None:
    base.pairs = [(key, value) if k.text == key.text else (k, v) for k, v in base.pairs]


def _read_file(path: Path, shown: str, problems: Problems, budget: _Budget, *, regular: bool) -> str | None:
    """`regular`: nothing but a file. The scenario itself may be a pipe, as a person named it."""
    here = Mark(shown, 0, 0)
    try:
        if shown == STDIN and not regular:
            data = read_stdin(SIZE_MAX)
        else:
            data = read_bounded(path, SIZE_MAX, regular=regular)
        budget.size -= len(data)
        if budget.size < 0:
            problems.add("E109", here, f"more than {ALL_SIZE_MAX // 1024 // 1024} MiB with everything it includes")
            return None
    except TooLong:
        problems.add("E109", here, f"more than {SIZE_MAX // 1024 // 1024} MiB; no scenario is that long")
        return None
    except ValueError:  # a NUL in its name
        problems.add("E120", here, "cannot be read: that is no file name")
        return None
    except OSError as err:
        more = budget.advice(shown) if isinstance(err, FileNotFoundError | IsADirectoryError) else ""
        problems.add("E120", here, f"cannot be read: {more or err.strerror or err}")
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        problems.add("E106", Mark(shown, line, 1), f"not UTF-8: byte {data[err.start]:#04x}")
        return None


def _parse(text: str, shown: str, problems: Problems, budget: _Budget) -> Map | None:
    problems.sources[shown] = text.splitlines()
    if text.startswith(TRACE_HEAD):
        how = "`sim-sled replay` plays it again, `explain` and `page` show it"
        problems.add("E106", Mark(shown, 1, 1), f"this is the trace of a run, and no scenario: {how}")
        return None
    parser = _Parser(text, shown, problems, budget)
    try:
        return parser.document()
    except _Refused:
        return None
    except yaml.MarkedYAMLError as err:
        at = err.problem_mark or err.context_mark
        mark = Mark(shown, at.line + 1, at.column + 1) if at else Mark(shown)
        told = " ".join(part for part in (err.context, err.problem) if part)
        problems.add("E106", mark, f"not YAML: {told}")
    except yaml.reader.ReaderError as err:
        line = text.count("\n", 0, int(err.position)) + 1
        problems.add("E106", Mark(shown, line, 1), f"not YAML: {err.reason}")
    except yaml.YAMLError as err:
        problems.add("E106", Mark(shown), f"not YAML: {str(err).splitlines()[0]}")
    return None


@attrs.define(eq=False)
class _Parser:
    text: str
    shown: str
    problems: Problems
    budget: _Budget

    def document(self) -> Map | None:
        loader = yaml.CSafeLoader(self.text)
        try:
            return self._document(iter(loader.get_event, None))
        finally:
            loader.dispose()

    def _document(self, events: Iterator[yaml.Event]) -> Map | None:
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent) and root is not None:
                self._refuse("E106", event, "one file is one scenario; a second document starts here")
            if isinstance(event, _Begin):
                root = self._node(event, cast("Iterator[_Event]", events), 0)  # a document is whole, or an error
        if root is None or (isinstance(root, Scalar) and root.is_null):
            self.problems.add(
                "E100", Mark(self.shown, 1, 1), "'version' is missing: the file is empty; write 'version: 1'"
            )
            return None
        if not isinstance(root, Map):
            self.problems.add("E111", root.mark, "a scenario is a mapping of fields, e.g. 'version: 1'")
            return None
        return root

    def _node(self, event: _Begin, events: Iterator[_Event], depth: int) -> Node:
        self.budget.nodes -= 1
        if self.budget.nodes < 0:
            self._refuse("E109", event, f"more than {NODES_MAX} values")
        if depth > DEPTH_MAX:
            self._refuse("E109", event, f"nested deeper than {DEPTH_MAX} levels")
        if isinstance(event, _Alias) or event.anchor is not None:
            self._refuse("E107", event, "anchors and aliases are not part of the language; use 'vars' or 'include'")
        if event.tag is not None:
            self._refuse("E108", event, f"tag '{event.tag}': tags are not part of the language")
        mark = self._mark(event)
        if isinstance(event, _Scalar):
            return self._scalar(event, mark)
        if isinstance(event, _Sequence):
            items = []
            while not isinstance(inner := next(events), _End):
                items.append(self._node(inner, events, depth + 1))
            return Seq(items, mark)
        return self._mapping(mark, events, depth)

    def _scalar(self, event: yaml.ScalarEvent, mark: Mark) -> Scalar:
        text = event.value
        if event.style:  # libyaml says "" for plain
            return Scalar(text, plain=False, mark=mark)
        if ":" not in text or _BASE_60.fullmatch(text) is None:
            return Scalar(text, plain=True, mark=mark)
        told = f"'{text}' is read as a base-60 number by YAML 1.1; write 1m30s, or quote it"
        self.problems.add("E105", mark, told)
        return Scalar(text, plain=True, mark=mark, refused=True)

    def _mapping(self, mark: Mark, events: Iterator[_Event], depth: int) -> Map:
        pairs: list[tuple[Scalar, Node]] = []
        seen: dict[str, Mark] = {}
        while not isinstance(inner := next(events), _End):
            if not isinstance(inner, _Scalar) and not isinstance(inner, _Alias):
                self._refuse("E111", inner, "a key must be one word")
            key = self._node(inner, events, depth + 1)
            assert isinstance(key, Scalar)
            of_key = next(events)
            assert not isinstance(of_key, _End)
            value = self._node(of_key, events, depth + 1)
            meant = BOOLEAN_KEYS.get(key.text.lower()) if key.plain else None
            if meant is not None:
                advice = "triggers are written under 'when'" if key.text.lower() == "on" else "choose another name"
                self.problems.add("E103", key.mark, f"key '{key.text}' is read as {meant} by YAML 1.1; {advice}")
            elif key.text in seen:
                first = seen[key.text].line
                self.problems.add("E104", key.mark, f"key '{key.text}' is given twice (first in line {first})")
            else:
                seen[key.text] = key.mark
                pairs.append((key, value))
        return Map(pairs, mark)

    def _mark(self, event: yaml.Event) -> Mark:
        start, end = event.start_mark, event.end_mark
        assert start is not None
        assert end is not None
        line, column = start.line, start.column
        width = end.column - column if end.line == line else 1_000
        return Mark(self.shown, line + 1, column + 1, max(1, width))

    def _refuse(self, code: str, event: yaml.Event, text: str) -> NoReturn:
        self.problems.add(code, self._mark(event), text)
        raise _Refused


def _replace_variables(root: Map, problems: Problems, budget: _Budget) -> None:
    variables: dict[str, str] = {}
    defined = root.get("vars")
    if isinstance(defined, Map):
        for key, value in defined.pairs:
            if not isinstance(value, Scalar):
                problems.add("E111", value.mark, f"variable '{key.text}' must be one value, not a list or a mapping")
            elif "${" in value.text:
                problems.add("E122", value.mark, f"the value of variable '{key.text}' cannot use variables itself")
            else:
                variables[key.text] = value.text
    # once the sum is used up this is told once, and nothing more is made
    for key, value in root.pairs:
        if key.text != "vars" and budget.replaced >= 0:
            _replace(value, variables, problems, budget)


def _replace(node: Node, variables: dict[str, str], problems: Problems, budget: _Budget) -> None:
    if budget.replaced < 0:
        return
    if isinstance(node, Map):
        for key, value in node.pairs:
            _replace(key, variables, problems, budget)
            _replace(value, variables, problems, budget)
    elif isinstance(node, Seq):
        for item in node.items:
            _replace(item, variables, problems, budget)
    elif "${" in node.text:
        node.text = _expanded(node, variables, problems, budget)


def _expanded(node: Scalar, variables: dict[str, str], problems: Problems, budget: _Budget) -> str:
    parts: list[str] = []
    length = at = 0
    for found in _VARIABLE.finditer(node.text):
        name, closed = found.groups()
        if not closed or name not in variables:
            told = f"'${{{name}' has no end; write ${{name}}" if not closed else f"variable '{name}' is not defined"
            near = hint(name, variables) if closed else ""
            problems.add("E122", node.mark, told + near)
            node.refused = True
            return node.text
        parts += (node.text[at : found.start()], variables[name])
        length += len(parts[-1]) + len(parts[-2])
        if length > SCALAR_MAX:
            problems.add("E109", node.mark, f"longer than {SCALAR_MAX} characters once its variables are replaced")
            node.refused = True
            return ""
        at = found.end()
    made = "".join(parts) + node.text[at:]
    budget.replaced -= len(made)
    if budget.replaced < 0:
        problems.add("E109", node.mark, f"variables make more than {REPLACED_MAX} characters of this scenario")
        node.refused = True
        return ""
    return made
