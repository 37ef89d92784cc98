"""The server shows films to whom it should, by the number of their row, and nothing else."""

import http.client
import io
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from dinov2.errors import ConfigError
from dinov2.explore.exploration import Exploration, explore
from dinov2.explore.server import ExploreServer, check_address, open_server
from tests.explore.made import NUM, write_features, write_films

Answer = tuple[int, Mapping[str, str], bytes]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Exploration:
    folder = tmp_path_factory.mktemp("explored")
    (folder / "secret.png").write_bytes(b"not for anybody")
    manifest = write_films(folder / "films", skip=[7], note=["<script>alert(1)</script>"] * NUM)
    return explore(write_features(folder / "f.parquet"), manifest=str(manifest), method="pca")


@contextmanager
def serving(shown: Exploration, *, host: str = "127.0.0.1", with_token: bool = False) -> Iterator[ExploreServer]:
    with open_server(shown, host=host, port=0, with_token=with_token) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server(shown: Exploration) -> Iterator[ExploreServer]:
    with serving(shown) as opened:
        yield opened


def ask(server: ExploreServer, path: str, *, method: str = "GET", **headers: str) -> Answer:
    """One request exactly as written; `Host` is the server's own where none is given."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in ({"Host": f"127.0.0.1:{server.port}"} | given).items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    said = (answer.status, dict(answer.getheaders()), answer.read())
    connection.close()
    return said


def test_the_page_comes_whole_and_may_run_its_own_script_alone(server: ExploreServer) -> None:
    status, headers, content = ask(server, "/")
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.search(r"script-src 'sha256-[^']+';", policy)
    assert "Access-Control-Allow-Origin" not in headers
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert b"film-39" in content


def test_a_film_is_a_new_jpeg_of_its_row_no_larger_than_asked(server: ExploreServer) -> None:
    for size in ("small", "large"):
        status, headers, content = ask(server, f"/film/12/{size}")
        assert (status, headers["Content-Type"]) == (200, "image/jpeg")
        assert abs(int(np.asarray(Image.open(io.BytesIO(content)))[15, 10]) - 60) <= 2


def test_a_row_tells_its_columns_and_its_nearest_films(server: ExploreServer, shown: Exploration) -> None:
    said = json.loads(ask(server, "/row/3")[2])
    assert ["age", "23.5"] in said["fields"]
    assert "view" not in dict(said["fields"])  # it is missing there
    rows, values = shown.neighbours.of(3)
    assert said["neighbours"] == rows.tolist()
    np.testing.assert_allclose(said["similarity"], values, atol=1e-4)


def test_a_film_whose_file_is_gone_says_so(server: ExploreServer) -> None:
    status, headers, content = ask(server, "/film/7/small")
    assert status == 404
    assert headers["Content-Type"].startswith("text/plain")
    assert b"film-7.png: No such file" in content


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.png",
        "/film/../../secret.png",
        "/film/..%2f..%2fsecret.png/small",
        "/film/%2e%2e/small",
        "//etc/passwd",
        "/film//etc/passwd",
        "/film/film-3.png/small",
        "/film/-1/small",
        f"/film/{NUM}/small",
        "/film/999999999/small",
        "/film/99999999999999999999/small",
        "/film/3/../4/small",
        "/film/3/original",
        "/film/3",
        "/film/%D9%A3/small",  # a digit of another script
        "/film/3/small/",
        "/row/-1",
        f"/row/{NUM}",
        "/row/1;2",
        "/manifest.parquet",
        "/f.parquet",
        "http://127.0.0.1/film/1/small",
        "file:///etc/passwd",
        "/.",
        "/?token=x/../film",
    ],
)
def test_nothing_but_rows_of_the_manifest_is_served(server: ExploreServer, path: str) -> None:
    status, _, content = ask(server, path)
    if path.startswith("/?"):
        assert status == 200  # the page; without a token there is nothing that it opens
    else:
        assert status == 404
        assert content in (b"There is nothing here.", b"There is no such film.")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "192.168.1.5", "localhost@evil.example", ""]
)
def test_a_name_that_is_not_this_machine_is_refused(server: ExploreServer, host: str) -> None:
    for path in ("/", "/film/1/small", "/row/1"):
        assert ask(server, path, Host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:1", "[::1]:8765", "LOCALHOST."])
def test_names_of_this_machine_are_answered_also_through_a_tunnel(server: ExploreServer, host: str) -> None:
    assert ask(server, "/row/1", Host=host)[0] == 200


def test_two_names_at_once_or_none_are_refused(server: ExploreServer) -> None:
    for names in (b"Host: 127.0.0.1\r\nHost: evil.example\r\n", b""):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            connection.sendall(b"GET /film/1/small HTTP/1.0\r\n" + names + b"\r\n")
            assert b" 403 " in connection.recv(64)


def test_another_page_can_neither_embed_nor_fetch_films(server: ExploreServer) -> None:
    for site in ("cross-site", "same-site"):
        assert ask(server, "/film/1/small", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")[0] == 403
    assert ask(server, "/film/1/small", Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors")[0] == 200
    assert ask(server, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200


def test_nothing_can_be_sent_to_it(server: ExploreServer) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(server, "/row/1", method=method)[0] == 501
    status, headers, content = ask(server, "/film/1/small", method="HEAD")
    assert (status, content) == (200, b"")
    assert int(headers["Content-Length"]) > 0


def test_a_token_is_asked_for_once_and_leaves_the_address(shown: Exploration) -> None:
    with serving(shown, with_token=True) as server:
        token = server.guard.token
        assert token is not None
        assert server.address.endswith(f"?token={token}")
        wrong = (token[:-1] + "!", "", token.lower() + "x", "%00", f"{token}&token={token}")
        for path in ("/", "/film/1/small", "/row/1", *(f"/?token={one}" for one in wrong), f"/row/1?token={token}"):
            status, headers, content = ask(server, path)
            assert status == 403
            assert "Set-Cookie" not in headers
            assert b"film-" not in content
        status, headers, content = ask(server, f"/?token={token}")
        assert (status, headers["Location"], content) == (303, "/", b"")
        cookie = headers["Set-Cookie"]
        assert token not in cookie
        assert "HttpOnly" in cookie
        assert "SameSite" in cookie
        held = cookie.partition(";")[0]
        assert ask(server, "/film/1/small", Cookie=held)[0] == 200
        assert ask(server, "/", Cookie=f"other=1; {held}")[0] == 200
        assert ask(server, "/film/1/small", Cookie=held[:-1])[0] == 403
        assert ask(server, "/film/1/small", Cookie=f"{server.cookie}={token}")[0] == 403
        assert ask(server, "/film/1/small", Cookie=held, Host="evil.example")[0] == 403


def test_off_this_machine_there_is_always_a_token(shown: Exploration) -> None:
    with serving(shown, host="0.0.0.0") as server:
        assert server.guard.token is not None
        assert ask(server, "/row/1")[0] == 403
        assert socket.gethostname() in server.address


def test_a_taken_port_is_told_with_a_free_one(shown: Exploration, server: ExploreServer) -> None:
    with pytest.raises(ConfigError, match=rf"--port {server.port}: taken"):
        check_address("127.0.0.1", server.port)
    with pytest.raises(ConfigError, match=rf"--port {server.port}: taken .* is free: --port \d+\.") as caught:
        open_server(shown, host="127.0.0.1", port=server.port)
    free = int(re.findall(r"--port (\d+)\.", str(caught.value))[0])
    open_server(shown, host="127.0.0.1", port=free).server_close()


@pytest.mark.parametrize(
    ("host", "port", "says"),
    [
        ("127.0.0.1", 70_000, "0 for any that is free"),
        ("127.0.0.1", -1, "0 for any that is free"),
        ("no-such-host.invalid", 0, "no address of this name"),
        ("192.0.2.1", 0, "not an address of this machine"),
    ],
)
def test_addresses_that_cannot_be_had_are_refused_in_words(shown: Exploration, host: str, port: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_address(host, port)
    with pytest.raises(ConfigError, match=says):
        open_server(shown, host=host, port=port)
