"""How a path finds its place (SA 1.1, 1.3): split first, then decoded, so that `%2F` is no separator.

Read before: dropshot/answers.py. Read next: dropshot/operations.py.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar
from urllib.parse import quote, unquote

import attrs

from nexus_client.dropshot.answers import Refused, bad_request, not_found

T = TypeVar("T")


def split_target(target: str) -> tuple[str, str]:
    """Path and query of a request target, still encoded. Absolute targets (`http://host/path`) lose their host."""
    if not target.startswith("/") and "://" in target:
        target = "/" + target.partition("://")[2].partition("/")[2]
    path, _, query = target.partition("?")
    return path, query


def segments(path: str) -> list[str]:
    """Parts of a raw path, decoded; empty ones do not count. Raises `Refused`."""
    parts = [part for part in path.split("/") if part]
    if not path.isascii() or "." in parts or ".." in parts:
        raise bad_request("invalid path encoding")
    if "%" not in path:
        return parts
    try:
        return [unquote(part, errors="strict") for part in parts]
    except UnicodeDecodeError:
        raise bad_request("invalid path encoding") from None


def segment(text: str) -> str:
    """A text as one part of a path; `..` is a name there, too, and no way up."""
    return quote(text, safe="").replace(".", "%2E")


@attrs.define(eq=False)
class _Node(Generic[T]):
    literals: dict[str, _Node[T]] = attrs.field(factory=dict)
    variable: _Node[T] | None = None
    methods: dict[str, T] = attrs.field(factory=dict)


class Paths(Generic[T]):
    """Operations by method and path template (`/vmms/{propolis_id}`)."""

    def __init__(self) -> None:
        self._root: Final[_Node[T]] = _Node()

    def add(self, method: str, template: str, operation: T) -> None:
        """One operation; a second one in the same place is a bug."""
        node = self._root
        for part in template.split("/")[1:]:
            if part.startswith("{"):
                node.variable = node.variable or _Node()
                node = node.variable
            elif part:
                node = node.literals.setdefault(part, _Node())
        assert method not in node.methods, f"two rows for {method} {template}"
        node.methods[method] = operation

    def find(self, method: str, path: str) -> tuple[T, tuple[str, ...]]:
        """The operation and the values of its variables, in order. Raises `Refused`: 400, 404 or 405."""
        node = self._root
        variables: tuple[str, ...] = ()
        for segment in segments(path):
            below = node.literals.get(segment)
            if below is None:
                below = node.variable
                if below is None:
                    raise not_found()
                variables += (segment,)
            node = below
        operation = node.methods.get(method)
        if operation is not None:
            return operation, variables
        if node.methods:
            raise Refused(405, "Method Not Allowed", allow=tuple(sorted(node.methods)))
        raise not_found()


def names(template: str) -> tuple[str, ...]:
    """The variables of a template, in order."""
    return tuple(part[1:-1] for part in template.split("/") if part.startswith("{"))
