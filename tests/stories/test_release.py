"""`make release`: a version line, a heading, a commit and a tag; or one sentence and no change."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SOMEBODY = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{role}_NAME": "somebody" for role in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{role}_EMAIL": "somebody@example.com" for role in ("AUTHOR", "COMMITTER")},
}


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **SOMEBODY}
    environment.pop("VERSION", None)
    return subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def git(folder: Path, *words: str) -> str:
    done = command(folder, "git", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a small project with two releases; the newest is not the last in the alphabet."""
    folder = tmp_path / "project"
    (folder / "scripts").mkdir(parents=True)
    for name in ("Makefile", "scripts/release"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "pyproject.toml").write_text('[project]\nversion = "1.10.0"\n')
    (folder / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- New.\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "All")
    for tag in ("v1.9.0", "v1.10.0", "vacation"):
        git(folder, "tag", tag)
    return folder


def state(project: Path) -> tuple[str, ...]:
    return git(project, "rev-parse", "HEAD"), git(project, "tag"), git(project, "status", "-s")


@pytest.mark.parametrize("version", ["1.10.1", "1.11.0", "2.0.0"])
def test_a_release_is_committed_and_tagged(version: str, project: Path) -> None:
    """The version line and the changelog's heading are in the commit that has the tag."""
    done = command(project, "make", "release", f"VERSION={version}")
    assert done.returncode == 0, done.stderr
    assert "git push --follow-tags" in done.stdout
    assert git(project, "show", f"v{version}:pyproject.toml").endswith(f'version = "{version}"')
    assert f"## Unreleased\n\n## {version} (" in git(project, "show", "main:CHANGELOG.md")
    assert git(project, "status", "-s") == ""


@pytest.mark.parametrize(
    "version",
    [
        "",
        "1.2",
        "v2.0.0",
        "02.0.0",
        "2.01.0",
        "2.0.00",
        "2.0.0\n2.0.1",
        "2.0.0\n",
        "1.10.0",
        "1.9.9",
        "0.99.99",
        '2.0.0"; touch ran; "',
        "2.0.0$(shell touch ran)",
        "2.0.0`touch ran`",
    ],
)
def test_another_version_is_refused(version: str, project: Path) -> None:
    """What is no version, or not above the newest, changes nothing and is run by nobody."""
    before = state(project)
    done = command(project, "make", "release", f"VERSION={version}")
    assert done.returncode == 2
    sentence = done.stderr.splitlines()[0]
    assert sentence.startswith(
        ("VERSION: '", f"release: {version} is not above the newest tag, v1.10.0")
    )
    assert state(project) == before


def refused(project: Path) -> str:
    """Return why a release is refused, having checked that it changed nothing."""
    before = state(project)
    done = command(project, "make", "release", "VERSION=2.0.0")
    assert done.returncode == 2
    assert state(project) == before
    return done.stderr


def test_a_release_needs_a_branch(project: Path) -> None:
    """Without one, the push that the script advises would publish nothing."""
    git(project, "switch", "-q", "--detach")
    assert "no branch is checked out" in refused(project)


def test_a_release_needs_a_clean_tree(project: Path) -> None:
    """What is not committed would not be released."""
    (project / "new.txt").write_text("new")
    assert "changes that are not committed" in refused(project)


def test_the_first_release(project: Path) -> None:
    """Without a tag, any version is new."""
    for tag in ("v1.9.0", "v1.10.0"):
        git(project, "tag", "-d", tag)
    assert command(project, "make", "release", "VERSION=0.1.0").returncode == 0
    assert "v0.1.0" in git(project, "tag")
