"""YAML as specs have it."""

from __future__ import annotations

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, of which the last would count in silence."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - a given one
    ) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if doubled := next(
            (key for key in keys if isinstance(key, str) and keys.count(key) > 1), None
        ):
            message = f"the key {doubled} is given twice; remove one."
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """Return the values of a spec's YAML; a key that is given twice is a YAMLError."""
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
