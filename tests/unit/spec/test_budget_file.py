"""A budget that many specs share is written once, and each spec names it."""

from __future__ import annotations

import json
import re
from platform import node
from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.errors import SpecError
from batchata_tasks.spec.loading import load_spec, overridden, parse_spec

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.spec.enrichment import EnrichmentSpec

GIVEN = {
    "name": "one",
    "source": "a.csv",
    "key": "id",
    "model": "claude-haiku-5-5",
    "prompt": "{{ text }}",
    "output": "out",
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def spec(tmp_path: Path, text: str | None, budget: object) -> EnrichmentSpec:
    """Return a spec beside a budgets.yaml of this text."""
    if text is not None:
        (tmp_path / "budgets.yaml").write_text(text)
    return parse_spec({**GIVEN, "budget": budget})


def test_a_name_stands_for_the_terms(tmp_path: Path) -> None:
    """A spec that names a budget is the spec that writes its terms out."""
    text = "nightly: {limit_usd: 20, period: day, timezone: Europe/Berlin}\nother: {limit_usd: 1}\n"
    terms = {"name": "nightly", "limit_usd": 20, "period": "day", "timezone": "Europe/Berlin"}
    named, written_out = spec(tmp_path, text, "nightly"), spec(tmp_path, None, terms)
    assert named.model_dump() == written_out.model_dump()
    file = f"{tmp_path / 'budgets.yaml'} on {node()}"
    assert (file_of(named), file_of(written_out)) == (file, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no file .*budgets.yaml to look up 'nightly' in, .*; make it, with a line"),
        (
            "nihgtly: {limit_usd: 1}\n",
            "there is no budget 'nightly' in .*perhaps 'nihgtly' is meant",
        ),
        ("x: {limit_usd: 1}\n", "there is no budget 'nightly' in .*; known are: x"),
        ("nightly: {limit_usd: -1}\n", "`budget.limit_usd`"),
        ("nightly: {limit: 1}\n", "`budget.limit`"),
        ("nightly: 5\n", "has to map names of budgets to their terms"),
        ("- nightly\n", "has to map names of budgets to their terms"),
        ("nightly: {limit_usd: 1}\nnightly: {limit_usd: 2}\n", "is given twice"),
        ("nightly: [\n", "budgets.yaml, line 2: not valid YAML"),
        ("no: {limit_usd: 1}\n", "line 1: `no` is read as false by YAML: put it in quotes"),
        ("nightly: {name: other, limit_usd: 1}\n", "gives 'nightly' a `name` within its terms"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(
    tmp_path: Path, text: str | None, words: str
) -> None:
    """An ignored limit is no limit: the spec is refused, with file, name and remedy."""
    with pytest.raises(SpecError, match=words) as caught:
        spec(tmp_path, text, "nightly")
    assert "\n" not in str(caught.value)


def written(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "budgets.yaml").write_text(text)


def spec_in(folder: Path) -> EnrichmentSpec:
    """Return a spec that is a file in a folder, and names the budget nightly."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "spec.json"
    path.write_text(json.dumps({**GIVEN, "budget": "nightly"}))
    return load_spec(path)


def file_of(spec: EnrichmentSpec) -> str | None:
    """Return the file of budgets that counts as the one that states the spec's budget."""
    assert spec.budget is not None
    return spec.budget.terms().file


def limit(spec: EnrichmentSpec) -> float:
    assert spec.budget is not None
    return spec.budget.limit_usd


@pytest.mark.parametrize("mark", [".git", "prefect.yaml"])
def test_it_is_looked_for_beside_the_spec_and_up_to_its_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    """A deployment runs from another folder; nothing above the repository counts."""
    repository, elsewhere = tmp_path / "repository", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    written(tmp_path, "nightly: {limit_usd: 9}\n")
    (repository / "team" / "specs").mkdir(parents=True)
    (repository / mark).touch()
    with pytest.raises(SpecError, match=r"there is no file .*specs/budgets\.yaml to look"):
        spec_in(repository / "team" / "specs")
    written(repository, "nightly: {limit_usd: 1}\nother: {limit_usd: 2}\n")
    assert limit(spec_in(repository / "team" / "specs")) == 1
    path = str(repository / "team" / "specs" / "spec.json")
    assert limit(overridden(path, {"limit": 5})) == 1
    assert limit(overridden(path, {"budget": "other"})) == 2


def test_the_working_folder_comes_last(tmp_path: Path) -> None:
    """A file that lacks the name hides no other one."""
    written(tmp_path, "nightly: {limit_usd: 3}\n")
    assert limit(spec_in(tmp_path / "specs")) == 3
    written(tmp_path / "specs", "other: {limit_usd: 1}\n")
    assert limit(spec_in(tmp_path / "specs")) == 3


def test_two_files_that_disagree_are_refused(tmp_path: Path) -> None:
    """Both are named; the same terms in both are none of a problem."""
    written(tmp_path, "nightly: {limit_usd: 3}\n")
    written(tmp_path / "specs", "nightly: {limit_usd: 3}\n")
    assert limit(spec_in(tmp_path / "specs")) == 3
    written(tmp_path / "specs", "nightly: {limit_usd: 5}\n")
    files = f"{tmp_path / 'specs' / 'budgets.yaml'} and {tmp_path / 'budgets.yaml'}"
    with pytest.raises(SpecError, match=f"{re.escape(files)} give 'nightly' different terms"):
        spec_in(tmp_path / "specs")


@pytest.mark.parametrize("where", ["", "specs"])
def test_a_link_that_leads_nowhere_is_told(tmp_path: Path, where: str) -> None:
    """Whoever made it counts on its limits; another file further up has others."""
    written(tmp_path / "specs", "nightly: {limit_usd: 3}\n")
    written(tmp_path, "nightly: {limit_usd: 3}\n")
    link = tmp_path / where / "budgets.yaml"
    link.unlink()
    link.symlink_to(tmp_path / "gone.yaml")
    with pytest.raises(SpecError, match=rf"{re.escape(str(link))} is a link that leads nowhere"):
        spec_in(tmp_path / "specs")


def cloned(folder: Path, origin: str) -> Path:
    """Return a folder that git cloned from an address."""
    (folder / ".git").mkdir(parents=True)
    config = f'[core]\n\tbare = false\n[remote "origin"]\n\turl = {origin}\n\tfetch = +x\n'
    (folder / ".git" / "config").write_text(f'{config}[branch "main"]\n\tremote = origin\n')
    return folder


@pytest.mark.parametrize(
    "origin",
    [
        "git@github.com:acme/enrich.git",
        "https://github.com/acme/enrich",
        "https://x-token:s3cr3t@github.com/acme/enrich.git",
        "ssh://git@github.com:22/acme/enrich.git/",
    ],
)
def test_a_file_is_the_same_in_every_checkout(tmp_path: Path, origin: str) -> None:
    """Workers clone a repository into a new folder for each run; no token of theirs is told."""
    folder = cloned(tmp_path / "checkout", origin)
    written(folder / "team", "nightly: {limit_usd: 3}\n")
    named = "team/budgets.yaml of github.com/acme/enrich"
    assert file_of(spec_in(folder / "team" / "specs")) == named
    changed = overridden(load_spec(folder / "team" / "specs" / "spec.json"), {"limit": 5})
    assert file_of(changed) == named


def test_two_servers_are_two_repositories(tmp_path: Path) -> None:
    """A port, or another host, is another server: its file may not change the limit of this one."""
    names = set[str]()
    for number, host in enumerate(("git.acme.com:8443", "git.acme.com:9443", "git.acme.com")):
        folder = cloned(tmp_path / str(number), f"https://{host}/team/enrich.git")
        written(folder, "nightly: {limit_usd: 3}\n")
        names.add(str(file_of(spec_in(folder))))
    assert names == {
        f"budgets.yaml of git.acme.com{port}/team/enrich" for port in ("", ":8443", ":9443")
    }


@pytest.mark.parametrize(
    "origin",
    [
        "../enrich",
        "./a.b/enrich",
        "/srv/git/enrich.git",
        "/srv/git.d/enrich.git",
        "file:///srv/git.d/enrich.git",
        "work:acme/enrich",
        "https://git/acme/enrich",
        "https://github.com/acme/enrich.git?private_token=s3cr3t",
        "https://a:b/c@github.com/acme/enrich",
    ],
)
def test_a_file_without_an_address_is_its_path(tmp_path: Path, origin: str) -> None:
    """An address that other checkouts may not share, or that is not understood, is none."""
    written(cloned(tmp_path / "checkout", origin), "nightly: {limit_usd: 3}\n")
    path = tmp_path / "checkout" / "budgets.yaml"
    assert file_of(spec_in(tmp_path / "checkout")) == f"{path} on {node()}"
