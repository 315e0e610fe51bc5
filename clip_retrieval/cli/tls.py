"""The files that HTTPS is served with, as the options of ``bentoml serve``, which are uvicorn's."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip_retrieval.errors import ClipRetrievalError


@dataclass(frozen=True)
class Tls:
    """PEM files: a certificate, its key if that is not in the same file, and who signs the clients that are let in."""

    certificate: Path
    key: Path | None = None
    client_authority: Path | None = None

    def check(self) -> None:
        """Raises ClipRetrievalError that names the file that cannot be used and says why."""
        for path in (self.certificate, self.key, self.client_authority):
            if path is not None:
                try:
                    path.read_bytes()
                except OSError as error:
                    raise ClipRetrievalError(f"{path} cannot be read ({error.strerror})") from error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except ssl.SSLError as error:
            raise ClipRetrievalError(
                f"{self.certificate} and {self.key or 'the key in it'} are no certificate in PEM with its private key "
                f"({_reason(error)})"
            ) from error
        if self.client_authority is not None:
            try:
                context.load_verify_locations(self.client_authority)
            except ssl.SSLError as error:
                raise ClipRetrievalError(
                    f"{self.client_authority} has no certificates in PEM ({_reason(error)})"
                ) from error

    def options(self) -> list[str]:
        """Those of ``bentoml serve``, with paths that hold in its working folder."""
        given: Mapping[str, Any] = {
            "--ssl-certfile": self.certificate.absolute(),
            "--ssl-keyfile": None if self.key is None else self.key.absolute(),
            "--ssl-ca-certs": None if self.client_authority is None else self.client_authority.absolute(),
            "--ssl-cert-reqs": None if self.client_authority is None else int(ssl.CERT_REQUIRED),
        }
        return [text for option, value in given.items() if value is not None for text in (option, str(value))]


def _no_password() -> str:
    raise ClipRetrievalError(
        "the private key has a passphrase, which BentoML would show to every user of this machine in the list of "
        "processes; write one without: openssl pkey -in KEY -out KEY2 (mode 0600)"
    )


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
