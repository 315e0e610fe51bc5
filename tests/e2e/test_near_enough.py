"""What the bundled photographs call near enough: texts for what is not there find nothing, their own captions do."""

import httpx
import pytest

from tests.e2e.conftest import Server

pytestmark = pytest.mark.e2e

ABSENT = """people skiing; a birthday cake; a tax form; a traffic jam; a spaceship's cockpit; a football match
in a stadium; a surgeon in an operating room; a laptop on an office desk; a baby sleeping in a crib;
a bowl of ramen noodles; a wedding ceremony; a motorcycle race; a passport; a subway station; a
circuit board; a swimming pool; a ballet dancer; an airport runway; a supermarket aisle; a
screenshot of an email; a sushi platter; a man in a business suit shaking hands; a kitchen with a
refrigerator; a tennis player serving; a bathroom with a toilet; a pepperoni pizza; a computer
keyboard; a snowboarder jumping; a crowded shopping mall; a helicopter landing; a bride in a white
dress; a cup of coffee with latte art; a child blowing out candles; a classroom full of students; a
police car with flashing lights; a barcode; a washing machine; a hospital bed; an x-ray of a hand"""

PRESENT = """a castle; an owl; a red panda; a windmill; scissors; the eiffel tower; a fish; a hammer; a dog; pyramids in
the desert; under water; solar panels; a tower; a sheep; an orchestra; old ruins; a tool with a red handle; a white
animal; a cathedral"""


def texts(listed: str) -> list[str]:
    return [" ".join(each.split()) for each in listed.split(";")]


def found(server: Server, asked: list[str], least: float) -> list[str]:
    """Those of the texts that find something."""
    searches = [{"queries": [{"text": text}], "k": 1, "min_confidence": least} for text in asked]
    answers = httpx.post(f"{server.url}/search/batch", json={"searches": searches}, timeout=60).json()["answers"]
    return [text for text, one in zip(asked, answers, strict=True) if one["answer"]["results"]]


def test_texts_for_what_is_not_there_find_nothing_at_the_bound_and_those_for_what_is_do(photographs: Server) -> None:
    least = httpx.get(photographs.url, headers={"Accept": "application/json"}).json()["min_confidence"]
    absent, present = texts(ABSENT), texts(PRESENT)
    assert found(photographs, absent, 0) == absent, "without a bound a search returns the nearest"
    assert "a spaceship's cockpit" not in found(photographs, absent, least)
    assert len(found(photographs, absent, least)) <= 6, "a laptop on an office desk, a hospital bed, …"
    assert found(photographs, present, least) == present
