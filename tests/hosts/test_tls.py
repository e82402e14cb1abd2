"""TLS in servers and clients."""

import json
import ssl
import urllib.request

import pytest
import trustme
from conftest import PROGRAMS
from running_on import expected
from test_asgi_servers import UVICORN
from websockets.sync.client import connect


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A certificate for localhost with its key, and the authority's certificate."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    return folder / "server.pem", folder / "authority.pem"


def test_clients_and_servers(run, mode, files):
    run(mode, PROGRAMS / "use_tls.py", *files)


def test_uvicorn_tls(serve, mode, files):
    certificate, authority = files
    options = ["--port", 0, "--ssl-certfile", certificate, "--ssl-keyfile", certificate]
    server = serve(mode, *UVICORN[mode], *options)
    port = server.wait_for(r"https://127\.0\.0\.1:(\d+)")[1]
    context = ssl.create_default_context(cafile=authority)
    body = bytes(1 << 20)
    with urllib.request.urlopen(f"https://localhost:{port}/", data=body, context=context, timeout=60) as response:
        facts = json.load(response)
    assert facts["received"] == len(body)
    assert expected(mode).items() <= facts.items()
    with connect(f"wss://localhost:{port}/", ssl=context) as websocket:
        websocket.send("x" * 100_000)
        assert websocket.recv(timeout=60) == "X" * 100_000
    assert server.stop() in (0, -15), server.output
    server.assert_quiet()
