"""How a module is called and what it returns, read from the source of its ``forward``."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass
from typing import Any

from torch import nn

from leanformer.core.errors import LeanformerError

HIDDEN_STATES = "hidden_states"
RESIDUAL = "residual"


@dataclass(frozen=True)
class CallForm:
    """The form of a module's calls.

    Args:
        parameters: The names of its positional parameters, in order.
        results: None: it returns a tensor alone. Else one entry for each element of the tuple that it returns, the
            tensor first: the name of the parameter that is passed on there, or None where nothing need be.
    """

    parameters: tuple[str, ...]
    results: tuple[str | None, ...] | None

    @property
    def hidden_states(self) -> str:
        """The name of the parameter that takes the hidden states: the first, where none has that name."""
        return HIDDEN_STATES if HIDDEN_STATES in self.parameters else self.parameters[0]

    @property
    def adds_residual(self) -> bool:
        """Whether the module adds the residual itself, which it is given (BLOOM's attentions and MLPs)."""
        return RESIDUAL in self.parameters

    def bind(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by their names."""
        return bound(self.parameters, arguments, named)

    def answer(self, output: Any, given: dict[str, Any]) -> Any:
        """An output in the form in which the module returns it.

        Args:
            output: The tensor that stands first, without a residual.
            given: The call's arguments, by their names.
        """
        if self.adds_residual:
            output = output + given[RESIDUAL]
        if self.results is None:
            return output
        return (output, *(None if name is None else given.get(name) for name in self.results[1:]))


PLAIN = CallForm((HIDDEN_STATES,), None)
"""The form of a module that is called with its hidden states first, or with a block's inputs."""


def bound(parameters: tuple[str, ...], arguments: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by their names.

    Args:
        parameters: The names of the positional parameters, in order.
        arguments: What is given by position.
        named: What is given by name.
    """
    return {**dict(zip(parameters, arguments, strict=False)), **named}


def parameters_of(kind: type[nn.Module]) -> tuple[str, ...]:
    """The names of the parameters that a class's ``forward`` takes by position."""
    return tuple(
        name
        for name, parameter in list(inspect.signature(kind.forward).parameters.items())[1:]
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    )


_FORMS: dict[type[nn.Module], CallForm] = {}
"""Those that were read already: a stack's layers are of one class."""


def form_of(kind: type[nn.Module]) -> CallForm:
    """The form of the calls of a class of modules.

    Raises:
        LeanformerError: Its source cannot be read, or it returns what cannot be told from its source.
    """
    if kind not in _FORMS:
        _FORMS[kind] = _read_form(kind)
    return _FORMS[kind]


def _read_form(kind: type[nn.Module]) -> CallForm:
    parameters = parameters_of(kind)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind.forward)))
    except (OSError, TypeError, SyntaxError) as error:
        raise LeanformerError(f"the source of {kind.__name__}.forward cannot be read ({error})") from error
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    tuples = _Tuples(function, parameters)
    forms = [tuples.made_by(node.value) for node in _returns(function)]
    if not parameters or not forms:
        raise LeanformerError(f"{kind.__name__}.forward takes or returns nothing")
    longest = _longest(forms)
    if None in forms and longest is not None:
        raise LeanformerError(f"{kind.__name__}.forward returns now a tensor, now a tuple")
    return CallForm(parameters, longest)


def _returns(function: ast.FunctionDef) -> list[ast.Return]:
    """The returns of a function, without those of functions inside it."""
    found: list[ast.Return] = []
    left: list[ast.AST] = list(function.body)
    while left:
        node = left.pop()
        if isinstance(node, ast.Return):
            found.append(node)
        elif not isinstance(node, ast.FunctionDef | ast.Lambda):
            left.extend(ast.iter_child_nodes(node))
    return found


class _Tuples:
    """What tuples the expressions of a function make.

    Args:
        function: The function.
        parameters: The names of its positional parameters.
    """

    def __init__(self, function: ast.FunctionDef, parameters: tuple[str, ...]) -> None:
        self._parameters = parameters
        self._assigned: dict[str, list[ast.expr]] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        self._assigned.setdefault(target.id, []).append(node.value)

    def made_by(self, value: ast.expr | None, seen: frozenset[str] = frozenset()) -> tuple[str | None, ...] | None:
        """The longest tuple that an expression may make, as of ``CallForm.results``; None where it makes none.

        Args:
            value: The expression.
            seen: Variables that are being looked up, so that those that are made of themselves come to an end.
        """
        if isinstance(value, ast.Tuple):
            return tuple(
                item.id if isinstance(item, ast.Name) and item.id in self._parameters else None for item in value.elts
            )
        if isinstance(value, ast.IfExp):
            return _longest([self.made_by(part, seen) for part in (value.body, value.orelse)])
        if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
            left = self.made_by(value.left, seen)
            return None if left is None else (*left, *(self.made_by(value.right, seen) or ()))
        if isinstance(value, ast.Name) and value.id not in seen and value.id not in self._parameters:
            return self._variable(value.id, seen | {value.id})
        return None

    def _variable(self, name: str, seen: frozenset[str]) -> tuple[str | None, ...] | None:
        """The longest tuple that a variable may hold: one that is assigned to it, with all that is added to that."""
        assigned = self._assigned.get(name, [])
        extended = [
            value.right
            for value in assigned
            if isinstance(value, ast.BinOp) and isinstance(value.left, ast.Name) and value.left.id == name
        ]
        whole = _longest([self.made_by(value, seen) for value in assigned])
        if whole is None:
            return None
        return (*whole, *(entry for value in extended for entry in self.made_by(value, seen) or ()))


def _longest(tuples: list[tuple[str | None, ...] | None]) -> tuple[str | None, ...] | None:
    return max(tuples, key=lambda one: 0 if one is None else len(one), default=None)
