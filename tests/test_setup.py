"""What a newcomer finds: requirements, lock, conda, license, citation, Makefile, places."""

import ast
import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from ionas import __version__
from ionas.book import provenance
from ionas.book.folders import BOOK, project_root

ROOT = project_root()
LICENSE_2_0 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"  # its plain text
SYSTEMS = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}
PYTHONS = ("3.11", "3.12", "3.13")


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def read_yaml(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


@cache
def lock() -> list[tuple[Requirement, list[str]]]:
    """Requirements of the lock with their hashes; every line must be one of the two."""
    text = re.sub(r"^#.*\n", "", (ROOT / "requirements.lock").read_text("utf-8"), flags=re.M)
    entries = []
    for line in re.sub(r"\\\n", "", text).splitlines():
        requirement, *hashes = re.split(r"\s+--hash=", line.strip())
        entries.append((Requirement(requirement), hashes))
    return entries


def environments() -> list[dict[str, str]]:
    """Every system and Python that the lock is for."""
    return [
        {
            **default_environment(),
            "python_version": python,
            "python_full_version": f"{python}.9",
            "sys_platform": system,
            "platform_system": SYSTEMS[system],
            "os_name": "nt" if system == "win32" else "posix",
        }
        for system, python in product(SYSTEMS, PYTHONS)
    ]


def locked(environment: dict[str, str]) -> dict[str, str]:
    """Name -> version that the lock installs there."""
    found: dict[str, str] = {}
    for requirement, _ in lock():
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{name} is there twice"
            (pin,) = requirement.specifier
            found[name] = pin.version
    return found


def required() -> list[Requirement]:
    """All that pyproject.toml asks for, extras and build included, and requirements.in."""
    about = project()["project"]
    texts = [*about["dependencies"], *project()["build-system"]["requires"]]
    texts += [text for extra in about["optional-dependencies"].values() for text in extra]
    lines = (ROOT / "requirements.in").read_text("utf-8").splitlines()
    return [Requirement(text) for text in [*texts, *lines] if text and not text.startswith("#")]


# --- requirements ----------------------------------------------------------------------------

# Imported names that come with a library which is asked for.
WITH = {"cycler": "matplotlib", "matplotlib-inline": "ipykernel", "dask": "distributed"}
SHOWS = ("book", "plots", "cli", "__main__")  # what needs more than the package itself


def imported(*paths: Path) -> dict[str, Path]:
    """Libraries that files import, by the name of their distribution, with one such file."""
    owners, found = packages_distributions(), {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = "google.protobuf" if name.startswith("google.") else name.split(".")[0]
                if top not in sys.stdlib_module_names and top != "ionas":
                    owner = "protobuf" if top == "google.protobuf" else owners.get(top, [top])[0]
                    name = canonicalize_name(owner)
                    found[WITH.get(name, name)] = path
    return found


def asked(*extras: str) -> set[str]:
    about = project()["project"]
    texts = [*about["dependencies"]]
    texts += [text for name in extras for text in about["optional-dependencies"][name]]
    return {canonicalize_name(Requirement(text).name) for text in texts}


def test_every_library_that_is_imported_is_asked_for() -> None:
    package = ROOT / "ionas"
    files = {
        path: path.relative_to(package).parts[0].removesuffix(".py")
        for path in package.rglob("*.py")
    }
    shown = [path for path, room in files.items() if room in SHOWS]
    computing = imported(*files.keys() - set(shown))
    assert not computing.keys() - asked("dask"), computing
    showing = imported(*shown)
    assert not showing.keys() - asked("book"), showing
    assert asked() <= computing.keys() | showing.keys(), "asked for in vain"


# --- the lock --------------------------------------------------------------------------------


def test_every_version_of_the_lock_is_pinned_and_hashed() -> None:
    assert len(lock()) > 100
    for requirement, hashes in lock():
        assert [pin.operator for pin in requirement.specifier] == ["=="], requirement
        assert hashes, f"{requirement} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", text) for text in hashes), requirement


def test_the_lock_and_the_environment_name_no_address() -> None:
    for name in ("requirements.lock", "requirements.in", "environment.yml"):
        text = (ROOT / name).read_text("utf-8")
        found = re.findall(r"^[^#].*(?: @ |--\S*(?:index|links|host)).*$", text, re.M)
        assert not found, name
        assert not re.search(r"://|\bhttps?\b|\bwww\b", text), name


@pytest.mark.parametrize(
    "environment", environments(), ids=lambda e: f"{e['sys_platform']}-{e['python_version']}"
)
def test_the_lock_has_what_the_project_asks_for(environment: dict[str, str]) -> None:
    versions = locked(environment)
    for requirement in required():
        if requirement.marker is None or requirement.marker.evaluate(environment):
            version = versions.get(canonicalize_name(requirement.name))
            assert version, f"{requirement} is not in requirements.lock"
            assert requirement.specifier.contains(version), f"{requirement}, but {version}"


def test_python_versions_of_the_lock_are_those_of_the_project() -> None:
    wanted = SpecifierSet(project()["project"]["requires-python"])
    assert [f"3.{minor}" for minor in range(8, 20) if f"3.{minor}" in wanted] == list(PYTHONS)
    command = (ROOT / "requirements.lock").read_text("utf-8").splitlines()[1]
    assert f"--universal --python-version {PYTHONS[0]} --generate-hashes" in command


def test_jupyter_book_stays_below_2() -> None:
    asked = [text for text in required() if text.name == "jupyter-book"]
    assert asked
    assert not any(text.specifier.contains("2.0.0") for text in asked)
    for environment in environments():
        assert Version(locked(environment)["jupyter-book"]) < Version("2")


# --- conda -----------------------------------------------------------------------------------


def test_conda_users_get_the_same_versions() -> None:
    """Conda gives Python and pip alone, so all other versions come from the lock."""
    entries = read_yaml("environment.yml")["dependencies"]
    from_conda = dict(
        re.fullmatch(r"([\w.-]+)\s*(.*)", entry).groups()  # type: ignore[union-attr]
        for entry in entries
        if isinstance(entry, str)
    )
    assert set(from_conda) == {"python", "pip"}
    wanted = SpecifierSet(project()["project"]["requires-python"])
    assert SpecifierSet(from_conda["python"]) == wanted
    (pip,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    assert pip == ["-r requirements.lock"]  # pip takes nothing else beside what is hashed


def test_the_steps_that_environment_yml_names_give_the_package() -> None:
    comments = (ROOT / "environment.yml").read_text("utf-8")
    assert f"conda activate {read_yaml('environment.yml')['name']}" in comments
    options = "--no-index --no-deps --no-build-isolation -e ."
    for path in ("environment.yml", "README.md", "Makefile"):
        assert options in (ROOT / path).read_text("utf-8"), path
    built = Requirement(project()["build-system"]["requires"][0])
    assert canonicalize_name(built.name) in locked(environments()[0]), "--no-index would fail"


# --- license and citation --------------------------------------------------------------------


def test_the_license_is_the_standard_text() -> None:
    about = project()["project"]
    assert about["license"] == "Apache-2.0"
    (name,) = about["license-files"]
    assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == LICENSE_2_0


def test_the_citation_agrees_with_the_project() -> None:
    citation, about = read_yaml("CITATION.cff"), project()["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["version"] == about["version"] == __version__
    assert citation["license"] == about["license"]
    assert citation["keywords"] == about["keywords"]
    assert citation["authors"] == about["authors"]
    assert citation["title"].startswith(f"{about['name']}: ")
    assert citation["message"]


def test_the_citation_names_the_paper_as_the_book_does() -> None:
    from pybtex.database import parse_file

    paper = parse_file(str(ROOT / "book" / "references.bib")).entries["suchoparova2022"]
    (cited,) = read_yaml("CITATION.cff")["references"]
    assert cited["type"] == "conference-paper"
    assert cited["title"] == paper.fields["title"]
    assert str(cited["year"]) == paper.fields["year"]
    assert cited["collection-title"] == cited["conference"]["name"] == paper.fields["booktitle"]
    names = [
        {"family-names": str(author.rich_last_names[0]), "given-names": author.first_names[0]}
        for author in paper.persons["author"]
    ]
    assert cited["authors"] == names


# --- make ------------------------------------------------------------------------------------


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("make") is None:
        pytest.skip("no make on this machine")
    command = ["make", "--no-print-directory", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A folder in which nothing is set up yet."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("python", ["", "no-such-python", "false"])
@pytest.mark.parametrize("target", ["book", "test"])
def test_a_missing_or_unfit_python_is_told(fresh: Path, target: str, python: str) -> None:
    done = make(fresh, target, f"PYTHON={python}")
    assert done.returncode != 0
    wrong = f"{python} is none of them." if python else "none was found."
    assert done.stdout.splitlines() == [
        f"Python 3.11, 3.12 or 3.13 is needed, and {wrong}",
        f"Install one, or name one: make {target} PYTHON=/path/to/python3.12",
    ]
    assert not (fresh / ".venv").exists()


def test_make_says_what_it_does_and_where_to_look(fresh: Path) -> None:
    (fresh / ".venv").mkdir()
    (fresh / ".venv" / "installed").touch()
    said = make(fresh, "test", "--dry-run").stdout
    order = ["ruff check", "ruff format --check", "mypy"]
    places = [said.index(word) for word in [*order, "--dist loadfile", "all passed"]]
    assert places == sorted(places)
    assert said.rindex("_build/test") > said.index("all passed")
    said = make(fresh, "book", "--dry-run").stdout
    assert said.index("ionas run --profile digits") < said.index("ionas book digits")
    for name in ("two", "one"):
        (fresh / "results" / name).mkdir(parents=True)
        (fresh / "results" / name / "publication.json").touch()
    said = make(fresh, "book", "--dry-run").stdout
    assert "ionas book results/one results/two digits\n" in said


@pytest.mark.parametrize("target", ["book", "test"])
def test_the_environment_of_the_user_changes_nothing(
    fresh: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = make(fresh, target, "--dry-run").stdout
    assert said
    for name in ("PROFILE", "RUN", "PYTHON", "BIN", "TEST"):
        monkeypatch.setenv(name, "mine")
    assert make(fresh, target, "--dry-run").stdout == said
    assert "ionas book mine yours" in make(fresh, "book", "RUN=mine yours", "--dry-run").stdout


# --- workflow --------------------------------------------------------------------------------


def test_the_workflow_tests_every_python_of_the_project() -> None:
    workflow = read_yaml(".github/workflows/test.yml")
    for job in workflow["jobs"].values():
        assert job["strategy"]["matrix"]["python"] == list(PYTHONS)
    commands = [
        step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step
    ]
    assert "make test PYTHON=python" in commands
    (install,) = [command for command in commands if "pip install" in command]
    extras = re.search(r"\[(.*)\]", install)
    assert extras
    assert set(extras[1].split(",")) == set(project()["project"]["optional-dependencies"])


# --- places ----------------------------------------------------------------------------------


def a_book(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "below" / "it").mkdir(parents=True)
    return folder


def test_another_book_is_not_taken_for_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = a_book(tmp_path / "other", "_toc.yml", "_config.yml", "notebooks/01_intro.ipynb")
    monkeypatch.chdir(other / "below" / "it")
    assert project_root() == ROOT
    copy = a_book(other / "ionas", *BOOK)
    monkeypatch.chdir(copy / "below" / "it")
    assert project_root() == copy


def test_a_folder_that_lies_in_a_repository_has_not_its_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = {"revision": "unknown", "dirty": None}
    inside = tmp_path / "unpacked"
    inside.mkdir()
    me = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init"], [*me, "commit", "--allow-empty", "-m", "one"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    assert provenance.revision(inside) == unknown
    known = provenance.revision(tmp_path)
    assert len(known["revision"]) == 40
    (inside / "link").symlink_to(tmp_path, target_is_directory=True)
    assert provenance.revision(inside / "link") == {**known, "dirty": True}
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(inside))
    assert provenance.revision(inside) == unknown
    assert provenance.revision(tmp_path) == {**known, "dirty": True}
