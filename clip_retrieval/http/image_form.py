"""The fields of the form that an image is uploaded with."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import Request
from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException

from clip_retrieval.contract.base import describe
from clip_retrieval.contract.changes import Captions, ImagePath, Metadata
from clip_retrieval.contract.json_size import read_json
from clip_retrieval.errors import InvalidChange
from clip_retrieval.http.known_names import unknown
from clip_retrieval.http.policy import VALUES_OF_CHANGE
from clip_retrieval.records import Scalar

M = TypeVar("M")

FIELDS = frozenset({"file", "captions", "metadata", "split"})

_CAPTIONS: TypeAdapter[list[str]] = TypeAdapter(Captions)
_NAME: TypeAdapter[str] = TypeAdapter(ImagePath)
_METADATA: TypeAdapter[dict[str, Scalar]] = TypeAdapter(Metadata)


@dataclass(frozen=True, slots=True)
class FormFields:
    """What is said of an image beside its file."""

    captions: Sequence[str]
    metadata: Mapping[str, Scalar]


async def read_form(
    request: Request, captions: Sequence[str], metadata: str, *, fields: frozenset[str] | set[str] = frozenset()
) -> FormFields:
    """The captions and the metadata of a form, which may also have ``FIELDS`` and ``fields`` and no other.

    Raises InvalidChange for a value that is not right, and 422 for a field that there is not.
    """
    await check_fields(request, FIELDS | fields, repeated={"captions"})
    texts: list[str] = _checked(_CAPTIONS, _caption_list(captions), "captions")
    return FormFields(texts, _metadata(metadata))


async def check_fields(request: Request, known: Collection[str], *, repeated: Collection[str] = ()) -> None:
    """Answer 422 for a form field that is not among ``known``, for one that is given twice without being in
    ``repeated``, and for one without a value, which FastAPI would take for one that is left out."""
    form = await request.form()
    for name in form:
        if name not in known:
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, unknown("form field", name, known))
        if name not in repeated and (count := len(form.getlist(name))) > 1:
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name}: one is enough, not {count}")
        if name != "file" and "" in form.getlist(name):
            raise HTTPException(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"{name}: it is empty; give it a value or leave it out"
            )


def file_name(given: str | None) -> str | None:
    """The name of an upload's file, which becomes that of its image; None for a file without one.

    Raises InvalidChange for one that no image can have.
    """
    return _checked(_NAME, given, "file name") if given else None


def _caption_list(given: Sequence[str]) -> list[Any]:
    """The captions of a repeated field, or the values of the JSON list that one field holds.

    Raises InvalidChange for a list that is too large, or that is one of several fields.
    """
    lists = [found for text in given if (found := _json_list(text)) is not None]
    if lists and len(given) > 1:
        raise InvalidChange(
            "captions: a JSON list is among several fields; send one list, or each caption as a field of its own"
        )
    return lists[0] if lists else list(given)


def _json_list(text: str) -> list[Any] | None:
    """None for a text that is no JSON: ``[sic] one`` is a caption."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found: list[Any] = read_json(text, VALUES_OF_CHANGE)
    except json.JSONDecodeError:
        return None
    except ValueError as error:
        raise InvalidChange(f"captions: {error}") from None
    return found


def _metadata(given: str) -> dict[str, Scalar]:
    try:
        value = read_json(given, VALUES_OF_CHANGE)
    except json.JSONDecodeError as error:
        raise InvalidChange(f'metadata: it is not JSON ({error}); send an object such as {{"year": 2024}}') from None
    except ValueError as error:
        raise InvalidChange(f"metadata: {error}") from None
    return _checked(_METADATA, value, "metadata")


def _checked(kind: TypeAdapter[M], value: object, name: str) -> M:
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        raise InvalidChange(describe({**one, "loc": (name, *one["loc"])} for one in error.errors())) from None
