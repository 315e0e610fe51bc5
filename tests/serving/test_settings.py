"""Settings from the environment: what is misspelt is named."""

import pytest

from clip_retrieval.serving.settings import Settings, unknown_settings


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BENTO_CLIP_MAX_PENDNG", "BENTO_CLIP_MAX_PENDING"),
        ("BENTO_CLIP_MAX_UPLOAD_SIZE_BYTES", "BENTO_CLIP_MAX_UPLOAD_BYTES"),
        ("BENTO_CLIP_ARTEFACT", "BENTO_CLIP_ARTIFACT"),
        ("bento_clip_cachesize", "BENTO_CLIP_CACHE_SIZE"),
    ],
)
def test_a_misspelt_setting_is_named_with_what_was_meant(name: str, meant: str) -> None:
    assert unknown_settings({name: "3", "PATH": "/bin"}) == [
        f"{name} is no setting and has no effect; did you mean {meant}?"
    ]


def test_what_is_near_to_nothing_is_named_with_all_settings() -> None:
    (line,) = unknown_settings({"BENTO_CLIP_QQQQ": "1"})
    assert "BENTO_CLIP_QQQQ is no setting" in line
    assert all(name.upper() in line for name in Settings.model_fields)


def test_every_setting_is_known_also_by_its_older_name_and_in_lower_case() -> None:
    names = [f"BENTO_CLIP_{name.upper()}" for name in Settings.model_fields]
    assert unknown_settings(dict.fromkeys([*names, "BENTO_CLIP_MAX_PENDING_PICTURES", "bento_clip_workers"], "1")) == []


def test_what_kubernetes_sets_for_a_service_of_this_name_is_passed_over() -> None:
    linked = {
        "BENTO_CLIP_SERVICE_HOST": "10.0.0.1",
        "BENTO_CLIP_SERVICE_PORT_HTTP": "80",
        "BENTO_CLIP_PORT": "tcp://10.0.0.1:80",
        "BENTO_CLIP_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert unknown_settings(linked) == []
    assert len(unknown_settings({"BENTO_CLIP_PORT": "3000"})) == 1, "a person may mean --port"


def test_an_empty_folder_for_changes_and_an_empty_tag_to_follow_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTO_CLIP_CHANGES", "")
    monkeypatch.setenv("BENTO_CLIP_FOLLOW", "")
    assert (Settings().changes, Settings().follow) == (None, None)


def test_the_memory_for_bodies_has_room_for_four_of_the_largest_unless_it_is_set() -> None:
    assert Settings().body_memory == 128 * 2**20
    large = Settings(max_upload_bytes=2**26)
    assert large.body_memory == 4 * large.max_body_bytes
    assert Settings(max_body_memory=2**25).body_memory == 2**25


def test_less_memory_for_bodies_than_one_upload_may_have_is_refused() -> None:
    with pytest.raises(ValueError, match="BENTO_CLIP_MAX_BODY_MEMORY is 1048576, and one upload may have 10551296"):
        Settings(max_body_memory=2**20)
