# What this project uses of mammoth, which is an extra.
from collections.abc import Callable
from typing import Any

class _Result:
    value: str

class images:
    @staticmethod
    def img_element(func: Callable[[Any], dict[str, str]]) -> object: ...

def convert_to_html(
    fileobj: Any,
    *,
    convert_image: object,
    include_embedded_style_map: bool,
    external_file_access: bool,
) -> _Result: ...
