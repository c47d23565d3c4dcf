"""Names of passes and who owns them."""

from __future__ import annotations

import sys
import textwrap

import pytest
from onnx_ir.passes import common

from modelexport_passes.errors import ConfigError, MissingDependencyError
from modelexport_passes.registry import BUILTIN, Registry

ONE_PASS = """
import onnx_ir as ir

class {name}(ir.passes.InPlacePass):
    def call(self, model):
        return ir.passes.PassResult(model, False)
"""


@pytest.fixture
def folder(tmp_path):
    """A directory of passes; returns its path and a function that writes a file into it."""

    def write(name: str, text: str):
        (tmp_path / name).write_text(textwrap.dedent(text))
        return tmp_path

    return write


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """Installs a distribution with one module and entry points, as pip would lay it out."""

    def install(dist: str, points: str, module: str):
        site = tmp_path / "site"
        (site / f"{dist}-1.2.dist-info").mkdir(parents=True)
        (site / f"{dist}-1.2.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.2\n")
        (site / f"{dist}-1.2.dist-info" / "entry_points.txt").write_text(f"[modelexport_passes.passes]\n{points}\n")
        (site / f"{dist}_module.py").write_text(module)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, f"{dist}_module", raising=False)

    return install


@pytest.mark.parametrize("name", BUILTIN)
def test_every_built_in_name_is_a_pass_of_that_name(name):
    """The table of names, the classes and their own names agree."""
    assert Registry().load(name).name == name  # pyright: ignore[reportAttributeAccessIssue]


def test_a_file_in_a_pass_directory_is_named_by_its_stem(folder):
    """One class that the file itself defines; imported classes and files with an underscore do not count."""
    folder("_shared.py", "raise RuntimeError")
    path = folder("mine.py", "from onnx_ir.passes.common import RemoveUnusedNodesPass\n" + ONE_PASS.format(name="Mine"))
    registry = Registry([path])
    assert registry.load("mine").__name__ == "Mine"
    assert registry.load("mine") is registry.load("mine")
    assert [entry.owner for entry in registry.entries()][-1] == str(path / "mine.py")


def test_files_of_one_stem_in_two_places_are_two_modules(tmp_path):
    """Two pipelines in one process may each have their own ``mine``."""
    for name in ("A", "B"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(ONE_PASS.format(name=name))
    assert [Registry([tmp_path / name]).load("mine").__name__ for name in ("A", "B")] == ["A", "B"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "expected exactly one pass class, found none"),
        (ONE_PASS.format(name="A") + ONE_PASS.format(name="B"), "expected exactly one pass class, found A, B"),
        ("def f(:", "fails on import: SyntaxError"),
        ("1 / 0", "fails on import: ZeroDivisionError: division by zero"),
        ("import onnx_ir as ir\nclass P(ir.passes.InPlacePass): ...", "is abstract; it lacks call"),
    ],
)
def test_a_pass_file_that_is_none_says_why(folder, text, message):
    """The file, and what is wrong with it."""
    path = folder("mine.py", text)
    with pytest.raises(ConfigError, match=r"mine") as caught:
        Registry([path]).load("mine")
    assert message in str(caught.value)


def test_a_name_with_two_owners_is_an_error_that_names_both(tmp_path):
    """Whether built-in against file or file against file."""
    for name, stem in (("a", "twice"), ("b", "twice"), ("c", "outline")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{stem}.py").write_text(ONE_PASS.format(name="P"))
    with pytest.raises(ConfigError, match=r"'twice' has two owners: .*a/twice\.py and .*b/twice\.py"):
        Registry([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(ConfigError, match=r"'outline' has two owners: built-in and .*c/outline\.py"):
        Registry([tmp_path / "c"])


def test_a_plug_in_is_named_by_its_distribution_and_entry_point(plug_in):
    """``dist/name``, found through the installed metadata and imported on demand."""
    plug_in("acme", "shrink = acme_module:Shrink", ONE_PASS.format(name="Shrink"))
    registry = Registry()
    assert registry.load("acme/shrink").__name__ == "Shrink"
    assert registry.entry("acme/shrink").owner == "acme 1.2"


def test_a_broken_plug_in_breaks_only_who_asks_for_it(plug_in):
    """What it lacks is a missing dependency of that pass; the others are there."""
    plug_in("acme", "shrink = acme_module:Shrink", "import surely_not_installed")
    registry = Registry()
    assert registry.load("inject-tags")
    with pytest.raises(MissingDependencyError, match=r"'acme/shrink' .* needs 'surely_not_installed'"):
        registry.load("acme/shrink")


def test_an_import_path_names_any_pass_class():
    """Passes of onnx_ir need no registration; what is no pass is refused."""
    name = "onnx_ir.passes.common:RemoveUnusedNodesPass"
    assert Registry().load(name) is common.RemoveUnusedNodesPass
    with pytest.raises(ConfigError, match=r"has no 'RemoveUnusedNodes'; did you mean 'RemoveUnusedNodesPass'\?"):
        Registry().load("onnx_ir.passes.common:RemoveUnusedNodes")
    with pytest.raises(ConfigError, match=r"expected a subclass of onnx_ir\.passes\.PassBase"):
        Registry().load("onnx_ir:Model")


def test_an_unknown_name_is_answered_with_the_nearest():
    """And with all names there are."""
    with pytest.raises(
        ConfigError, match=r"unknown pass 'inject-tag'; .*recover-scopes, .*did you mean 'inject-tags'\?"
    ):
        Registry().load("inject-tag")
