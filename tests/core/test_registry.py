"""What modules register under a name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from leanformer.core.registry import Registry


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package in which one module registers two items and another one, and one lies deeper."""
    directory = tmp_path / "wares"
    (directory / "deeper").mkdir(parents=True)
    (directory / "__init__.py").write_text(
        "from leanformer.core.registry import Registry\nWARES = Registry('wares', order=('late',))\n"
    )
    (directory / "a.py").write_text("from wares import WARES\nWARES.add('early', 1)\nWARES.add('middle', 2)\n")
    (directory / "b.py").write_text(
        "from wares import WARES\n\n\n@WARES.register('late')\ndef function() -> int:\n    return 3\n"
    )
    (directory / "deeper" / "__init__.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield directory
    for name in [name for name in sys.modules if name.split(".")[0] == "wares"]:
        del sys.modules[name]


def registry() -> Registry[object]:
    import wares  # type: ignore[import-not-found]  # the fixture writes it

    found: Registry[object] = wares.WARES
    return found


def test_modules_are_imported_when_somebody_asks(package: Path) -> None:
    wares = registry()
    assert "wares.a" not in sys.modules
    assert list(wares) == ["late", "early", "middle"]  # those with an order first, then by name
    assert (wares["early"], wares["middle"]) == (1, 2)
    assert wares["late"]() == 3  # type: ignore[operator]  # a function
    assert "nothing" not in wares
    assert len(wares) == 3


def test_a_new_module_is_all_that_a_new_item_takes(package: Path) -> None:
    (package / "c.py").write_text("from wares import WARES\nWARES.add('new', 4)\n")
    assert registry()["new"] == 4


def test_a_name_is_given_once(package: Path) -> None:
    (package / "c.py").write_text("from wares import WARES\nWARES.add('early', 5)\n")
    with pytest.raises(ValueError, match=r"^wares: the name 'early' is registered twice$"):
        list(registry())


def test_what_is_defined_again_takes_the_former_ones_place() -> None:
    wares: Registry[type] = Registry("wares")

    def define(number: int) -> type:
        class Ware:
            value = number

        return wares.add("ware", Ware)

    define(1)
    second = define(2)
    assert wares._items["ware"] is second
