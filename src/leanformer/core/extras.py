"""Packages that are not installed, and which of leanformer's extras installs them.

The base install runs exported models. Everything else needs an extra, as ``pyproject.toml`` says; the distribution's
metadata say the same wherever it is installed, and are read here.
"""

from __future__ import annotations

import re
from importlib.util import find_spec

from leanformer.core.errors import LeanformerError

_DISTRIBUTIONS = {"mlflow": "mlflow-skinny", "sklearn": "scikit-learn"}
"""Name of an import -> what is installed for it; all others of the extras are called alike."""
_IN_EXTRA = re.compile(r"""([\w.-]+).*;.*\bextra\s*==\s*["']([\w.-]+)["']""")


def extra_of(module: str) -> str | None:
    """The extra that installs a module: ``torch`` -> ``train``; None where none does.

    Args:
        module: As it is imported, without what lies inside it.
    """
    from importlib.metadata import requires  # takes a while to load, and is needed for an error alone

    wanted = _plain(_DISTRIBUTIONS.get(module, module))
    for requirement in requires("leanformer") or ():
        found = _IN_EXTRA.match(requirement)
        if found and _plain(found[1]) == wanted:
            return found[2]
    return None


def require(module: str) -> None:
    """Makes sure that a module can be imported, without the time that loading it takes.

    Raises:
        ModuleNotFoundError: As importing it would.
    """
    if find_spec(module) is None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def not_installed(error: ModuleNotFoundError, what: str) -> LeanformerError | None:
    """What to tell instead of an error, if a package is missing that an extra installs.

    Args:
        error: As Python raised it.
        what: What needs the package, such as ``leanformer run``.

    Returns:
        None where the module belongs to no extra, or is a part of a package that is there: that is no user's mistake.
    """
    extra = None if error.name is None else extra_of(error.name)
    if extra is None:
        return None
    return LeanformerError(
        f"{what} needs packages that are not installed ({error.name}); install them: pip install 'leanformer[{extra}]'"
    )


def _plain(name: str) -> str:
    """A distribution's name as all spellings of it come out."""
    return re.sub(r"[-_.]+", "-", name).lower()
