"""URLs of what listens here, read by the standard library's parser."""

import asyncio
import re
import socket
from urllib.parse import urlsplit

import pytest

from app.address import local_url, loopback, url_of
from app.cli.service import connect
from app.contracts.errors import HemostatError
from app.settings import Settings


@pytest.mark.parametrize(("host", "reached"), [("::1", "::1"), ("127.0.0.1", "127.0.0.1"), ("box.local", "box.local")])
def test_a_url_leads_to_host_and_port(host, reached):
    for made in (url_of(host, 8321), local_url(host, 8321)):
        found = urlsplit(made)
        assert (found.hostname, found.port) == (reached, 8321)


def test_brackets_that_are_there_stay():
    assert url_of("[::1]", 8321) == "http://[::1]:8321"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::", ""])
async def test_what_listens_is_reached_also_where_it_listens_everywhere(host):
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host=host, port=0)
    async with server:
        # "" listens on both, each at a port of its own
        port = next(one.getsockname()[1] for one in server.sockets if host or one.family == socket.AF_INET)
        found = urlsplit(local_url(host, port))
        assert found.hostname  # to connect to no name would lead here, too
        with socket.create_connection((found.hostname, found.port), timeout=5):
            pass


@pytest.mark.parametrize(
    ("host", "url"), [("::1", "http://[::1]:1"), ("0.0.0.0", "http://127.0.0.1:1"), ("::", "http://[::1]:1")]
)
def test_the_command_line_looks_for_the_service_wherever_it_listens(host, url):
    # Nothing listens at port 1.
    with pytest.raises(HemostatError, match=re.escape(url)), connect(None, Settings(host=host, port=1)):
        pass


@pytest.fixture
def network(tmp_path, monkeypatch):
    """Names the network that this process is in; None: the system does not say."""

    def in_network(name):
        link = tmp_path / f"{name}"
        if name is not None and not link.is_symlink():
            link.symlink_to(f"net:[{name}]")
        monkeypatch.setattr("app.address._NETWORK", link)
        loopback.cache_clear()
        return loopback()

    yield in_network
    loopback.cache_clear()


def test_processes_of_one_network_name_their_loopback_alike_whatever_the_host_is_called(network, monkeypatch):
    first = network(1)
    monkeypatch.setattr("socket.gethostname", lambda: "renamed")
    assert network(1) == first != ""
    assert network(2) not in {"", first}
    assert network(None) == ""
