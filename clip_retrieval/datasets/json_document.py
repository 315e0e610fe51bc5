"""One JSON document that lists images with their captions.

COCO captions   {"images": [{"id", "file_name", "split"?, …}], "annotations": [{"image_id", "caption", …}]}
                (Chen et al., 2015, arXiv:1504.00325)
Karpathy        {"images": [{"filename", "filepath"?, "split", "sentences": [{"raw"}]}]}
                (https://cs.stanford.edu/people/karpathy/deepimagesent/)
list            [{"image": …, "caption": …}], also under a key such as "data"
mapping         {"a.jpg": "a caption", "b.jpg": ["two", "captions"]}, also of names without suffix, and to objects
                {"0001": {"file_name": "a.jpg", "caption": …}}; the key is a field then
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import TextIOWrapper
from pathlib import PurePosixPath
from typing import Any

from clip_retrieval.datasets.base import IMAGE_SUFFIXES
from clip_retrieval.datasets.code_page import Encoding
from clip_retrieval.datasets.column_names import ADDRESS_NAMES, folded, roles_of
from clip_retrieval.datasets.list_file import NotAList, OtherAnnotations
from clip_retrieval.datasets.place import SourceOptions
from clip_retrieval.datasets.row_roles import columns_in, roles_by_row
from clip_retrieval.datasets.rows import Row, row_of
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.datasets.taking import TakenFile
from clip_retrieval.datasets.text_file import NotText, encoding_of
from clip_retrieval.errors import SourceError
from clip_retrieval.records import Reject

_COCO_KEYS = {"id", "file_name", "split"}
_KARPATHY_KEYS = {"filename", "filepath", "split", "sentences", "sentids"}


@dataclass(frozen=True)
class JsonDocument:
    """A document that was understood. A ``ListFile``."""

    file: StoredFile
    encoding: Encoding
    layout: str
    has_captions: bool
    columns: dict[str, list[str]]
    options: SourceOptions

    @property
    def names(self) -> Sequence[str]:
        return [name for names in self.columns.values() for name in names]

    def taken(self) -> TakenFile:
        return TakenFile(self.file.name, self.encoding.name, guessed=not self.encoding.sure)

    def rows(self) -> Iterator[Row | Reject]:
        content, shown = _load(self.file, self.encoding.name), self.file.name
        match self.layout:
            case "coco":
                return _coco(shown, content)
            case "karpathy":
                return _karpathy(shown, content["images"])
            case "json mapping":
                return _mapping(shown, content)
            case _:
                return _objects(shown, _list_in(content), self.options)


def understand(file: StoredFile, options: SourceOptions) -> JsonDocument:
    """The document in ``file``. Raises NotAList with what was seen, and SourceError if the file cannot be read."""
    encoding = encoding_of(file, options.encoding)
    content = _load(file, encoding.name)
    images = content.get("images") if isinstance(content, dict) else None
    first = images[0] if isinstance(images, list) and images and isinstance(images[0], dict) else {}
    if "sentences" in first:
        columns = {"image": ["filename"], "caption": ["sentences.raw"], "split": ["split"]}
        return JsonDocument(file, encoding, "karpathy", True, columns, options)
    if "file_name" in first and isinstance(content.get("annotations"), list):
        if not any(isinstance(one, dict) and "caption" in one for one in content["annotations"]):
            raise OtherAnnotations("COCO annotations without captions")
        columns = {"image": ["images.file_name"], "caption": ["annotations.caption"]}
        if any(isinstance(one, dict) and one.get("split") is not None for one in images or ()):
            columns["split"] = ["images.split"]
        return JsonDocument(file, encoding, "coco", True, columns, options)
    if (objects := _list_in(content)) is not None:
        names = columns_in(objects, options)
        roles = roles_by_row(options)(names)
        if roles.image is None:
            raise NotAList(f"a list of objects without a key for the image (keys found: {', '.join(names)})")
        return JsonDocument(file, encoding, "json", bool(roles.captions), roles.by_role(), options)
    if isinstance(content, dict) and content and _is_mapping(content, PurePosixPath(file.name).stem):
        named = [key for key, value in content.items() if isinstance(value, dict) and not _is_named_by_key(key, value)]
        images = ["the keys"] * (len(named) < len(content)) + ["the names in the values"] * bool(named)
        columns = {"image": images, "caption": ["the values"]}
        return JsonDocument(file, encoding, "json mapping", True, columns, options)
    raise NotAList("JSON that is neither COCO, Karpathy's splits, a list of objects nor a mapping of names to captions")


def _is_mapping(content: Mapping[str, Any], stem: str) -> bool:
    """Whether the keys name images: by their suffixes, else by captions under each of them."""
    if all(PurePosixPath(key).suffix.lower() in IMAGE_SUFFIXES for key in content):
        return True
    of_captions = "caption" in folded(stem) and not roles_of([*content]).used
    return all(
        roles_of([*value]).captions if isinstance(value, dict) else of_captions and isinstance(value, str | list)
        for value in content.values()
    )


def _load(file: StoredFile, encoding: str) -> Any:
    try:
        with TextIOWrapper(file.open(), encoding=encoding) as opened:
            return json.load(opened)
    except UnicodeError as error:
        raise NotAList(f"not JSON: {NotText(file, encoding, error).reason}") from error
    except OSError as error:
        raise SourceError(f"{file.name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise NotAList(f"not JSON: {error}") from error


def _list_in(content: Any) -> list[dict[str, Any]] | None:
    """The objects of a list, or of the one list of objects in an object."""
    lists = list(content.values()) if isinstance(content, dict) else [content]
    found = [one for one in lists if isinstance(one, list) and one and all(isinstance(item, dict) for item in one)]
    return found[0] if len(found) == 1 else None


def _objects(shown: str, objects: Iterable[dict[str, Any]] | None, options: SourceOptions) -> Iterator[Row | Reject]:
    roles = roles_by_row(options)
    for number, values in enumerate(objects or (), 1):
        yield row_of(f"{shown} item {number}", values, roles(values))


def _mapping(shown: str, content: Mapping[str, Any]) -> Iterator[Row | Reject]:
    roles = roles_of(["image", "captions"])
    for name, captions in content.items():
        where = f"{shown} {name}"
        if not isinstance(captions, dict):
            yield row_of(where, {"image": name, "captions": captions}, roles)
        elif _is_named_by_key(name, captions):
            row = row_of(where, captions, replace(roles_of([*captions]), image=None))
            yield replace(row, image=name)
        else:
            row = row_of(where, captions, roles_of([*captions]))
            yield replace(row, metadata={"key": name, **row.metadata})


def _is_named_by_key(key: str, values: Mapping[str, Any]) -> bool:
    """Whether an object in a mapping is about the image that its key names, and names no file itself."""
    if PurePosixPath(key).suffix.lower() in IMAGE_SUFFIXES:
        return True
    return roles_of([name for name in values if folded(name) not in ADDRESS_NAMES]).image is None


def _coco(shown: str, content: Mapping[str, Any]) -> Iterator[Row | Reject]:
    captions: dict[object, list[tuple[object, object, object]]] = {}
    images: dict[object, dict[str, Any]] = {}
    for number, image in enumerate(content["images"], 1):
        where = f"{shown} image {number}"
        if not isinstance(image, dict) or not isinstance(identity := image.get("id"), int | str):
            yield Reject(where, "it is no object with an id that is a number or text", may_hide=True)
        elif images.setdefault(identity, image) is not image and images[identity] != image:
            reason = f"the id {identity!r} is that of {images[identity].get('file_name')!r} already"
            yield Reject(where, reason, may_hide=True)
    for number, one in enumerate(content["annotations"], 1):
        where = f"{shown} annotation {number}"
        if not isinstance(one, dict) or "caption" not in one:
            yield Reject(where, "the annotation has no caption")
        elif not isinstance(about := one.get("image_id"), int | str) or about not in images:
            yield Reject(where, f"there is no image of the id {one.get('image_id')!r}")
        else:
            language = one.get("lang", one.get("language"))
            captions.setdefault(about, []).append((one.get("id"), one["caption"], language))
    for identity, image in images.items():
        metadata = {name: value for name, value in image.items() if name not in _COCO_KEYS}
        for number, (caption_id, caption, language) in enumerate(captions.get(identity, [(None, None, None)])):
            texts = [] if caption is None and caption_id is None else [caption]
            yield Row(
                f"{shown} image {identity}",
                image.get("file_name"),
                texts,
                caption_id=caption_id,
                split=image.get("split"),
                metadata={} if number else metadata,
                language=language,
            )


def _karpathy(shown: str, images: Iterable[Any]) -> Iterator[Row | Reject]:
    for number, image in enumerate(images, 1):
        where = f"{shown} image {number}"
        if not isinstance(image, dict):
            yield Reject(where, "not a JSON object", may_hide=True)
            continue
        name = image.get("filename")
        folder = image.get("filepath")
        metadata = {key: value for key, value in image.items() if key not in _KARPATHY_KEYS}
        sentences = image.get("sentences") or []
        if not isinstance(sentences, list):
            yield Reject(where, "sentences is not a list; the image is kept without it")
            sentences = []
        captions = [one.get("raw") if isinstance(one, dict) else one for one in sentences]
        yield Row(
            where,
            f"{folder}/{name}" if isinstance(folder, str) and isinstance(name, str) and folder else name,
            captions,
            split=image.get("split"),
            metadata=metadata,
        )
