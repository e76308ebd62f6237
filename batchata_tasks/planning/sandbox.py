"""The Jinja2 environments of templates and of `where`: an immutable sandbox over plain values.

An attribute is an item first: `{{ order.items }}` is what the object holds. Only what is called is
a method (`order.items()`), so that no method's address gets into a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any, NoReturn, cast

from jinja2 import StrictUndefined, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from batchata_tasks.planning.hints import nearest
from batchata_tasks.planning.nulls import NULL, TESTS_OF_NULL, to_json

_PLAIN_HOMES = frozenset({"builtins", "datetime", "decimal", "uuid", "jinja2", "batchata_tasks"})
_CALLED = "()"  # marks the name of an attribute that is called; no name in a template has it
_TEXT_OF = "text of"  # a filter that no template can name
_KINDS = {str: "a text", list: "a list", datetime: "a point in time", date: "a date"}


class Missing(StrictUndefined):
    """An attribute or item that a value does not have; its error says what there is instead."""

    @property
    def _undefined_message(self) -> str:
        obj, name = self._undefined_obj, self._undefined_name
        if self._undefined_hint or not isinstance(name, str):
            return super()._undefined_message
        if obj is NULL:
            return f"a null has no attribute {name!r}; ask for it first, with `is not none`"
        if isinstance(obj, dict):
            names = [str(key) for key in cast("dict[Any, Any]", obj)]
            remedy = "ask for it first, with `is defined`, or give it a value: `| default('')`"
            return f"the object has no attribute {name!r}{nearest(name, names)}; {remedy}"
        if callable(getattr(obj, name, None)):
            kind = next((text for of, text in _KINDS.items() if isinstance(obj, of)), "a value")
            return f"{name!r} is a method of {kind}; call it to print what it gives: {name}()"
        return super()._undefined_message

    def __repr__(self) -> NoReturn:
        # a printed list would say "Undefined" in its place
        self._fail_with_undefined_error()


class Sandbox(ImmutableSandboxedEnvironment):
    """Refuses the operators with which a few characters make gigabytes."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        # autoescape would turn & into &amp; in prompts: the output is text for a model, never HTML
        super().__init__(undefined=Missing, autoescape=False, keep_trailing_newline=False)
        self.globals.pop("lipsum")  # a random text: a row would never be the same request twice
        self.tests = dict(TESTS_OF_NULL)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether an attribute may be read: those of plain values alone."""
        home = type(obj).__module__.partition(".")[0]
        return home in _PLAIN_HOMES and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Calculate with numbers; refuse the rest."""
        kinds = {type(left).__name__, type(right).__name__}
        if operator == "**" or not kinds <= {"int", "float", "bool", "Decimal"}:
            message = (
                f"the operator {operator} is not allowed on {' and '.join(sorted(kinds))} here"
            )
            raise SecurityError(message)
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return an item or attribute; a method only if the template calls it."""
        if attribute.endswith(_CALLED):
            name = attribute.removesuffix(_CALLED)
            # some methods of a text give the text itself, as in `n.split(',')`: no null then
            is_text = obj is NULL and hasattr("", name)
            return super().getattr("" if is_text else obj, name)
        if isinstance(obj, dict):
            return self._item(cast("dict[Any, Any]", obj), attribute)
        return self._uncalled(obj, attribute, super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return an item, which is an attribute by another spelling, as in Jinja."""
        if isinstance(obj, dict):
            return self._item(cast("dict[Any, Any]", obj), argument)
        return self._uncalled(obj, argument, super().getitem(obj, argument))

    def _item(self, obj: dict[Any, Any], name: Any) -> Any:
        try:
            return obj[name]
        except (TypeError, LookupError):
            return self.undefined(obj=obj, name=name)

    def _uncalled(self, obj: Any, name: Any, value: Any) -> Any:
        known = isinstance(value, Undefined) or type(obj).__module__.startswith("jinja2.")
        if callable(value) and not known:  # a namespace of Jinja's may hold a macro
            return self.undefined(obj=obj, name=name)
        return value

    def _generate(self, source: nodes.Template, *rest: Any, **options: Any) -> str:
        for call in list(source.find_all(nodes.Call)):
            if isinstance(call.node, nodes.Getattr):
                call.node.attr += _CALLED
        return super()._generate(source, *rest, **options)


class TemplateSandbox(Sandbox):
    """The environment of templates: a null prints nothing, and what has no text is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.finalize = printable
        self.filters[_TEXT_OF] = printable
        self.filters["tojson"] = to_json

    def _generate(self, source: nodes.Template, *rest: Any, **options: Any) -> str:
        for concat in list(source.find_all(nodes.Concat)):  # a ~ b prints, too
            concat.nodes = [
                nodes.Filter(node, _TEXT_OF, [], [], None, None, lineno=concat.lineno)
                for node in concat.nodes
            ]
        return super()._generate(source, *rest, **options)


def printable(value: object) -> object:
    """Return what is printed for `value`: nothing for a null.

    Raises:
        TypeError: it has no text of its own, so that an address in memory would be printed.
    """
    if type(value) is str:
        return value
    if value is None:
        return ""
    if isinstance(value, Undefined):
        return value  # raises its own error
    if isinstance(value, Iterator):
        message = (
            "a series of values has no text of its own; add `| list` or `| join(', ')` to print it"
        )
        raise TypeError(message)
    kind = type(value)
    if callable(value) or (kind.__repr__ is object.__repr__ and kind.__str__ is object.__str__):
        name = getattr(value, "__name__", None) or getattr(value, "name", None) or kind.__name__
        message = f"{name!r} has no text of its own; call it to print what it gives: {name}()"
        raise TypeError(message)
    return value


TEMPLATES = TemplateSandbox()
CONDITIONS = Sandbox()

# for reading which columns a template uses: here no name of Jinja's own hides a column's
ANALYSIS = Sandbox()
ANALYSIS.globals.clear()
