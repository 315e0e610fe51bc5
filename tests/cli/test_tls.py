"""The files of HTTPS are looked at before a server starts: each fault is one sentence that names the file."""

import ssl
import subprocess
from pathlib import Path

import pytest
import trustme
from typer.testing import CliRunner

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.cli.app import app
from clip_retrieval.cli.tls import Tls
from clip_retrieval.errors import ClipRetrievalError


@pytest.fixture
def certificate(tmp_path: Path) -> Tls:
    """A certificate for localhost in ``certificate.pem`` and ``key.pem``, and in ``both.pem`` with its key."""
    made = trustme.CA().issue_cert("localhost")
    tls = Tls(tmp_path / "certificate.pem", tmp_path / "key.pem")
    made.cert_chain_pems[0].write_to_path(tls.certificate)
    made.private_key_pem.write_to_path(tmp_path / "key.pem")
    made.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    return tls


def test_a_certificate_and_its_key_become_the_options_of_bentoml(
    certificate: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = Tls(Path("certificate.pem"), Path("key.pem"), Path("certificate.pem"))
    given.check()
    assert given.options() == [
        *("--ssl-certfile", str(certificate.certificate)),
        *("--ssl-keyfile", str(certificate.key)),
        *("--ssl-ca-certs", str(certificate.certificate)),
        *("--ssl-cert-reqs", str(int(ssl.CERT_REQUIRED))),
    ], "the service has another working folder"


def test_a_key_may_be_in_the_file_of_the_certificate(certificate: Tls) -> None:
    both = Tls(certificate.certificate.with_name("both.pem"))
    both.check()
    assert both.options() == ["--ssl-certfile", str(both.certificate)]


def test_what_cannot_be_used_is_named(certificate: Tls, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(other)
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    for tls, sentence in (
        (Tls(tmp_path / "none.pem"), r"none\.pem cannot be read \(No such file"),
        (Tls(certificate.certificate), "the key in it are no certificate in PEM with its private key"),
        (Tls(certificate.certificate, other), r"other\.pem are no certificate .* \(key values mismatch\)"),
        (Tls(empty, certificate.key), r"empty\.pem and .* are no certificate in PEM"),
        (Tls(certificate.certificate, certificate.key, empty), r"empty\.pem has no certificates in PEM"),
    ):
        with pytest.raises(ClipRetrievalError, match=sentence):
            tls.check()


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(certificate: Tls, tmp_path: Path) -> None:
    locked = tmp_path / "locked.pem"
    assert certificate.key is not None
    command = [
        "openssl",
        "pkey",
        "-in",
        str(certificate.key),
        "-aes256",
        "-passout",
        "pass:secret",
        "-out",
        str(locked),
    ]
    subprocess.run(command, check=True)
    with pytest.raises(ClipRetrievalError, match="has a passphrase, which BentoML would show"):
        Tls(certificate.certificate, locked).check()


@pytest.mark.parametrize("option", ["--ssl-keyfile", "--ssl-ca-certs"])
def test_a_key_without_a_certificate_is_not_ignored(fake_artifact: Artifact, tmp_path: Path, option: str) -> None:
    done = CliRunner().invoke(app, ["serve", str(fake_artifact.path), option, str(tmp_path / "key.pem")])
    assert done.exit_code == 2
    assert "it needs a certificate: --ssl-certfile" in done.output
