"""URLs of what listens here, read by the standard library's parser."""

from urllib.parse import urlsplit

import pytest

from app.address import local_url, url_of
from app.cli.service import connect
from app.settings import Settings


@pytest.mark.parametrize(("host", "reached"), [("::1", "::1"), ("127.0.0.1", "127.0.0.1"), ("box.local", "box.local")])
def test_a_url_leads_to_host_and_port(host: str, reached: str) -> None:
    for made in (url_of(host, 8321), local_url(host, 8321)):
        found = urlsplit(made)
        assert (found.hostname, found.port) == (reached, 8321)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_what_listens_everywhere_is_reached_by_loopback(host: str) -> None:
    assert urlsplit(local_url(host, 1)).hostname == "127.0.0.1"


@pytest.mark.parametrize(("host", "url"), [("::1", "http://[::1]:8321"), ("0.0.0.0", "http://127.0.0.1:8321")])
def test_the_command_line_finds_the_service_wherever_it_listens(host: str, url: str) -> None:
    with connect(None, Settings(host=host, port=8321)) as client:
        assert client.url == url
