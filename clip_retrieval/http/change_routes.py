"""Images are added, changed and removed while the collection is served; ``docs/live.md`` has the promises.

Every route waits until the change is on disk and visible in this process, and answers with its number.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import Depends, FastAPI, File, Form, Path, Request, UploadFile
from pydantic import ValidationError
from starlette.responses import Response

from clip_retrieval.access import cost
from clip_retrieval.contract.base import LONGEST_ID, IdText, ImageId, describe
from clip_retrieval.contract.changes import (
    MAX_CAPTIONS_TOGETHER,
    Change,
    Changed,
    ChangeItem,
    ChangesAnswer,
    ChangesRequest,
    ImagePath,
    PatchRequest,
)
from clip_retrieval.contract.json_size import values_in
from clip_retrieval.errors import ClipRetrievalError, InvalidChange
from clip_retrieval.http.any_text import IMAGE_ID
from clip_retrieval.http.audit import Auditor
from clip_retrieval.http.change_headers import IF_MATCH, IF_NONE_MATCH, IfMatch, Key, OnlyNew, entity_tags, refuse
from clip_retrieval.http.error_response import error_body
from clip_retrieval.http.exchange import CHANGE_ERRORS, Exchange, stages_together
from clip_retrieval.http.image_form import file_name, read_form
from clip_retrieval.http.policy import VALUES_OF_CHANGE
from clip_retrieval.http.query_routes import IMAGE
from clip_retrieval.http.request_context import caller_name, charge
from clip_retrieval.http.statuses import status_of
from clip_retrieval.live.edit import Edit
from clip_retrieval.search.query import Base64Image, FileImage
from clip_retrieval.serving.change_inputs import Wanted
from clip_retrieval.serving.change_work import Outcome, Reply, RequestKey
from clip_retrieval.serving.changes import Changes
from clip_retrieval.serving.state import ServerState

IdOfPath = Annotated[IdText, Path(description=f"Percent-encoded where it has to be. {LONGEST_ID}", min_length=1)]
Upload = Annotated[UploadFile, File(description=IMAGE)]
FormCaptions = Annotated[
    list[str], Form(description="The captions: the field is repeated, or one field has a JSON list of texts.")
]
FormMetadata = Annotated[str, Form(description="The values of the collection's fields, as a JSON object.")]
FormSplit = Annotated[Literal["train", "val", "test"] | None, Form(description="Drawn by the pixels if left out.")]
FormPath = Annotated[ImagePath | None, Form()]
FormId = Annotated[ImageId | None, Form()]
IdFrom = Annotated[
    Literal["name", "content"],
    Form(description="Without `image_id` the id is the name of the file, or the hash of the image's pixels."),
]


def add_change_routes(app: FastAPI, state: ServerState) -> None:
    def changes() -> Changes:
        """Before the body is looked at: a service that takes no changes says nothing of what is in them."""
        return state.require_changes()

    @app.put(
        f"/images/{IMAGE_ID}",
        response_model=Changed,
        responses={**CHANGE_ERRORS, 201: {"model": Changed, "description": "The image is new."}},
        summary="Set an image with its captions and fields",
    )
    async def put(
        taken: Annotated[Changes, Depends(changes)],
        request: Request,
        image_id: IdOfPath,
        if_match: IfMatch,
        only_new: OnlyNew,
        key: Key,
        file: Upload,
        captions: FormCaptions = [],  # noqa: B006 - FastAPI copies it
        metadata: FormMetadata = "{}",
        split: FormSplit = None,
        image_path: FormPath = None,
    ) -> Response:
        form = await read_form(request, captions, metadata, fields={"image_path"})
        wanted = Wanted(
            "put",
            image_id,
            FileImage(await file.read()),
            image_path,
            form.captions,
            form.metadata,
            split,
            if_match,
            "always" if only_new else None,
        )
        return await _one(state, taken, wanted, _request_key(key, "put", wanted), request)

    @app.post(
        "/images",
        response_model=Changed,
        responses={**CHANGE_ERRORS, 200: {"model": Changed, "description": "The same image is there already."}},
        summary="Add an image",
        status_code=HTTPStatus.CREATED,
    )
    async def post(
        taken: Annotated[Changes, Depends(changes)],
        request: Request,
        key: Key,
        file: Upload,
        captions: FormCaptions = [],  # noqa: B006 - FastAPI copies it
        metadata: FormMetadata = "{}",
        split: FormSplit = None,
        image_id: FormId = None,
        image_path: FormPath = None,
        id_from: IdFrom = "name",
    ) -> Response:
        refuse(request, IF_MATCH, IF_NONE_MATCH)
        form = await read_form(request, captions, metadata, fields={"image_path", "image_id", "id_from"})
        name = file_name(file.filename)
        identity = image_id or (name if id_from == "name" else None)
        path = image_path or name
        image = FileImage(await file.read())
        wanted = Wanted("put", identity, image, path, form.captions, form.metadata, split, must_be_new="unless equal")
        return await _one(state, taken, wanted, _request_key(key, "post", wanted), request)

    @app.patch(
        f"/images/{IMAGE_ID}",
        response_model=Changed,
        responses={**CHANGE_ERRORS},
        summary="Change the captions, fields or split of an image",
    )
    async def patch(
        taken: Annotated[Changes, Depends(changes)],
        request: Request,
        image_id: IdOfPath,
        body: PatchRequest,
        if_match: IfMatch,
        key: Key,
    ) -> Response:
        refuse(request, IF_NONE_MATCH)
        wanted = Wanted("patch", image_id, None, None, body.captions, body.metadata, body.split, if_match)
        return await _one(state, taken, wanted, _request_key(key, "patch", wanted), request)

    @app.delete(f"/images/{IMAGE_ID}", response_model=Changed, responses={**CHANGE_ERRORS}, summary="Remove an image")
    async def delete(
        taken: Annotated[Changes, Depends(changes)],
        request: Request,
        image_id: IdOfPath,
        if_match: IfMatch,
        key: Key,
    ) -> Response:
        refuse(request, IF_NONE_MATCH)
        wanted = Wanted("delete", image_id, if_match=if_match)
        return await _one(state, taken, wanted, _request_key(key, "delete", wanted), request)

    @app.post(
        "/changes",
        response_model=ChangesAnswer,
        responses={**CHANGE_ERRORS},
        summary="Up to 64 changes in one transaction",
    )
    async def several(
        taken: Annotated[Changes, Depends(changes)], request: Request, body: ChangesRequest, key: Key
    ) -> Response:
        refuse(request, IF_MATCH, IF_NONE_MATCH)
        exchange = Exchange(state, "changes")
        request_key = RequestKey(f"changes {key}", _digest(body.model_dump())) if key else None
        if request_key is not None and (kept := await taken.answered(request_key)) is not None:
            return exchange.respond_change(kept, {})
        checked = [_checked(change) for change in body.changes]
        wanted = [change for change in checked if isinstance(change, Wanted)]
        if (captions := sum(len(change.captions or ()) for change in wanted)) > MAX_CAPTIONS_TOGETHER:
            raise InvalidChange(
                f"changes: they have {captions} captions together, and one request may have {MAX_CAPTIONS_TOGETHER}; "
                "send them in several"
            )
        images = sum(change.image is not None for change in wanted)
        others = len(body.changes) - images
        await charge(request.scope, cost.of_changes(images=images, captions=captions, others=others))
        with state.traffic.places(texts=captions, images=images, caller=caller_name(request.scope)):
            prepared = iter(await taken.prepare(wanted))
        each = [next(prepared) if isinstance(change, Wanted) else change for change in checked]
        edits = [one[0] for one in each if isinstance(one, tuple)]
        audited = _Audited(Auditor.of(request.scope), edits)

        def respond(outcomes: Sequence[Outcome], sequence: int) -> Reply:
            audited.outcomes = outcomes
            made = iter(outcomes)
            results = [_item(next(made) if isinstance(one, tuple) else one) for one in each]
            return Reply(HTTPStatus.OK, ChangesAnswer(sequence=sequence, results=results).model_dump_json())

        reply = await taken.make(edits, respond, request_key, on_made=audited.note)
        return exchange.respond_change(reply, stages_together(one[1] for one in each if isinstance(one, tuple)))


@dataclass
class _Audited:
    """What one request changes, for the record of changes; nothing if its reply was that of an earlier request."""

    auditor: Auditor
    edits: Sequence[Edit]
    outcomes: Sequence[Outcome] = ()

    def note(self) -> None:
        for edit, outcome in zip(self.edits, self.outcomes, strict=False):
            if isinstance(outcome, Changed) and outcome.changed:
                self.auditor.note(
                    edit.op, image_id=outcome.image_id, sequence=outcome.sequence, created=outcome.created
                )


async def _one(
    state: ServerState, taken: Changes, wanted: Wanted, key: RequestKey | None, request: Request
) -> Response:
    """Make one change; what is wrong with it is the answer."""
    exchange = Exchange(state, "changes")
    if key is not None and (kept := await taken.answered(key)) is not None:
        return exchange.respond_change(kept, {})
    captions = len(wanted.captions or ())
    await charge(request.scope, cost.of_changes(images=int(wanted.image is not None), captions=captions))
    with state.traffic.places(texts=captions, caller=caller_name(request.scope)):
        [prepared] = await taken.prepare([wanted])
    if isinstance(prepared, ClipRetrievalError):
        raise prepared
    edit, stages = prepared
    audited = _Audited(Auditor.of(request.scope), [edit])

    def respond(outcomes: Sequence[Outcome], _: int) -> Reply:
        audited.outcomes = outcomes
        return _reply(edit, outcomes[0])

    reply = await taken.make([edit], respond, key, on_made=audited.note)
    return exchange.respond_change(reply, stages)


def _reply(edit: Edit, outcome: Outcome) -> Reply:
    """The reply to a request of one change. Raises what is wrong with it."""
    if not isinstance(outcome, Changed):
        raise outcome
    headers = {} if outcome.etag is None else {"ETag": f'"{outcome.etag}"'}
    if edit.must_be_new == "unless equal":
        headers["Location"] = f"/images/{quote(outcome.image_id, safe='').replace('.', '%2E')}"
    return Reply(HTTPStatus.CREATED if outcome.created else HTTPStatus.OK, outcome.model_dump_json(), headers)


def _checked(given: object) -> Wanted | ClipRetrievalError:
    if values_in(given, VALUES_OF_CHANGE) > VALUES_OF_CHANGE:
        return InvalidChange(f"the change has more than {VALUES_OF_CHANGE:,} values, which is the limit")
    try:
        change = Change.model_validate(given)
        tags = () if change.if_match is None else entity_tags([change.if_match], "if_match")
    except ValidationError as error:
        return InvalidChange(describe(error.errors()))
    except InvalidChange as error:
        return error
    return Wanted(
        change.op,
        change.image_id,
        None if change.image is None else Base64Image(change.image),
        change.image_path,
        change.captions,
        change.metadata,
        change.split,
        tags,
    )


def _item(outcome: Outcome | ClipRetrievalError) -> ChangeItem:
    if isinstance(outcome, Changed):
        return ChangeItem(status=HTTPStatus.CREATED if outcome.created else HTTPStatus.OK, result=outcome)
    status = status_of(outcome)
    return ChangeItem(status=status, error=error_body(status, str(outcome)))


def _request_key(key: str | None, route: str, wanted: Wanted) -> RequestKey | None:
    """The key of a request of one change, and the digest of all that it asks."""
    if key is None:
        return None
    image = "" if wanted.image is None else wanted.image.key
    fields = [wanted.captions, wanted.metadata, wanted.split, wanted.if_match, wanted.must_be_new]
    return RequestKey(f"{route} {key}", _digest([wanted.image_id, image, wanted.image_path, *fields]))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
