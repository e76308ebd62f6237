"""YAML as specs have it: what it would take otherwise than it looks is refused, or told."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

_TAG = "tag:yaml.org,2002:"
_TEXTS = (f"{_TAG}str", f"{_TAG}merge", f"{_TAG}value")
_ODD_NUMBER = re.compile(r"[-+]?0[0-7_]+|.*:.*")  # octal, and hours with minutes, of YAML 1.1
_IN_QUOTES = "put it in quotes"
_BOOLEANS = ("true", "false")
_MOST_VALUES = 1_000_000
_HINTS = {
    r"character '\t' that cannot start": "there is a tab: write blanks instead",
    "that cannot start any token": "put a text that begins with such a character in quotes",
    "expected alphabetic or numeric": "put a text that begins with `*` or `&` in quotes",
    "mapping values are not allowed": "put a text with a colon in it in quotes or below `|`, and "
    "let keys that belong together begin below each other",
    "could not find expected ':'": "write `key: value`, with a blank behind the colon",
    "unknown escape character": "put a text with a backslash in single quotes",
    "expected '<document start>'": "let all keys of the spec begin at the left edge",
    "expected <block end>": "look whether quotes are closed, and keys begin below each other",
    "undefined alias": "put a text that begins with `*` in quotes",
    "determine a constructor": "put a text that begins with `!` in quotes",
    "sequence entries are not allowed": "let a list begin in the line below its key",
    "a comment or a line break": "let the text begin in the line below its key",
    "expected ',' or": "close the list or mapping, or put a text that begins so in quotes",
    "found another document": "a file has one spec: remove the `---` and what is below it",
}
"""What to do about the words of PyYAML for what it found."""


class _RefusedError(yaml.MarkedYAMLError):
    """What is YAML, and hardly what was meant."""


class _Loader(yaml.SafeLoader):
    """YAML that refuses what would count in silence: a key given twice, or one that is no text."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - a given one
    ) -> dict[Any, Any]:
        lines = dict[str, int]()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                message = (
                    "a list or mapping stands where a key is to be; a text with `{{ … }}` goes in "
                    "quotes, or below `|`."
                )
                raise _refused(key, message)
            if key.tag not in _TEXTS:
                raise _refused(key, f"{_reading(key)}: {_IN_QUOTES}, as it is a key.")
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                before = f"first in line {lines[name]}"
                raise _refused(key, f"the key {name} is given twice ({before}); remove one.")
            lines[name] = line
        return super().construct_mapping(node, deep)

    def construct_object(
        self,
        node: yaml.Node,
        deep: bool = False,  # noqa: FBT001, FBT002 - as above
    ) -> Any:
        try:
            return cast("Any", super()).construct_object(node, deep)
        # a date that is none, a number of 5,000 digits; or a tag that does not fit its value
        except (ValueError, KeyError, AttributeError, TypeError, OverflowError) as error:
            message = f"{_cut(node)} is no value ({error}); if it is a text, {_IN_QUOTES}."
            raise _refused(node, message) from error

    def construct_sequence(
        self,
        node: yaml.SequenceNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - as above
    ) -> list[Any]:
        for item in node.value:
            is_word = isinstance(item, yaml.ScalarNode) and item.style is None
            # a list of answers to choose from, say: nobody lists yes and no as booleans
            if is_word and item.tag == f"{_TAG}bool" and item.value.lower() not in _BOOLEANS:
                raise _refused(item, f"{_reading(item)}; write that, or put it in quotes.")
        return super().construct_sequence(node, deep)


def _number(loader: _Loader, node: yaml.ScalarNode) -> Any:
    is_whole = node.tag == f"{_TAG}int"
    make = loader.construct_yaml_int if is_whole else loader.construct_yaml_float
    value: Any = cast("Any", make)(node)
    if _ODD_NUMBER.fullmatch(node.value):
        message = (
            f"{_cut(node)} is read as {value} by YAML; write that, or, if it is a text, "
            f"{_IN_QUOTES}."
        )
        raise _refused(node, message)
    return value


for _kind in ("int", "float"):
    _Loader.add_constructor(f"{_TAG}{_kind}", _number)


def parse_yaml(text: str) -> Any:
    """Return the values of a spec's YAML.

    Raises:
        yaml.YAMLError: it is not valid, or has a key twice, or one that is no text; see `problem`.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _require_bounded(node)
        return cast("Any", loader).construct_document(node)
    except RecursionError:
        message = "it is nested too deeply"
        raise yaml.YAMLError(message) from None
    except OverflowError as error:
        message = f"it has a character that is none ({error})"
        raise yaml.YAMLError(message) from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        message = f"a value has a tag (`!!…`) that does not fit it ({error})"
        raise yaml.YAMLError(message) from error
    finally:
        cast("Any", loader).dispose()


def _require_bounded(root: yaml.Node) -> None:
    """Refuse a text whose aliases stand for far more than is written."""
    sizes = dict[int, int]()

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = 1  # of one that is within itself; see the check of its key
            parts: list[Any] = [] if isinstance(node, yaml.ScalarNode) else node.value
            if isinstance(node, yaml.MappingNode):
                parts = [part for pair in parts for part in pair]
            sizes[id(node)] = 1 + sum(map(size, parts))
        return sizes[id(node)]

    if size(root) > _MOST_VALUES:
        message = f"its aliases stand for more than {_MOST_VALUES:,} values; write less"
        raise yaml.YAMLError(message)


def problem(error: yaml.YAMLError) -> str:
    """Return what is wrong with a text of YAML, and in which line: what follows its file's name."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f": not valid YAML at all: {' '.join(str(error).split())}"
    found, mark = error.problem or "", error.problem_mark
    if isinstance(error, _RefusedError):
        return f", line {mark.line + 1}: {found}"
    if "expected ':'" in found and error.context_mark is not None:
        mark = error.context_mark  # it is noticed in the next line
    hint = next((f"; {text}." for words, text in _HINTS.items() if words in found), "")
    return f", line {mark.line + 1}: not valid YAML: {found.removeprefix('but ')}{hint}"


class WrittenValue:
    """A value of a spec's YAML as it was written, for sentences about it."""

    def __init__(self, node: yaml.Node) -> None:
        self.line = node.start_mark.line + 1
        is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
        self.reading = _reading(node) if is_plain and node.tag not in _TEXTS else None
        """What YAML made of it, if that is no text though it may have been meant as one."""
        if self.reading is not None and node.value:
            self.reading += ", unless it is in quotes"


def written_at(text: str, path: Sequence[str | int]) -> WrittenValue | None:
    """Return how a value is written, by the path of its keys; None if it is not in this text."""
    node: yaml.Node | None = cast("Any", yaml).compose(text, _Loader)
    for step in path:
        items: list[Any] = [] if node is None else node.value
        if isinstance(node, yaml.MappingNode):
            node = next((value for key, value in items if key.value == step), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = items[step] if step < len(items) else None
        else:
            return None
    return None if node is None else WrittenValue(node)


def _reading(node: yaml.Node) -> str:
    """Return what YAML reads a word as, in words."""
    kind = node.tag.removeprefix(_TAG)
    if kind == "null":
        return "it is empty" if not node.value else f"`{node.value}` is read as empty by YAML"
    if kind == "bool":
        value = str(yaml.SafeLoader.bool_values[node.value.lower()]).lower()
        return f"{_cut(node)} is read as {value} by YAML"
    what = {"int": "a number", "float": "a number", "timestamp": "a date"}.get(kind, f"a {kind}")
    return f"{_cut(node)} is read as {what} by YAML"


def _cut(node: yaml.Node) -> str:
    return f"`{node.value:.60}`"


def _refused(node: yaml.Node, message: str) -> _RefusedError:
    return _RefusedError(None, None, message, node.start_mark)
