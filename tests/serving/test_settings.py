"""Settings from the environment: what is misspelt is named."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from clip_retrieval.contract.base import describe
from clip_retrieval.serving.settings import OF_CLIENTS, Settings, unknown_settings


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


def test_the_folder_of_originals_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for given, wanted in (("", None), (str(tmp_path), tmp_path)):
        monkeypatch.setenv("BENTO_CLIP_ORIGINALS", given)
        assert Settings().originals == wanted
    monkeypatch.setenv("BENTO_CLIP_ORIGINALS", str(tmp_path / "none"))
    with pytest.raises(ValidationError, match="none is no folder; name the one that the artifact was built from"):
        Settings()


def test_an_empty_folder_for_changes_and_an_empty_tag_to_follow_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTO_CLIP_CHANGES", "")
    monkeypatch.setenv("BENTO_CLIP_FOLLOW", "")
    assert (Settings().changes, Settings().follow) == (None, None)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("10.0.0.0/8", ("10.0.0.0/8",)),
        ("10.0.0.0/8, ::1", ("10.0.0.0/8", "::1")),
        ("10.0.0.0/8 ::1\n", ("10.0.0.0/8", "::1")),
        ("", ()),
    ],
)
def test_several_values_stand_in_one_variable(
    monkeypatch: pytest.MonkeyPatch, given: str, names: tuple[str, ...]
) -> None:
    monkeypatch.setenv("BENTO_CLIP_TRUSTED_PROXIES", given)
    assert Settings().trusted_proxies == names


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TRUSTED_PROXIES", "10.0.0.0/8, nginx", "nginx is neither an address nor a network"),
        ("ROOT_PATH", "clip", "clip is no prefix of a path; write /clip"),
        ("ROOT_PATH", "//evil.example", "is no prefix of a path"),
        ("CORS_ORIGINS", "example.org", "example.org is no origin; write https://example.org"),
        ("CORS_ORIGINS", "https://example.org/", "https://example.org/ is no origin"),
        ("CORS_ORIGINS", "https://*.example.org", "is no origin"),
        ("CORS_ORIGINS", "https://example.org:443", "has a port that no browser sends; write https://example.org"),
        ("CORS_ORIGINS", "http://[::1]:80", "has a port that no browser sends; write http://[::1]"),
        ("CORS_ORIGINS", "https://münchen.example", "write xn--… for such a name"),
        ("LIMIT", "0/minute", "0/minute has a 0"),
        ("HOSTS", "https://example.org", "is no name of a host; write example.org"),
        ("ENCODER_URL", "encoder:3000", "encoder:3000 is no URL of a service; write http://encoder:3000"),
        ("ENCODER_URL", "http://encoder/encode", "is no URL of a service"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_with_what_would_be_right(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"BENTO_CLIP_{name}", value)
    with pytest.raises(ValueError, match=re.escape(message)):
        Settings()


def test_values_that_are_right_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTO_CLIP_ROOT_PATH", "/clip/")
    monkeypatch.setenv("BENTO_CLIP_CORS_ORIGINS", "https://a.example http://localhost:5173, chrome-extension://abc")
    monkeypatch.setenv("BENTO_CLIP_HOSTS", "a.example, *.b.example, [::1], 127.0.0.1:3000, localhost")
    monkeypatch.setenv("BENTO_CLIP_ENCODER_URL", "http://encoder:3000")
    settings = Settings()
    assert settings.encoder_url == "http://encoder:3000"
    assert settings.root_path == "/clip"
    assert len(settings.cors_origins) == 3
    assert len(settings.hosts) == 5


def test_the_list_of_proxies_that_uvicorn_has_is_said_to_have_no_effect() -> None:
    (line,) = unknown_settings({"FORWARDED_ALLOW_IPS": "*"})
    assert line == "FORWARDED_ALLOW_IPS has no effect; BENTO_CLIP_TRUSTED_PROXIES names the proxies that are believed"
    assert unknown_settings({"FORWARDED_ALLOW_IPS": ""}) == []


def test_what_the_commands_read_is_no_misspelt_setting_of_the_server() -> None:
    assert unknown_settings({f"BENTO_CLIP_{name}": "x" for name in OF_CLIENTS}) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"KEYS": "a", "API_KEYS": "{}"}, "give BENTO_CLIP_KEYS or BENTO_CLIP_API_KEYS, not both"),
        ({"KEYS": "a", "INSECURE": "true"}, "BENTO_CLIP_INSECURE opens what the API keys are to protect"),
        ({"API_KEYS": "{}", "INSECURE": "true"}, "BENTO_CLIP_INSECURE opens what the API keys are to protect"),
        ({"CLOSED": "metrics,page"}, "metrics' or 'docs'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    given: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"BENTO_CLIP_{name}", value)
    with pytest.raises(ValueError, match=words):
        Settings()


def test_what_is_closed_is_a_list_and_blank_keys_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTO_CLIP_CLOSED", " metrics, docs")
    monkeypatch.setenv("BENTO_CLIP_KEYS", "")
    monkeypatch.setenv("BENTO_CLIP_API_KEYS", " \n")
    settings = Settings()
    assert settings.closed == {"metrics", "docs"}
    assert (settings.keys, settings.api_keys) == (None, None)
    monkeypatch.setenv("BENTO_CLIP_CLOSED", "")
    assert Settings().closed == frozenset()


def test_less_memory_for_bodies_than_one_upload_may_have_is_refused() -> None:
    with pytest.raises(ValueError, match="BENTO_CLIP_MAX_BODY_MEMORY is 1048576, and one upload may have 10551296"):
        Settings(max_body_memory=2**20)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"CACHE_URL": "memcached://host"}, "write redis://host:6379/0"),
        ({"CACHE_URL": "redis://:hunter2@host:port"}, "its port is a number"),
        ({"CACHE_URL": "redis://:hunter2@host", "CHANGES": "changes"}, "an artifact that does not change"),
        ({"FOLLOW": "https://host/photos/latest"}, "write s3://BUCKET/FOLDER/latest"),
        ({"ARTIFACT": "s3://shelf"}, "write s3://BUCKET/FOLDER/latest"),
        ({"FOLLOW": "s3://shelf"}, "write s3://BUCKET/FOLDER/latest"),
        ({"FOLLOW": "s3://shelf/photos/files"}, "is no name of a published version"),
        ({"CACHE_TIMEOUT_S": "0.01"}, "no effect without BENTO_CLIP_CACHE_URL"),
        ({"CACHE_URL": "redis://:hunter2@host", "CACHE_TIMEOUT_S": "2"}, "must be at most 1"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused_with_what_can_and_without_its_password(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], message: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"BENTO_CLIP_{name}", value)
    with pytest.raises(ValidationError) as raised:
        Settings()
    told = describe(raised.value.errors())
    assert message in told
    assert "hunter2" not in told


def test_no_password_of_a_store_is_in_what_the_settings_look_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTO_CLIP_CACHE_URL", "redis://:hunter2@host")
    monkeypatch.setenv("BENTO_CLIP_LIMITS_URL", "redis://:hunter3@host")
    monkeypatch.setenv("BENTO_CLIP_LIMIT", "600/minute")
    assert Settings().cache_url == "redis://:hunter2@host"
    assert "hunter" not in repr(Settings())
    monkeypatch.setenv("BENTO_CLIP_CACHE_URL", "")
    assert Settings().cache_url is None
