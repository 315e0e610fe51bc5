"""What was opened among the results of a search, told to a service that logs its searches."""

from typing import Annotated

from pydantic import ConfigDict, Field

from clip_retrieval.contract.base import Frozen, ImageId, Strict

SearchId = Annotated[
    str | None,
    Field(
        description="Names this search in `POST /clicks`, where the service logs its searches; null where it does not "
        "log this one."
    ),
]


class ClickRequest(Strict):
    """An image among the results of a search was opened."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"search_id": "9f86d081884c7d659a2feaa0c55ad015", "image_id": "images/animals-owl.jpg"}]
        }
    )

    search_id: str = Field(pattern="^[0-9a-f]{32}$", description="The `search_id` of the search's answer.")
    image_id: ImageId


class ClickLogged(Frozen):
    """The click will be in the log."""

    message: str
