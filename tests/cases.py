"""Cases of tests that have many: some are quick tests, the others are among the slow ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow(*cases: Any) -> list[Any]:
    """Cases that are among the slow tests; a case of several values is a tuple."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long) for case in cases]


def some(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """All cases, of which these are quick tests."""
    cases = list(cases)
    assert all(case in cases for case in quick)
    return [case if case in quick else slow(case)[0] for case in cases]


def most(cases: Iterable[Any], *not_quick: Any) -> list[Any]:
    """All cases, of which all but these are quick tests."""
    cases = list(cases)
    assert all(case in cases for case in not_quick)
    return [slow(case)[0] if case in not_quick else case for case in cases]
