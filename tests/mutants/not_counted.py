"""Which parts of a module are no code that a test could find a mistake in."""

from __future__ import annotations

import ast
import io
import itertools
import tokenize
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: A line, counted from 1, and a column, counted from 0 in characters.
_Position: TypeAlias = "tuple[int, int]"


def find_not_counted(source: str) -> Sequence[tuple[_Position, _Position]]:
    """Return where annotations, type aliases, protocols and the like begin and end.

    Text isn't among them, as cosmic-ray leaves it alone: docstrings, comments, and the words of messages.
    """
    lines = source.splitlines()

    def position(line: int, column: int) -> _Position:
        return line, len(lines[line - 1].encode()[:column].decode())

    found = [
        (position(node.lineno, node.col_offset), position(node.end_lineno or 0, node.end_col_offset or 0))
        for node in _nodes(ast.parse(source))
    ]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    # What says which parameters are given by name or by position.
    found += [
        (one.start, one.end)
        for one, two in itertools.pairwise(tokens)
        if one.string + two.string in {"*,", "/,", "/)"}
    ]
    return found


def _nodes(tree: ast.Module) -> Iterator[ast.expr | ast.stmt]:
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(annotation=ast.Name(id="TypeAlias")):
                yield node
            case ast.arg(annotation=ast.expr() as annotation) | ast.AnnAssign(annotation=annotation):
                yield annotation
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield node
            case ast.Assign(value=ast.BinOp(op=ast.BitOr(), left=ast.Name() | ast.BinOp())) if (
                node in tree.body
            ):
                yield node  # X = A | B
            case ast.ClassDef(bases=[ast.Name(id="Protocol")]):
                yield node
            case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar"))):
                yield node
            case ast.ClassDef(bases=bases):
                yield from bases
            case _:
                pass
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns:
            yield node.returns
