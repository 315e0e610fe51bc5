"""The endpoints that change the collection as calls.

A request that is sent again after a lost answer must not count twice. What is equal when it is made twice (to set an
image whole, say) needs nothing for that; every other call has an idempotency key of its own.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from clip_retrieval.client.endpoints import Call, image_url
from clip_retrieval.contract.base import check_whole
from clip_retrieval.contract.changes import Change, Changed, ChangesAnswer, patch_request
from clip_retrieval.contract.collection import ImagesPage
from clip_retrieval.contract.image_input import ImageInput, read_image_input
from clip_retrieval.errors import InvalidChange
from clip_retrieval.records import Scalar, Split


class ChangeCalls:
    """One call per endpoint. Those with an image raise OSError where its file cannot be read.

    Those that name an image raise InvalidChange where the name is not UTF-8.
    """

    @staticmethod
    def images(after: str | None, limit: int) -> Call[ImagesPage]:
        params = {"limit": limit} if after is None else {"limit": limit, "after": after}
        return Call("GET", "/images", ImagesPage, params=params)

    @staticmethod
    def put_image(
        image_id: str,
        image: ImageInput,
        captions: Sequence[str],
        metadata: Mapping[str, Scalar] | None,
        split: Split | None,
        image_path: str | None,
        if_match: str | None,
    ) -> Call[Changed]:
        _require_text(image_id=image_id, image_path=image_path)
        form = _form(captions, metadata, split, image_path=image_path)
        headers = _conditions(if_match) | (_key() if if_match else {})
        return Call("PUT", image_url(image_id), Changed, upload=read_image_input(image), form=form, headers=headers)

    @staticmethod
    def add_image(
        image: ImageInput,
        image_id: str | None,
        captions: Sequence[str],
        metadata: Mapping[str, Scalar] | None,
        split: Split | None,
        image_path: str | None,
    ) -> Call[Changed]:
        has_name = isinstance(image, str | Path) or isinstance(getattr(image, "name", None), str)
        named = {} if image_id is not None or has_name else {"id_from": "content"}
        upload = read_image_input(image)
        _require_text(image_id=image_id, image_path=image_path, file=upload[0])
        form = _form(captions, metadata, split, image_path=image_path, image_id=image_id) | named
        return Call("POST", "/images", Changed, upload=upload, form=form, headers=_key())

    @staticmethod
    def patch_image(
        image_id: str,
        captions: Sequence[str] | None,
        metadata: Mapping[str, Scalar] | None,
        split: Split | None,
        if_match: str | None,
    ) -> Call[Changed]:
        _require_text(image_id=image_id)
        body = patch_request(captions, metadata, split).model_dump(exclude_unset=True)
        headers = _conditions(if_match) | (_key() if if_match else {})
        return Call("PATCH", image_url(image_id), Changed, json=body, headers=headers)

    @staticmethod
    def delete_image(image_id: str, if_match: str | None) -> Call[Changed]:
        _require_text(image_id=image_id)
        return Call("DELETE", image_url(image_id), Changed, headers=_conditions(if_match) | _key())

    @staticmethod
    def change(changes: Sequence[Change]) -> Call[ChangesAnswer]:
        body = {"changes": [change.model_dump(exclude_unset=True) for change in changes]}
        return Call("POST", "/changes", ChangesAnswer, json=body, headers=_key())


def _require_text(**names: str | None) -> None:
    """Raise InvalidChange for an id or a name that is no text: a file of another system may be called so."""
    for where, name in names.items():
        try:
            check_whole(name)
        except ValueError:
            raise InvalidChange(f"{where}: {name!a} is not UTF-8; rename the file, or give another id") from None


def _key() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


def _conditions(if_match: str | None) -> dict[str, str]:
    return {} if if_match is None else {"If-Match": if_match if if_match == "*" else f'"{if_match}"'}


def _form(
    captions: Sequence[str], metadata: Mapping[str, Scalar] | None, split: Split | None, **others: str | None
) -> dict[str, str]:
    form = {"captions": json.dumps(list(captions)), "metadata": json.dumps(dict(metadata or {}))}
    return form | {name: value for name, value in {"split": split, **others}.items() if value is not None}
