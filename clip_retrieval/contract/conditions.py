"""Conditions on the fields of a collection as a tree, in JSON or from a text.

    {"year": {"gte": 2020}, "or": [{"place": "Paris"}, {"not": {"tags": {"contains": "sea"}}}]}

An object is fulfilled where every entry of it is. ``and``, ``or`` and ``not`` are entries too: they have a list of
trees (``not`` also one tree alone), and no field can be meant, since no field has a list. ``not`` is fulfilled where
none of its trees is. A tree may be a text of the language in ``filter_language.py`` instead.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    RootModel,
    StrictBool,
    StrictInt,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)

from clip_retrieval.contract.base import Strict, check_whole, describe
from clip_retrieval.contract.filter_language import MAX_CONDITIONS, MAX_FILTER_TEXT, parse_filter
from clip_retrieval.contract.iso_dates import FORMS, period_of
from clip_retrieval.contract.json_size import excess, values_in
from clip_retrieval.errors import InvalidQuery

MAX_CONDITIONS_IN_ALL = 32
"""Conditions on fields in a whole tree."""
MAX_DEPTH = 20
"""Objects inside each other, as lists of ``and``, ``or`` and ``not`` nest them."""
MAX_CHOICES = 100
MAX_NAME = 1000
MAX_VALUE = 10_000
"""Characters of a value: as many as a change may give to a field."""
MAX_VALUES = 4096
"""Values of all JSON texts in a filter together."""
MAX_TEXTS, MAX_WRITTEN = 2_000_000, 10 * MAX_FILTER_TEXT
"""Characters of all texts in a filter together, and of those that are no JSON."""

_TOO_DEEP = f"has more than {MAX_DEPTH} objects inside each other"
_TOO_MANY = f"has more than {MAX_VALUES:,} values, which is the limit"

COMBINERS = ("and", "or", "not")

# Strict: a text that is too long for one would be taken for the number that its digits make.
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Text = Annotated[str, Field(max_length=MAX_VALUE)]


def _one_reason(kinds: str) -> WrapValidator:
    """One reason in place of one for each of the kinds that a value may be of."""

    def check(given: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(given)
        except ValidationError:
            reason = f"must be {kinds}"
            if isinstance(given, str):
                reason = f"must have at most {MAX_VALUE:,} characters"
            elif isinstance(given, float):
                reason = "must be a finite number"
            raise ValueError(reason) from None

    return WrapValidator(check)


Bound = Annotated[Number | Text, _one_reason("a text or a number")]
Value = Annotated[
    Text | StrictBool | StrictInt | Number | None,
    _one_reason('a text, a number, true, false or null (no value); several values are {"in": […]}'),
]
OPERATORS = ("in", "gt", "gte", "lt", "lte", "contains", "before", "after", "during")


def _a_date(given: str) -> str:
    if period_of(given) is None:
        raise ValueError(f"{given[:40]} is no date; write {FORMS}")
    return given


Date = Annotated[str, Field(max_length=MAX_NAME), AfterValidator(_a_date)]


class Condition(Strict):
    """Operators on one field; a value must fulfil all of them."""

    model_config = ConfigDict(populate_by_name=True)

    among: list[Value] | None = Field(None, alias="in", min_length=1, max_length=MAX_CHOICES)
    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None
    contains: str | None = Field(None, min_length=1, max_length=MAX_VALUE)
    before: Date | None = Field(None, description=f"Ends before this date begins: {FORMS}.")
    after: Date | None = Field(None, description="Begins after this date has ended.")
    during: Date | None = Field(None, description="Lies within this date.")

    @model_validator(mode="before")
    @classmethod
    def _known_operators(cls, given: Any) -> Any:
        if isinstance(given, dict):
            # pydantic's own error cannot show a name with a lone surrogate
            unknown = [str(name).encode("utf-8", "replace").decode() for name in given if name not in OPERATORS]
            if unknown:
                raise ValueError(f"unknown operator {unknown[0]}; the operators are {', '.join(OPERATORS)}")
            if not given or None in given.values():
                raise ValueError(
                    f"give an operator with a value that is not null; the operators are {', '.join(OPERATORS)}"
                )
        return given


class _NoTrees(list[Any]):
    """A list where no list can be."""


def _kind(given: Any) -> str:
    if isinstance(given, list) and not isinstance(given, _NoTrees):
        return "<filters>"
    return "<condition>" if isinstance(given, dict | Condition) else "<value>"


def _with_trees(given: Any) -> Any:
    """The object whose ``and``, ``or`` and ``not`` have lists; a text as the object that it means."""
    if isinstance(given, str):
        given = _of_text(given)
    if not isinstance(given, Mapping):
        return given
    return {
        name: trees if (trees := _trees(name, entry)) else _NoTrees(entry) if isinstance(entry, list) else entry
        for name, entry in given.items()
    }


def _trees(name: object, entry: object) -> list[Any] | None:
    if name not in COMBINERS:
        return None
    if isinstance(entry, list):
        if not entry or {} in entry:
            raise ValueError(f"{name} needs conditions; leave it out if there are none")
        return entry
    # An object of operators alone is a condition on a field of the name.
    is_tree = name == "not" and isinstance(entry, Mapping) and bool(entry) and not entry.keys() <= set(OPERATORS)
    return [entry] if is_tree else None


def _of_text(text: str) -> Any:
    """The object in a text: JSON, which begins with a bracket, or the language."""
    if not _is_json(text):
        return parse_filter(text)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"begins as JSON, but is none ({error})") from None
    except ValueError:  # Python's own limit
        raise ValueError("has a number of more digits than any field has") from None


def _is_json(text: str) -> bool:
    return text.lstrip().startswith("{")


def _or_a_text(schema: dict[str, Any]) -> None:
    form = dict(schema)
    schema.clear()
    schema["anyOf"] = [{"type": "string"}, form]


class FilterTree(RootModel[Annotated[dict[str, "Entry"], Field(max_length=MAX_CONDITIONS)]]):
    """A tree inside of another: conditions by field, all of which must be fulfilled; or a text that means such."""

    model_config = ConfigDict(frozen=True, json_schema_extra=_or_a_text)

    _read = model_validator(mode="before")(_with_trees)


_TREES = {
    "type": "array",
    "minItems": 1,
    "items": {},
    "description": "Of `and`, `or` and `not`: filters like the one around them.",
}
"""Generators of clients do not understand a schema that is inside of itself, nor objects in such a list."""

Entry: TypeAlias = Annotated[
    Annotated[Value, Tag("<value>")]
    | Annotated[Condition, Tag("<condition>")]
    | Annotated[list[FilterTree], WithJsonSchema(_TREES), Tag("<filters>")],
    Discriminator(_kind),
]

Conditions: TypeAlias = dict[str, Entry]
"""A tree that was validated: its texts are parsed, and ``not`` has a list."""

FilterTree.model_rebuild()


def _bounded(given: Any) -> Any:
    """Refuse what is too large, with the texts in it as what they mean, before the validation walks it: that makes an
    error of a kilobyte for each wrong value, and ends at Python's own limit of depth."""
    _Bounds().check(given, 1)
    return given


class _Bounds:
    """What is in one filter so far. What is wrong in a text is left to the validation, which says where it is."""

    def __init__(self) -> None:
        self._conditions = 0
        self._values, self._characters, self._written = MAX_VALUES, MAX_TEXTS, MAX_WRITTEN

    def check(self, given: object, depth: int) -> None:
        """Raises ValueError. ``depth`` is the number of objects that ``given`` is in, itself counted."""
        if isinstance(given, str):
            given = self._meant(given)
        if not isinstance(given, Mapping):
            return
        if depth > MAX_DEPTH:
            raise ValueError(_TOO_DEEP)
        for name, entry in given.items():
            check_whole(name)
            if name in COMBINERS and isinstance(entry, list):
                for tree in entry:
                    self.check(tree, depth + 1)
            elif name == "not" and isinstance(entry, Mapping):
                self.check(entry, depth + 1)
            else:
                self._conditions += 1
                self._check_condition(entry, depth + 1)

    def _check_condition(self, entry: object, depth: int) -> None:
        if isinstance(entry, Mapping):
            if depth > MAX_DEPTH:
                raise ValueError(_TOO_DEEP)
            for value in entry.values():
                self._check_condition(value, depth + 1)
        for value in entry if isinstance(entry, list) else [entry]:
            check_whole(value)

    def _meant(self, text: str) -> object:
        """What a text means; None where it means nothing."""
        check_whole(text)
        if self._conditions > MAX_CONDITIONS_IN_ALL:
            raise ValueError(f"has more than {MAX_CONDITIONS_IN_ALL} conditions, which is the most")
        self._characters -= len(text)
        if not _is_json(text):
            self._written -= len(text)
        if self._characters < 0 or self._written < 0:
            raise ValueError(
                f"has too much text: all texts in it may have {MAX_WRITTEN:,} characters together, and {MAX_TEXTS:,} "
                "where they are JSON"
            )
        if _is_json(text) and (too_much := excess(text.encode(), self._values)):
            raise ValueError(_TOO_DEEP if too_much == "depth" else _TOO_MANY)
        try:
            meant = _of_text(text)
        except ValueError:
            return None
        self._values -= values_in(meant, self._values)
        if self._values < 0:
            raise ValueError(_TOO_MANY)
        return meant


def _few_enough(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    if (count := sum(1 for _ in conditions_of(tree))) > MAX_CONDITIONS_IN_ALL:
        raise ValueError(f"has {count} conditions; the most is {MAX_CONDITIONS_IN_ALL}")
    return tree


Filter = Annotated[
    Conditions,
    AfterValidator(_few_enough),
    BeforeValidator(_with_trees, json_schema_input_type=FilterTree),
    BeforeValidator(_bounded, json_schema_input_type=FilterTree),
    Field(
        max_length=MAX_CONDITIONS,
        description="Conditions on metadata columns and `split`; a result fulfils all of them. A condition is a value "
        "(null for images without a value) or an object of `in`, `gt`, `gte`, `lt`, `lte`, `contains` "
        "(case-insensitive), `before`, `after`, `during` (dates). `and`, `or` and `not` have lists of such objects. "
        "The same as a text: `year >= 2020 and (place = Paris or not tags contains sea)`.",
    ),
]
"""The ``where`` of a request."""


_FILTER = TypeAdapter[Conditions](Filter)


def read_conditions(given: object) -> Conditions:
    """The tree that a ``where`` means. Raises InvalidQuery that says what is wrong with it, and where."""
    try:
        return _FILTER.validate_python(given)
    except ValidationError as error:
        raise InvalidQuery(describe({**one, "loc": ("where", *one["loc"])} for one in error.errors())) from None


def plain_conditions(given: object) -> dict[str, Any]:
    """The tree that a ``where`` means, as JSON has it. Raises InvalidQuery as ``read_conditions`` does."""
    plain: dict[str, Any] = _FILTER.dump_python(read_conditions(given), by_alias=True, exclude_defaults=True)
    return plain


def conditions_of(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each condition of a validated tree, at any depth, as field and value or ``Condition``."""
    for name, wanted in tree.items():
        if isinstance(wanted, list):
            for inner in wanted:
                yield from conditions_of(inner.root)
        else:
            yield name, wanted
