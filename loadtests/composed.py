"""What the search page asks of ``/search``, as the bodies of requests. Loads nothing of the service but its schemas.

The ids and the conditions come from the served collection itself, by ``/examples`` and ``/fields``, so that the same
users can visit any collection. Weights, page sizes and the forms of conditions are those of the page's script.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from clip_retrieval.contract.collection import Examples, FieldInfo, FieldsAnswer

PAGE, CAPTIONS = 24, 6
"""Results that the page asks for: images, captions."""
MORE, LESS = 1.0, -0.5
"""The weights of its buttons "More like this" and "Less like this"."""
CHOICES = 8
"""A field of at most so many values has a box to tick for each; a field of more has a line to type in."""

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Offered:
    """What a collection offers to ask for: ids of images, and ``where`` of one field each. Neither is empty."""

    image_ids: tuple[str, ...]
    conditions: tuple[Body, ...]

    @classmethod
    def by(cls, examples: Examples, fields: FieldsAnswer) -> "Offered":
        """Raises ValueError if the collection has no image or no field; every collection has the field ``split``."""
        ids = tuple(image.image_id for image in examples.images)
        conditions = tuple(condition for field in fields.fields for condition in _conditions(field))
        if not ids or not conditions:
            raise ValueError(
                f"composed searches need images and fields: /examples and /fields name {ids}, {conditions}"
            )
        return cls(ids, conditions)

    @classmethod
    def from_json(cls, text: str) -> "Offered":
        known = json.loads(text)
        return cls(tuple(known["image_ids"]), tuple(known["conditions"]))

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def _conditions(field: FieldInfo) -> Iterator[Body]:
    if field.type == "number":
        if field.min is not None and field.max is not None:
            yield {field.name: {"gte": (field.min + field.max) / 2}}
    elif field.type == "boolean":
        yield from ({field.name: found.value} for found in field.values)
    elif len(field.values) <= CHOICES:
        yield from ({field.name: {"in": [found.value]}} for found in field.values)
    else:
        yield from ({field.name: {"contains": str(found.value).split()[0]}} for found in field.values if found.value)


def request(*parts: Body, target: str = "images") -> Body:
    """The first page of a search for ``parts``."""
    return {"queries": list(parts), "target": target, "k": PAGE if target == "images" else CAPTIONS, "offset": 0}


def text(words: str, weight: float = 1.0) -> Body:
    return {"text": words, "weight": weight}


def with_image(words: str, offered: Offered, random: Random) -> Body:
    """Words, and an image of the collection that is added or subtracted."""
    return request(text(words), {"image_id": random.choice(offered.image_ids), "weight": random.choice((MORE, LESS))})


def without(words: str, others: str, random: Random) -> Body:
    """Words with a weight that the page's buttons can give, and others that are subtracted.

    The words weigh more than the others, so the two never cancel out, which the service rejects with 422: an encoder
    may give both the same vector.
    """
    return request(text(words, random.choice((1.0, 1.5, 2.0))), text(others, LESS))


def filtered(words: str, offered: Offered, random: Random) -> Body:
    """Words among the images that pass the condition of one field."""
    return {**request(text(words)), "where": random.choice(offered.conditions)}


def folded(words: str) -> Body:
    """Words, with near-duplicates folded into the best of them."""
    return {**request(text(words)), "dedupe": True}
