"""Certificates for tests of TLS, made when the first test wants one, and contexts that use them."""

import atexit
import datetime
import functools
import pathlib
import shutil
import ssl
import tempfile

import trustme
from cryptography.hazmat.primitives import serialization

PASSWORD = "a secret"
"""What the encrypted key is encrypted with."""


class Certificates:
    """A folder with an authority's certificate, and certificates with their keys in one file each.

    authority, stranger: who signs, and another one whom nobody trusts.
    server: of localhost, server.test, *.wild.test, 127.0.0.1.
    other: of other.test.  client: of a client.  expired, early: of localhost, at other times.
    self_signed: of localhost, by itself.  strange: of localhost, by the stranger.
    rsa: of localhost, with an RSA key, whose signatures are all of one length.
    encrypted: the server's, with an encrypted key.
    """

    def __init__(self, folder):
        self.folder = folder
        authority, stranger = trustme.CA(), trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "authority"))
        stranger.cert_pem.write_to_path(str(folder / "stranger"))
        day = datetime.timedelta(days=1)
        now = datetime.datetime.now(datetime.UTC)
        self.authority, self.stranger = str(folder / "authority"), str(folder / "stranger")
        issue = authority.issue_cert
        self.issued, self.server = self.write("server", issue("localhost", "server.test", "*.wild.test", "127.0.0.1"))
        self.other = self.write("other", issue("other.test"))[1]
        self.client = self.write("client", issue("client@client.test", common_name="a client"))[1]
        self.expired = self.write("expired", issue("localhost", not_before=now - 2 * day, not_after=now - day))[1]
        self.early = self.write("early", issue("localhost", not_before=now + day, not_after=now + 2 * day))[1]
        self.strange = self.write("strange", stranger.issue_cert("localhost"))[1]
        self.rsa = self.write("rsa", issue("localhost", key_type=trustme.KeyType.RSA))[1]
        self.self_signed = str(folder / "self_signed")
        itself = trustme.CA()
        pathlib.Path(self.self_signed).write_bytes(itself.private_key_pem.bytes() + itself.cert_pem.bytes())
        self.encrypted = self.encrypt(folder / "encrypted")

    def write(self, name, certificate):
        path = self.folder / name
        chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
        path.write_bytes(certificate.private_key_pem.bytes() + chain)
        return certificate, str(path)

    def encrypt(self, path):
        key = serialization.load_pem_private_key(self.issued.private_key_pem.bytes(), None)
        encrypted = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(PASSWORD.encode()),
        )
        path.write_bytes(encrypted + self.issued.cert_chain_pems[0].bytes())
        return str(path)


@functools.cache
def certificates():
    """The certificates; the folder lives as long as the process."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="aioxide-tls-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Certificates(folder)


def set_versions(context, version):
    """Lets a context speak one version only."""
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def server_context(name="server", *, version=None, ask=None, cls=ssl.SSLContext, password=None):
    """A server's context with the certificate of a name.

    `ask` is what it does about the client's certificate (`ssl.CERT_...`).
    """
    context = cls(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(getattr(certificates(), name), password=password)
    if ask is not None:
        context.verify_mode = ask
        context.load_verify_locations(certificates().authority)
    return set_versions(context, version)


def client_context(name=None, *, version=None, cls=ssl.SSLContext):
    """A client's context that trusts the authority, with the certificate of a name or none."""
    context = cls(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates().authority)
    if name is not None:
        context.load_cert_chain(getattr(certificates(), name))
    return set_versions(context, version)
