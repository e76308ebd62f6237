"""Errors are sentences, in one tree, and cross process borders."""

from __future__ import annotations

import pickle
import re

import pytest

from batchata_tasks.common import errors
from batchata_tasks.common.errors import BatchataError, TransientError

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, BatchataError)
]


def drawn() -> dict[str, str]:
    """Read the tree in the module's docstring: class → parent."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"^([│ ├└─]*)([A-Z]\w+Error)\b", line):
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            if depth:
                parents[found[2]] = path[depth - 1]
    return parents


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_can_be_pickled(kind: type[BatchataError]) -> None:
    """A workflow engine carries errors between processes: class, sentence and facts arrive."""
    error = kind("field: what is wrong; what to do.")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error) == "field: what is wrong; what to do."
    assert vars(copy) == vars(error)


def test_the_wait_that_a_provider_asked_for_survives() -> None:
    """`retry_after` crosses a process border, and is no part of the sentence."""
    copy = pickle.loads(pickle.dumps(TransientError("slow down", 7.5)))
    assert (str(copy), copy.retry_after) == ("slow down", 7.5)


def test_the_tree_is_as_drawn() -> None:
    """The docstring's tree is what callers catch by: it shows every class under its parent."""
    assert {
        kind.__name__: kind.__bases__[0].__name__ for kind in CLASSES if kind is not BatchataError
    } == drawn()


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_says_when_it_is_raised(kind: type[BatchataError]) -> None:
    """Each class has its own docstring."""
    assert kind.__doc__
    assert kind.__doc__ != BatchataError.__doc__ or kind is BatchataError
