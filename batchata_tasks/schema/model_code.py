"""The code of a response model's class, as a digest: it tells whether its checks may have changed.

The schema of a class does not show what its validators refuse. Its code does: the class itself, and
all that it names, such as bases, nested models, functions and constants, of the user's own files.
"""

from __future__ import annotations

import ast
import inspect
import sys
import sysconfig
import warnings
from importlib.util import resolve_name
from pathlib import Path
from typing import TYPE_CHECKING

from batchata_tasks.common.canonical import digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_DIGITS = 24
# installed packages and Python itself: they change by updates, and decide on nothing by themselves
_OTHERS = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib")]
_WITH_DOCSTRING = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

_Names = dict[str, list[ast.stmt]]
"""The statements at the top of a module that define each of its names, or import it."""


def code_digest(model: type) -> str | None:
    """Return a digest of the code that decides on answers; None if there is no source text of it.

    Comments, docstrings and the layout of the text do not count.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the syntax: who imported the class was told
        texts = _texts(model.__module__, model.__qualname__.partition(".")[0])
    if not texts:
        return None
    return digest("model code", *(text.encode() for text in sorted(texts))).hex()[:_DIGITS]


def _texts(module: str, name: str) -> set[str]:
    """Return the statements that define a name, and all that it names, directly or not."""
    modules = dict[str, _Names]()
    texts, seen, following = set[str](), set[tuple[str, str]](), [(module, name)]
    while following:
        module, name = place = following.pop()
        if place in seen:
            continue
        seen.add(place)
        for statement in _names_of(module, modules).get(name, ()):
            if isinstance(statement, ast.Import | ast.ImportFrom):
                following += _imported(statement, name, module, modules)
            else:
                texts.add(ast.unparse(statement))
                following += [(module, used) for used in _used_by(statement)]
    return texts


def _names_of(module: str, known: dict[str, _Names]) -> _Names:
    """Return the names of a module; none if it is not the user's own, or has no source text."""
    if module not in known:
        names: _Names = {}
        known[module] = names
        loaded = sys.modules.get(module)
        for statement in [] if loaded is None else _statements(loaded):
            for name in _defined_by(statement):
                names.setdefault(name, []).append(statement)
    return known[module]


def _statements(module: ModuleType) -> list[ast.stmt]:
    """Return the statements at the top of a module, without docstrings."""
    file = getattr(module, "__file__", None)
    if file is None or any(Path(file).is_relative_to(folder) for folder in _OTHERS):
        return []
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return []
    for node in ast.walk(tree):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree.body


def _defined_by(statement: ast.stmt) -> set[str]:
    if isinstance(statement, _WITH_DOCSTRING):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    nodes = list(ast.walk(statement))
    stored = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return stored | {node.name for node in nodes if isinstance(node, _WITH_DOCSTRING)}


def _imported(
    statement: ast.Import | ast.ImportFrom, name: str, into: str, known: dict[str, _Names]
) -> Iterator[tuple[str, str]]:
    """Yield where an imported name is defined; of a whole module, all of its names."""
    for alias in statement.names:
        if name != (alias.asname or alias.name.partition(".")[0]):
            continue
        if isinstance(statement, ast.Import):
            yield from ((alias.name, one) for one in _names_of(alias.name, known))
            continue
        package = getattr(sys.modules.get(into), "__package__", None) or into
        origin = resolve_name("." * statement.level + (statement.module or ""), package)
        yield origin, alias.name
        whole = f"{origin}.{alias.name}"  # if the name is a module's
        yield from ((whole, one) for one in _names_of(whole, known))


def _used_by(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement uses, also within annotations that are texts."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                annotation = ast.parse(node.value, mode="eval")
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
            yield from (one.id for one in ast.walk(annotation) if isinstance(one, ast.Name))
