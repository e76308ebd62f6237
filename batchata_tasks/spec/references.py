"""The files to which a spec refers: texts, and response models in the user's own code."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from pydantic import BaseModel

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.files import is_file
from batchata_tasks.common.installed import is_installed, place_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from types import ModuleType

_MODEL = "_batchata_model_"  # begins the names of models' modules
# of this process itself: who runs this package from its own folder has that among the roots
_KEPT_MODULES = ("__main__", "__mp_main__", __name__.partition(".")[0])
_lock = Lock()
_added_folders: list[str] = []  # to sys.path, by imports of models' files, those of the last first
_brought_modules: set[str] = set()  # by it, from these folders


def read_text(field: str, path: Path) -> str:
    """Return the text of a file that a key of the spec names.

    Raises:
        SpecError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        message = f"{field}: there is no file {path} (paths are relative to the folder you run in)."
        raise SpecError(message) from None
    except IsADirectoryError:
        message = f"{field}: {path} is a folder; name the {'spec ' if field == 'SPEC' else ''}file."
        raise SpecError(message) from None
    except (OSError, ValueError) as error:
        message = f"{field}: {path} cannot be read: {error}"
        raise SpecError(message) from error


def load_model(reference: str, roots: Iterable[Path], *, anew: bool = False) -> type[BaseModel]:
    """Load `file.py:Class` or `module:Class`, from the code roots alone.

    The real path (links followed) of the file must be in one of `roots`, and the class must be a
    Pydantic BaseModel. It is looked up by file, so nothing outside of the roots is ever imported.
    What the file imports itself is found as elsewhere, then beside it, then in the roots. `anew`:
    whatever lies there is imported anew, also what this process imported for another purpose, which
    may be older than the file is now.

    Raises:
        SpecError: any of this is not so.
    """
    place, sign, name = reference.rpartition(":")
    if not sign or not place or "\0" in place or not name.isidentifier():
        message = f"response_model: {reference!r} is not of the form file.py:Class or module:Class."
        raise SpecError(message)
    if not (allowed := [root.resolve() for root in roots]):
        message = (
            "response_model: BATCHATA_CODE_ROOTS names no folder; "
            "name the one that holds the model."
        )
        raise SpecError(message)
    path = _module_file(place, allowed)
    resolved = path.resolve()
    if not any(resolved.is_relative_to(root) for root in allowed):
        listed = ", ".join(str(root) for root in allowed)
        outside = f"response_model: {place} lies outside of the code roots ({listed})"
        message = f"{outside}; move it there or set BATCHATA_CODE_ROOTS."
        raise SpecError(message)
    if not is_file(resolved):
        message = f"response_model: there is no file {place}."
        raise SpecError(message)
    folders = [resolved.parent, *allowed]
    with _lock, _importing_from(folders, anew=anew):
        module = _import_file(resolved, reference)
    model = getattr(module, name, None)
    if not (inspect.isclass(model) and issubclass(model, BaseModel)):
        message = (
            f"response_model: {place} has no Pydantic model {name}; {_models_of(module, name)}."
        )
        raise SpecError(message)
    return model


def _models_of(module: object, name: str) -> str:
    """Return the words for the models that a module has, those of similar names first."""
    classes = {key: value for key, value in vars(module).items() if inspect.isclass(value)}
    models = [
        key
        for key, value in classes.items()
        if issubclass(value, BaseModel) and value is not BaseModel
    ]
    if not models:
        return "it has none"
    close = get_close_matches(name, models)
    return f"it has {', '.join([*close, *(model for model in models if model not in close)])}"


def _module_file(place: str, roots: list[Path]) -> Path:
    if place.endswith(".py"):
        return Path(place)
    if not all(step.isidentifier() for step in place.split(".")):
        message = f"response_model: {place!r} is neither a .py file nor a module name."
        raise SpecError(message)
    relative = Path(*place.split("."))
    candidates = [
        c
        for root in roots
        for c in (root / relative.with_suffix(".py"), root / relative / "__init__.py")
    ]
    return next((c for c in candidates if is_file(c)), candidates[0])


@contextmanager
def _importing_from(folders: list[Path], *, anew: bool) -> Generator[None]:
    """Let modules be imported from folders that are on no path yet, each time anew.

    The folders come last, so that no file there hides a package; and they stay, since a validator
    may import when it is called, behind those of a model that is loaded after it. What an earlier
    model brought in from them is forgotten: a model that is loaded again has to be checked by its
    helpers as they are now. `anew`: so is what was imported from the folders for another purpose;
    what the model does not import comes back, since other code of this process goes on with it.
    """
    for folder in _added_folders:
        if folder in sys.path:
            sys.path.remove(folder)
    for name in _brought_modules:
        _forget(name)
    others = _modules_in(folders) if anew else {}
    for name in others:
        _forget(name)
    importlib.invalidate_caches()  # of folders that were looked into a moment ago
    own = [path for path in map(str, folders) if path not in sys.path]
    _added_folders[:] = list(dict.fromkeys([*own, *_added_folders]))
    sys.path += _added_folders
    before = set(sys.modules)
    try:
        yield
    finally:
        for name, module in others.items():
            _restore(name, module)
        _brought_modules.clear()
        # not the model's own: of its class, forward references and code are looked up there
        brought = (name for name in sys.modules.keys() - before if not name.startswith(_MODEL))
        _brought_modules.update(name for name in brought if _is_of(sys.modules[name]))


def _modules_in(folders: list[Path]) -> dict[str, ModuleType]:
    """Return the user's own modules that were imported from some folders."""
    return {
        name: module
        for name, module in list(sys.modules.items())
        # a program may put anything there
        if isinstance(getattr(module, "__file__", None), str)
        and name.partition(".")[0] not in _KEPT_MODULES
        and not name.startswith(_MODEL)
        and not is_installed(module)
        and (place := place_of(module)) is not None
        and any(place.resolve().is_relative_to(folder) for folder in folders)
    }


def _forget(name: str) -> None:
    """Let a module be imported anew, also as an attribute of its package."""
    module = sys.modules.pop(name, None)
    package, _, short = name.rpartition(".")
    values = getattr(sys.modules.get(package), "__dict__", {})
    if module is not None and values.get(short) is module:
        del values[short]  # else `from package import it` finds it still


def _restore(name: str, module: ModuleType) -> None:
    """Undo `_forget` of a module that was not imported anew."""
    if sys.modules.setdefault(name, module) is module:
        package, _, short = name.rpartition(".")
        getattr(sys.modules.get(package), "__dict__", {}).setdefault(short, module)


def _is_of(module: ModuleType) -> bool:
    """Whether a module lies in the added folders, and not in an environment within them."""
    place = place_of(module)
    if place is None or is_installed(module):
        return False
    return any(place.is_relative_to(folder) for folder in _added_folders)


def _import_file(path: Path, reference: str) -> object:
    name = f"{_MODEL}{abs(hash(str(path)))}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        message = f"response_model: {path} cannot be loaded as Python."
        raise SpecError(message)
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # Pydantic resolves forward references through sys.modules
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())[:500]
        where = f"`python {path.name}`, run beside it, shows where"
        message = (
            f"response_model: {reference} fails at import: "
            f"{type(error).__name__}: {reason}; fix it ({where})."
        )
        raise SpecError(message) from error
    return module
