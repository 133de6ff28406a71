"""Certificates for tests, in files; trustme makes them."""

from pathlib import Path

import trustme

LOCAL = ("localhost", "127.0.0.1")


class Authority:
    """Signs certificates into files."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._ca = trustme.CA()
        self.path = str(directory / f"{name}.pem")
        self._ca.cert_pem.write_to_path(self.path)

    def issue(self, name: str, *hosts: str) -> tuple[str, str]:
        """Paths of a certificate for `hosts` (by default this machine), and of its key."""
        issued = self._ca.issue_cert(*(hosts or LOCAL))
        certificate, key = (str(self._directory / f"{name}.{end}") for end in ("crt", "key"))
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        return certificate, key
