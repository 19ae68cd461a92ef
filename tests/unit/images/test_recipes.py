"""Recipes: which images there are, what a name selects, and when an image counts as changed."""

import dataclasses

import pytest

from images.builder import recipes as module
from images.builder.errors import BuildError
from images.builder.recipes import PythonPackages, Recipe


@pytest.fixture(scope="module")
def recipes():
    return module.load_recipes()


def release(local="hummingfleet/engine:1-1", pin="1", overrides=()):
    return {"engine": {"local": local, "build": {"hummingbot": pin, "overrides": list(overrides)}}}


def test_every_image_of_the_newest_release_has_a_recipe(recipes):
    references = {recipe.reference for recipe in recipes.values()}
    assert {"hummingfleet/postgres:15-1", "hummingfleet/redis:7-1", "hummingfleet/sandbox:1"} <= references
    assert {"hummingfleet/engine:20260922-1", "hummingfleet/mosquitto:2-1", "hummingfleet/standin:1"} <= references


def test_every_recipe_has_what_it_installs(recipes):
    for recipe in recipes.values():
        assert (recipe.directory / "install.sh").is_file(), recipe.name
        assert recipe.packages is None or recipe.packages.lock.is_file(), recipe.name


def test_engines_shared_by_releases_are_built_once():
    builds = module.engine_builds({"1": release(overrides=["a>=1"]), "2": release(overrides=["a>=1"]), "3": {}})
    assert builds == [("hummingfleet/engine:1-1", "1", ("a>=1",))]


def test_one_image_name_for_two_engines_is_refused():
    with pytest.raises(BuildError, match="release 2: image hummingfleet/engine:1-1"):
        module.engine_builds({"1": release(pin="1"), "2": release(pin="2")})


def test_an_engine_that_no_release_has_can_be_asked_for(recipes):
    known = module.load_recipes(engines=["20260922", "20260616", "20260521"])
    assert known["engine-20260922"] == recipes["engine-20260922"], "a release's own recipe stands"
    trial = known["engine-20260616"]
    assert trial.reference == "hummingfleet/engine:20260616-compat"
    assert trial.packages.requirements == ("hummingbot==20260616",)
    assert trial.packages.overrides == recipes["engine-20260922"].packages.overrides
    assert known["engine-20260521"].packages.overrides == (*trial.packages.overrides, "xrpl-py<5")
    assert module.TRIAL_LOCKS_DIR in trial.packages.lock.parents, "nothing that is tried out joins the repository"
    assert trial not in module.select(known, ["engine"]), "engine stands for what the catalogue has"
    with pytest.raises(BuildError, match="no version of the engine"):
        module.load_recipes(engines=["../20260521"])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["redis"], ["base-bookworm", "redis"]),
        (["hummingfleet/redis:7-1", "redis"], ["base-bookworm", "redis"]),
        (["engine"], ["base-trixie", "engine-20260922"]),
        (["base-trixie"], ["base-trixie"]),
    ],
)
def test_names_and_references_select_a_recipe_after_its_base(recipes, names, expected):
    assert [recipe.name for recipe in module.select(recipes, names)] == expected


def test_no_name_selects_everything(recipes):
    assert {recipe.name for recipe in module.select(recipes, [])} == set(recipes)


def test_an_unknown_name_is_refused_with_the_known_ones(recipes):
    with pytest.raises(BuildError, match=r"no image is called nginx; there are base-bookworm"):
        module.select(recipes, ["nginx"])


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A base and an image on it, in a repository of their own."""
    monkeypatch.setattr(module, "ROOT", tmp_path)
    for name in ("base", "app"):
        (tmp_path / name / "files").mkdir(parents=True)
        (tmp_path / name / "install.sh").write_text("true\n")
    (tmp_path / "app" / "files" / "program").write_text("1\n")
    (tmp_path / "app" / "lock.txt").write_text("a==1\n")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "code.py").write_text("1\n")
    base = Recipe("base", "example/base:1", "bookworm", "", directory=tmp_path / "base")
    app = Recipe(
        "app", "example/app:1", "bookworm", "", base="base", directory=tmp_path / "app",
        packages=PythonPackages(lock=tmp_path / "app" / "lock.txt", python="3.11", requirements=("a",)),
        copies=((tmp_path / "source", "source"),),
    )  # fmt: skip
    return tmp_path, {"base": base, "app": app}


@pytest.mark.parametrize(
    "path",
    ["base/install.sh", "app/install.sh", "app/files/program", "app/lock.txt", "source/code.py", "source/new.py"],
)
def test_a_changed_input_changes_the_hash(tree, path):
    root, recipes = tree
    before = module.inputs_hash(recipes["app"], recipes)
    (root / path).write_text("changed\n")
    assert module.inputs_hash(recipes["app"], recipes) != before


def test_modes_and_configuration_count_as_inputs(tree):
    root, recipes = tree
    before = module.inputs_hash(recipes["app"], recipes)
    other = dataclasses.replace(recipes["app"], configuration=('CMD ["x"]',))
    assert module.inputs_hash(other, recipes) != before
    (root / "app" / "files" / "program").chmod(0o755)
    assert module.inputs_hash(recipes["app"], recipes) != before


@pytest.mark.parametrize("path", ["source/__pycache__/code.pyc", "source/tests/test_code.py", "app/readme.md"])
def test_caches_and_tests_are_no_inputs(tree, path):
    root, recipes = tree
    before = module.inputs_hash(recipes["app"], recipes)
    (root / path).parent.mkdir(exist_ok=True)
    (root / path).write_text("new\n")
    assert module.inputs_hash(recipes["app"], recipes) == before
