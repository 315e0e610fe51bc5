"""What a change makes of an image, as a function of the image before."""

from dataclasses import replace

import numpy as np
import pytest

from clip_retrieval.build.splits import split_of_one
from clip_retrieval.errors import ImageChanged, ImageMissing, ImageTaken, InvalidChange
from clip_retrieval.live.change import LiveCaption, LiveImage
from clip_retrieval.live.edit import Edit, EncodedImage, edited, merged, normalised
from clip_retrieval.live.etag import etag_of
from clip_retrieval.records import SPLITS

RATIOS = (0.7, 0.15, 0.15)
VECTOR = np.array([1, 0], np.float32)
OTHER = np.array([0, 1], np.float32)

BEFORE = LiveImage(
    image_id="a",
    image_path="photos/a.jpg",
    content_hash="h1",
    width=4,
    height=3,
    split="val",
    metadata={"year": 1999, "place": "here"},
    captions=(LiveCaption("a#0", "one"), LiveCaption("own", "two"), LiveCaption("a#3", "two")),
    vector=VECTOR,
    caption_vectors=np.stack([VECTOR, OTHER, OTHER]),
    thumbnail=None,
)
NEW = EncodedImage("h2", 8, 6, OTHER, None)


def put(**options: object) -> Edit:
    return Edit("put", "a", NEW, **options)  # type: ignore[arg-type]


def patch(**options: object) -> Edit:
    return Edit("patch", "a", **options)  # type: ignore[arg-type]


def after(current: LiveImage | None, edit: Edit) -> LiveImage:
    image = edited(current, edit, RATIOS, 0)
    assert image is not None
    return image


def test_a_new_image_has_what_is_given_and_its_id_as_its_name() -> None:
    image = after(None, put(captions=("x",), caption_vectors=VECTOR[None], metadata={"year": 1}))
    assert (image.image_id, image.image_path, image.content_hash) == ("a", "a", "h2")
    assert (image.width, image.height, image.metadata) == (8, 6, {"year": 1})
    assert image.captions == (LiveCaption("a#0", "x"),)
    assert image.split == split_of_one("h2", RATIOS, 0)


def test_a_put_replaces_captions_and_fields_and_keeps_name_and_split() -> None:
    image = after(BEFORE, put())
    assert (image.image_path, image.split) == ("photos/a.jpg", "val")
    assert (image.captions, image.metadata, image.caption_vectors.shape) == ((), {}, (0, 2))
    named = after(BEFORE, put(image_path="b.jpg", split="test"))
    assert (named.image_path, named.split) == ("b.jpg", "test")


def test_a_caption_that_stays_keeps_its_id_and_a_new_one_gets_a_free_one() -> None:
    texts = ("two", "new", "two", "two", "one")
    image = after(BEFORE, patch(captions=texts, caption_vectors=np.stack([OTHER] * 5)))
    assert [caption.caption_id for caption in image.captions] == ["own", "a#1", "a#3", "a#2", "a#0"]
    assert tuple(caption.text for caption in image.captions) == texts


def test_a_patch_keeps_what_it_does_not_name() -> None:
    image = after(BEFORE, patch(metadata={"place": None, "new": True}))
    assert image.metadata == {"year": 1999, "new": True}
    assert image.captions == BEFORE.captions
    assert image.caption_vectors is BEFORE.caption_vectors


def test_a_merge_patch_removes_what_is_null_and_keeps_a_null_that_it_does_not_name() -> None:
    """RFC 7396; a source may give a field without a value."""
    assert merged({"a": 1, "b": None}, {"a": None, "c": 2, "d": None}) == {"b": None, "c": 2}


def test_a_removed_image_is_none() -> None:
    assert edited(BEFORE, Edit("delete", "a"), RATIOS, 0) is None


@pytest.mark.parametrize("edit", [patch(split="val"), Edit("delete", "a")])
def test_what_is_not_there_cannot_be_changed_or_removed(edit: Edit) -> None:
    with pytest.raises(ImageMissing, match="no image a"):
        edited(None, edit, RATIOS, 0)


def test_if_match_holds_for_each_operation() -> None:
    etag = etag_of(BEFORE, BEFORE.captions)
    for edit in (put(), patch(split="val"), Edit("delete", "a")):
        edited(BEFORE, replace(edit, if_match=("x", etag)), RATIOS, 0)
        edited(BEFORE, replace(edit, if_match=("*",)), RATIOS, 0)
        with pytest.raises(ImageChanged, match=etag):
            edited(BEFORE, replace(edit, if_match=("x", f"W/{etag}")), RATIOS, 0)
    with pytest.raises(ImageChanged):
        edited(None, put(if_match=("*",)), RATIOS, 0)


def test_an_image_that_must_be_new_is_new_or_the_same() -> None:
    edited(None, put(must_be_new="always"), RATIOS, 0)
    edited(None, put(must_be_new="unless equal"), RATIOS, 0)
    same = after(BEFORE, put())
    with pytest.raises(ImageChanged):
        edited(same, put(must_be_new="always"), RATIOS, 0)
    assert after(same, put(must_be_new="unless equal")).content_hash == "h2"
    with pytest.raises(ImageTaken):
        edited(BEFORE, put(must_be_new="unless equal"), RATIOS, 0)


def test_captions_are_normalised_and_an_empty_one_is_named() -> None:
    assert normalised(["  a\n b ", "e\u0301"]) == ("a b", "\u00e9")
    with pytest.raises(InvalidChange, match=r"captions\.1"):
        normalised(["a", "\u200b"])


def test_splits_of_single_images_are_drawn_at_the_ratios() -> None:
    drawn = [split_of_one(f"{number}", RATIOS, 0) for number in range(4000)]
    shares = [drawn.count(split) / len(drawn) for split in SPLITS]
    assert shares == pytest.approx(RATIOS, abs=0.03)
    assert drawn != [split_of_one(f"{number}", RATIOS, 1) for number in range(4000)]
    assert {split_of_one(f"{number}", (0, 1, 0), 0) for number in range(99)} == {"val"}
