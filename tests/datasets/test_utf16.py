"""UTF-16 is found without a byte order mark in every language, and no text of a code page is taken for it."""

import pytest

from clip_retrieval.datasets.utf16 import utf16_of
from tests.datasets.test_code_page import CASES, TEXTS, encoded

FORMS = ("{}", "{}\n", "image,caption\n1.jpg,{}\n")


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("language", TEXTS)
def test_the_order_of_the_bytes_is_found(language: str, order: str) -> None:
    for caption in TEXTS[language][1]:
        for form in FORMS:
            found = utf16_of(form.format(caption).encode(order))
            assert found is not None, caption
            assert found.name == order


@pytest.mark.parametrize(("language", "page"), [*CASES, *((language, "utf-8") for language in TEXTS)])
def test_a_text_of_a_code_page_or_in_utf_8_is_none(language: str, page: str) -> None:
    captions = TEXTS[language][1]
    for text in (*captions, "\n".join(captions), *" ".join(captions).split(" ")):
        for form in FORMS:
            whole = form.format(text)
            data = whole.encode() if page == "utf-8" else encoded(whole, page)
            assert utf16_of(data) is None, whole


def test_a_control_character_in_a_text_makes_it_no_utf16() -> None:
    assert utf16_of(b"image,caption\n1.jpg,a\0 dog\n") is None
    assert utf16_of("image,caption\n1.jpg,une\0 fenêtre".encode("cp1252")) is None


@pytest.mark.parametrize("data", [b"", b"a", b"\xe9", b"\xff"])
def test_a_text_of_no_length_is_none(data: bytes) -> None:
    assert utf16_of(data) is None
