"""What a source can be synchronised to."""

from pathlib import Path

import pytest

from clip_retrieval.build.check import check_source, read_source
from clip_retrieval.cli import console
from clip_retrieval.cli.sync_target import Look, ServiceTarget
from clip_retrieval.client import Client
from clip_retrieval.images.decode import Limits
from clip_retrieval.progress import Silent
from clip_retrieval.records import Reject
from tests.cli.test_sync import write_equal_images
from tests.cli.test_sync_service import ToApi, client, source, to_api  # noqa: F401 - fixtures
from tests.samples import NAMES, write_collection

# The fixtures are imported, so their names are also those of parameters.
# ruff: noqa: F811

LIMITS = Limits()


@pytest.fixture
def service(client: Client) -> ServiceTarget:
    return ServiceTarget("http://service", client, LIMITS, console.Bars())


def look_at(source: Path, *hiding: Reject) -> Look:
    data = read_source(source, Silent())
    return Look(data, check_source(data, str(source), LIMITS, Silent()), data.place, hiding)


def test_a_service_keeps_what_the_source_may_only_not_show_now(service: ServiceTarget, source: Path) -> None:
    write_collection(source, NAMES[1:])
    (source / NAMES[0]).unlink()
    assert service.plan(look_at(source)).removed == (NAMES[0],)
    plan = service.plan(look_at(source, Reject("nas", "the link leads nowhere", may_hide=True)))
    assert (plan.removed, plan.unreadable, plan.unchanged) == ((), (NAMES[0],), 23)


def test_a_service_keeps_an_image_whose_file_cannot_be_read(service: ServiceTarget, source: Path) -> None:
    (source / NAMES[0]).write_bytes(b"half of it")
    plan = service.plan(look_at(source))
    assert (plan.removed, plan.unreadable) == ((), (NAMES[0],))


def test_equal_images_get_one_split_in_a_service(service: ServiceTarget, client: Client, tmp_path: Path) -> None:
    look = look_at(write_equal_images(tmp_path / "equal"))
    service.apply(look, service.plan(look))
    assert {image.image_id: image.split for image in client.images()} == dict.fromkeys(
        ("a.png", "a2.png", "a3.png"), "test"
    )
    assert service.plan(look).is_empty
