"""The code of a response model's class, as a digest: it tells whether its checks may have changed.

The schema of a class does not show what its validators refuse. Its code does: the class itself, the
call that made it, and all that these name, such as bases, nested models, functions and constants,
of the user's own files.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import warnings
from importlib.util import resolve_name
from types import ModuleType
from typing import TYPE_CHECKING, get_args

from batchata_tasks.common.canonical import digest
from batchata_tasks.common.installed import is_installed
from batchata_tasks.common.json import as_dict

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIGITS = 24
_NAME = re.compile(r"[^\W\d]\w*")
_ANNOTATION = 200  # characters of a text that may be an annotation
_WITH_DOCSTRING = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

_Names = dict[str, list[ast.stmt]]
"""The statements at the top of a module that define each of its names, or import it."""


def code_digest(model: type) -> str | None:
    """Return a digest of the code that decides on answers; None if there is no source text of it.

    Comments, docstrings and the layout of the text do not count.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the syntax: who imported the class was told
        try:
            texts = _texts(model)
        except (RecursionError, ValueError, MemoryError):
            # an expression of hundreds of parts, a number of thousands of digits
            return None
    if not texts:
        return None
    return digest("model code", *(text.encode() for text in sorted(texts))).hex()[:_DIGITS]


def _places(kind: object) -> Iterator[tuple[str, str]]:
    """Yield module and name of a class, or of those that a generic one was made of."""
    made = as_dict(getattr(kind, "__pydantic_generic_metadata__", None))
    if (origin := made.get("origin")) is not None:
        parts = [origin, *made["args"]]
    elif isinstance(kind, type):
        yield kind.__module__, kind.__qualname__.partition(".")[0]
        return
    else:
        parts = get_args(kind)  # of a list, a union
    for part in parts:
        yield from _places(part)


def _texts(model: type) -> set[str]:
    """Return the statements that define a class, and all that they name, directly or not."""
    modules = dict[str, _Names]()
    texts, seen, following = set[str](), set[tuple[str, str]](), [*_starts(model, modules)]
    while following:
        module, name = place = following.pop()
        if place in seen:
            continue
        seen.add(place)
        for statement in _names_of(module, modules).get(name, ()):
            if not isinstance(statement, ast.Import | ast.ImportFrom):
                texts.add(ast.unparse(statement))
                following += [(module, used) for used in _used_by(statement)]
            for one in _imports_in(statement):
                following += _imported(one, name, module, modules)
    return texts


def _starts(model: type, modules: dict[str, _Names]) -> Iterator[tuple[str, str]]:
    """Yield the modules and names of a class and its bases, and of what it is assigned to.

    A class that a function, a decorator or a generic model made has a name of its own, and what it
    was made with stands in the assignment alone.
    """
    for one in model.__mro__:
        yield from _places(one)
    for module in list(sys.modules):
        loaded = sys.modules.get(module)  # a program may put anything there
        values = dict(vars(loaded)) if isinstance(loaded, ModuleType) else {}
        if id(model) not in map(id, values.values()):  # of some 100,000 values
            continue
        for name in (name for name, value in values.items() if value is model):
            statements = _names_of(module, modules).get(name, ())
            # a loop or a block that binds the class to a name, too, is no part of it
            if all(isinstance(one, ast.Assign | ast.AnnAssign) for one in statements):
                yield module, name


def _names_of(module: str, known: dict[str, _Names]) -> _Names:
    """Return the names of a module; none if it is not the user's own, or has no source text."""
    if module not in known:
        names: _Names = {}
        known[module] = names
        loaded = sys.modules.get(module)
        # a program may put anything into `sys.modules`
        for statement in _statements(loaded) if isinstance(loaded, ModuleType) else ():
            for name in _defined_by(statement, module, known):
                names.setdefault(name, []).append(statement)
    return known[module]


def _statements(module: ModuleType) -> list[ast.stmt]:
    """Return the statements at the top of a module, without docstrings."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or is_installed(module):
        return []  # it changes by updates, and decides on nothing by itself
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, ValueError, SyntaxError, MemoryError):
        return []
    for node in ast.walk(tree):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree.body


def _defined_by(statement: ast.stmt, module: str, known: dict[str, _Names]) -> set[str]:
    """Return the names that a statement at the top defines, imports, or changes the value of."""
    if isinstance(statement, _WITH_DOCSTRING):
        return {statement.name}
    names = set[str]()
    for node in ast.walk(statement):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case (
                ast.ClassDef(name=name)
                | ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
            ):
                names.add(name)
            case (
                ast.Attribute(value=ast.Name(id=name), ctx=ast.Store())  # `K.x = …`
                | ast.Subscript(value=ast.Name(id=name), ctx=ast.Store())  # `K[…] = …`
                | ast.Expr(
                    value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))
                )  # `K.add(…)`
            ):
                names.add(name)
            case _:
                pass
    for one in _imports_in(statement):
        for alias in one.names:
            if alias.name == "*" and isinstance(one, ast.ImportFrom):
                names |= _names_of(_origin(one, module), known).keys()
            else:
                names.add(_called(alias))
    return names


def _imports_in(statement: ast.stmt) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports in a statement, such as within `try`, or in a function."""
    yield from (n for n in ast.walk(statement) if isinstance(n, ast.Import | ast.ImportFrom))


def _called(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _origin(statement: ast.ImportFrom, into: str) -> str:
    """Return the module that something is imported from; "" if there can be none.

    A module may try to import from its package first, and is a script of its own here.
    """
    package = getattr(sys.modules.get(into), "__package__", None) or into
    try:
        return resolve_name("." * statement.level + (statement.module or ""), package)
    except ImportError:  # from above the package
        return ""


def _imported(
    statement: ast.Import | ast.ImportFrom, name: str, into: str, known: dict[str, _Names]
) -> Iterator[tuple[str, str]]:
    """Yield where imported names are defined; of a whole module, all of its names.

    At the top of a module only what is called `name` counts, in a function all.
    """
    at_top = statement in known[into].get(name, ())
    for alias in statement.names:
        if isinstance(statement, ast.Import):
            if not at_top or name == _called(alias):
                yield from ((alias.name, one) for one in _names_of(alias.name, known))
            continue
        origin = _origin(statement, into)
        if alias.name == "*":
            yield origin, name
        elif not at_top or name == _called(alias):
            yield origin, alias.name
            whole = f"{origin}.{alias.name}"  # if the name is a module's
            yield from ((whole, one) for one in _names_of(whole, known))


def _used_by(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement uses, also within annotations that are texts."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            yield node.id
            continue
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(value, str) and len(value) <= _ANNOTATION:
            yield from _NAME.findall(value)
