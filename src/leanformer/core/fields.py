"""Typed fields, which the study file, blocks' arguments and results share, and their mistakes as one-line messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError, to_jsonable_python

from leanformer.core import bounds
from leanformer.core.errors import LeanformerError, printable, quoted

OPERATIONAL = "operational"
"""Marks a key, in its ``Annotated`` type, that says how work is done and changes no outcome."""


class Section(BaseModel):
    """A part of the study file: unknown keys are errors, values are not coerced from other types.

    Raises:
        LeanformerError: A key is unknown or missing, or a value is wrong; the message names it.
    """

    # A key that is a word of Python, such as "from", has another name there, and its own in what is written.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, serialize_by_alias=True)

    def __init__(self, /, *arguments: object, **data: Any) -> None:
        name = type(self).__name__
        if arguments:
            raise LeanformerError(f"{name}: give its keys by name, not {quoted(arguments[0])}")
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise LeanformerError(f"{name}: {described(error, data)}") from None

    def settings(self) -> dict[str, Any]:
        """Everything that outcomes follow from, as plain data: all keys but those that are ``OPERATIONAL``."""
        plain = self.model_dump(mode="json", by_alias=False)
        settings = {}
        for name, field in type(self).model_fields.items():
            if OPERATIONAL not in field.metadata:
                value = getattr(self, name)
                settings[name] = value.settings() if isinstance(value, Section) else plain[name]
        return settings

    def default_settings(self) -> dict[str, Any]:
        """What ``settings`` says of keys that are left out; those that must be given are missing here."""
        defaults = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Section):
                defaults[name] = value.default_settings()
            elif not field.is_required():
                defaults[name] = to_jsonable_python(field.get_default(call_default_factory=True, validated_data={}))
        return defaults

    def __setattr__(self, name: str, value: object) -> None:
        _refuse_change(self, name)

    def __delattr__(self, name: str) -> None:
        _refuse_change(self, name)

    # So that pydantic makes the sections inside of a study itself, as it does where no class has an __init__ of its
    # own, and reports their mistakes with the whole path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


def _refuse_change(section: Section, name: str) -> NoReturn:
    raise LeanformerError(
        f"{type(section).__name__}: {quoted(name)} cannot be changed once the section is made; make another section"
    )


def described(error: ValidationError, data: Mapping[str, Any]) -> str:
    """The first mistake in one line: at which key, what is wrong, and what was given.

    Args:
        error: What pydantic says.
        data: What was given.
    """
    first = first_of(error, data)
    name = ".".join(keys_of(first))
    if first["type"] == "extra_forbidden":
        return f"unknown key {quoted(name)}"
    if first["type"] == "missing":
        return f"the key {quoted(name)} is missing"
    return f"{name}: {sentence(first)}" if name else sentence(first)


def first_of(error: ValidationError, data: Mapping[str, Any]) -> Any:
    """The mistake to report: the first one.

    Where a value may have several types, it is the mistake for the type that the value comes closest to. Where a key
    is missing and an unknown one stands beside it, it is the unknown one, which may be the missing one misspelled.

    Args:
        error: What pydantic says.
        data: What was given.
    """
    found = _nearest(error)
    place = found["loc"]
    if not place or not isinstance(place[-1], int):
        return found
    if found["type"] == "missing":  # of a list, which is too short then
        here = [other for other in error.errors() if other["type"] == "missing" and other["loc"][:-1] == place[:-1]]
        length = 1 + max(int(other["loc"][-1]) for other in here)
        return {**found, "type": "too_few", "loc": place[:-1], "msg": f"the list should have {length} items"}
    above: Any = data
    for key in keys_of(found)[:-1]:
        above = above.get(key) if isinstance(above, Mapping) else None
    # A list of one item may be given as the item alone, which then has no index.
    single = above is not None and not isinstance(above, Mapping | list | tuple)
    return {**found, "loc": place[:-1]} if single else found


def _nearest(error: ValidationError) -> Any:
    first, *others = error.errors()
    keys = keys_of(first)
    if first["type"] == "missing":
        unknown = [other for other in others if other["type"] == "extra_forbidden"]
        beside = [other for other in unknown if keys_of(other)[:-1] == keys[:-1]]
        return (*beside, first)[0]
    same = [other for other in others if keys_of(other)[: len(keys)] == keys]
    return max((first, *same), key=lambda mistake: (len(keys_of(mistake)), mistake["type"] not in _OTHER_TYPES))


_OTHER_TYPES = ("int_type", "float_type", "string_type", "bool_type", "tuple_type", "list_type", "literal_error")
"""Mistakes that say that a value is of another type altogether."""


def keys_of(mistake: Any) -> list[str]:
    """The keys that lead to a mistake, as in the file: without the names of types that pydantic adds among them."""
    branches = ("literal[", "constrained-", "tuple[", "function-", "nullable[", "union[", "lax-or-strict[", "dict[")
    return [str(part) for part in mistake["loc"] if not str(part).startswith(branches)]


def sentence(mistake: Any) -> str:
    """What is wrong at a key, and what was given."""
    message: str = mistake["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    for of_json, plain in _PLAIN:
        message = message.replace(of_json, plain)
    if mistake["type"] == "value_error":
        return message
    if mistake["type"] in ("too_short", "too_long"):
        return message.replace(" after validation", "")
    given = mistake["input"]
    if mistake["type"] == "bool_type":
        return f"{message} (true or false), not {quoted(given)}"
    hint = ""
    is_number = mistake["type"] in ("int_type", "float_type") and isinstance(given, str)
    if is_number and _YAML_1_1_NUMBER.fullmatch(given) and not _NUMBER.fullmatch(given):
        hint = " (write it in decimal digits, without leading zeros, colons and underscores)"
    elif is_number and _QUOTED_NUMBER.fullmatch(given):
        hint = " (write it without quotes)"
    return f"{message}, not {quoted(given)}{hint}"


_PLAIN = (
    ("a valid array", "a list"),
    ("an object", "a mapping of keys"),
    ("tuple should", "the list should"),
    ("dictionary should", "the mapping should"),
)
"""pydantic's words, of JSON and Python -> plain ones."""
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]*)?")
_QUOTED_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_YAML_1_1_NUMBER = re.compile(r"[-+]?[0-9][0-9a-fA-FxXoO_:.]*")
"""Texts that older YAML reads as a number, and often not as the one that people expect."""


def _printable(text: str) -> str:
    if printable(text) != text:
        raise ValueError(f"there are control characters in it: {quoted(text)}")
    return text


def _no_controls(text: str) -> str:
    _printable(text)
    if not text.strip():
        raise ValueError("it is empty; write a text, or leave the key out")
    return text


def _no_dots(text: str) -> str:
    if text.strip(".") != text:
        raise ValueError(f"no language is called {quoted(text)}; write its code, such as de")
    return text


def _no_truth(value: Any) -> Any:
    # True equals 1 in Python, and so would pass for it where certain numbers are asked for.
    if isinstance(value, bool | float):
        raise ValueError(f"input should be a whole number, not {quoted(value)}")
    return value


def no_repeats(what: str) -> Callable[[tuple[Hashable, ...]], tuple[Hashable, ...]]:
    """A check that a list's items are distinct.

    Args:
        what: What they are, such as ``seeds``.
    """

    def check(values: tuple[Hashable, ...]) -> tuple[Hashable, ...]:
        if len(set(values)) < len(values):
            raise ValueError(f"{what} must be distinct")
        return values

    return check


def one_of(names: Callable[[], Sequence[str]]) -> Callable[[Any], Any]:
    """A check that a value is one of a registry's names, which are looked up at each check.

    Args:
        names: Returns the names.
    """

    def check(value: Any) -> Any:
        known = [f"'{name}'" for name in names()]
        if not isinstance(value, str) or f"'{value}'" not in known:
            *first, last = known
            listed = f"{', '.join(first)} or {last}" if first else last
            raise PydanticCustomError(
                "literal_error", "Input should be {listed}", {"listed": listed}
            )  # as of a Literal
        return value

    return check


Whole = BeforeValidator(_no_truth)
"""For a choice of whole numbers: true is not 1 there."""
Text = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_no_controls)]
"""A path, a name: some printable text."""
Prefix = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
"""What stands before a text; it may be empty."""
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_no_controls)]
"""The name of a column or of a data set's configuration."""
Language = Annotated[
    str,
    Field(min_length=2, max_length=64, pattern=r"^[^/\\\\]*$"),
    AfterValidator(_no_controls),
    AfterValidator(_no_dots),
]
"""A language's code, which also ends the names of files."""
Positive = Annotated[float, Field(gt=0, le=1e9)]
NonNegative = Annotated[float, Field(ge=0, le=1e9)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Mean = Annotated[float, Field(ge=0, le=1)]
"""A mean of pixel values, which go from 0 to 1."""
Deviation = Annotated[float, Field(gt=0, le=10)]
"""A standard deviation of pixel values; 1 leaves them unchanged."""
Rate = Annotated[float, Field(gt=0, le=1e3)]
"""A learning rate."""
Count = Annotated[int, Field(ge=1, le=bounds.COUNT)]
"""A number of examples or subwords."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Epochs = Annotated[int, Field(ge=0, le=bounds.EPOCHS)]
SomeEpochs = Annotated[int, Field(ge=1, le=bounds.EPOCHS)]
Batch = Annotated[int, Field(ge=1, le=bounds.BATCH)]
"""Examples or subwords in a batch."""
Beam = Annotated[int, Field(ge=1, le=bounds.BEAM)]
"""Hypotheses kept for each sentence."""
Pixels = Annotated[int, Field(ge=1, le=bounds.PIXELS)]
"""A side of an image."""
Length = Annotated[int, Field(ge=1, le=bounds.TOKENS)]
"""Subwords of a sentence."""
