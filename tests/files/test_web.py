"""Redirects, tokens, mirrors and proxies."""

import hashlib

import pytest

from capface.errors import DownloadFailed
from capface.files.downloads.transfer import Request, fetch
from capface.files.downloads.web import Interruption, Web, short
from capface.tests.files.shop import Shop, noise, sha256

DATA = noise(200_000)
MODEL = "https://huggingface.co/somebody/model/resolve/main/model.safetensors"
PATH = "/somebody/model/resolve/main/model.safetensors"


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))


@pytest.fixture
def hub():
    with Shop() as shop:
        yield shop


@pytest.fixture
def elsewhere():
    with Shop() as shop:
        yield shop


def get(folder, web, address=MODEL, **known):
    return fetch(
        Request("model.bin", address, folder / "model.bin", "the page", **known), web, pause=0.01, say=lambda text: None
    )


def tokens(shop):
    return {headers.get("Authorization") for _, headers in shop.asked}


def test_the_token_goes_to_the_hub_and_no_further(tmp_path, hub, elsewhere, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.address}/")
    monkeypatch.setenv("HF_TOKEN", "secret")
    hub.offer(PATH, b"", redirect="/moved")
    hub.offer("/moved", b"", redirect=elsewhere.offer("/signed?key=1", DATA))
    assert get(tmp_path, Web(), sha256=sha256(DATA)).read_bytes() == DATA
    assert tokens(hub) == {"Bearer secret"} and tokens(elsewhere) == {None}
    assert {path for path, _ in hub.asked} == {PATH, "/moved"}
    assert hub.asked[0][1]["Range"] == elsewhere.asked[0][1]["Range"] == "bytes=0-0"


def test_other_hosts_get_no_token(tmp_path, hub, elsewhere, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    get(tmp_path, Web(endpoint=hub.address), elsewhere.offer("/file", DATA))
    assert tokens(elsewhere) == {None} and hub.asked == []


def test_a_token_does_not_travel_in_the_clear(hub, monkeypatch):
    web = Web(endpoint="http://hub.example", token="secret")
    sent = []

    def refuse(request, timeout):
        sent.append(request.headers)
        raise OSError

    monkeypatch.setattr(web._opener, "open", refuse)
    with pytest.raises(Interruption):
        web.open(MODEL)
    assert "User-agent" in sent[0] and "Authorization" not in sent[0]


def test_the_token_of_a_login_is_used(monkeypatch, tmp_path):
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "token").write_text("of the login\n")
    assert Web().token == "of the login"
    monkeypatch.setenv("HF_TOKEN", "of the environment")
    assert Web().token == "of the environment"


def test_the_hub_s_own_checksum_is_compared(tmp_path, hub, elsewhere):
    web = Web(endpoint=hub.address, token="")
    stated = {"X-Linked-Etag": f'"{sha256(DATA)}"', "X-Linked-Size": str(len(DATA))}
    hub.offer(PATH, b"", redirect=elsewhere.offer("/file", DATA[:-1] + b"?"), headers=stated)
    with pytest.raises(DownloadFailed, match=f"expected SHA-256 {sha256(DATA)}"):
        get(tmp_path, web)
    with pytest.raises(DownloadFailed, match=r"offers [0-9a-f]{64}: another version\. Nothing was fetched"):
        get(tmp_path, web, sha256="0" * 64)
    elsewhere.offer("/file", DATA)
    assert get(tmp_path, web, md5=hashlib.md5(DATA).hexdigest()).read_bytes() == DATA


def test_the_hub_s_own_size_is_compared(tmp_path, hub, elsewhere):
    hub.offer(PATH, b"", redirect=elsewhere.offer("/file", DATA), headers={"X-Linked-Size": "5"})
    with pytest.raises(DownloadFailed, match=r"Expected 5 bytes .*Hugging Face.* offers 200,000"):
        get(tmp_path, Web(endpoint=hub.address, token=""))


def test_another_host_cannot_state_the_checksum(tmp_path, hub, elsewhere):
    address = elsewhere.offer("/file", DATA, headers={"X-Linked-Etag": f'"{"0" * 64}"'})
    assert get(tmp_path, Web(endpoint=hub.address, token=""), address).read_bytes() == DATA


def test_a_gated_model_says_what_to_do(tmp_path, hub):
    hub.offer(PATH, DATA, statuses=[(403, {})])
    with pytest.raises(DownloadFailed, match="Agree to the terms on the model's page and set HF_TOKEN"):
        get(tmp_path, Web(endpoint=hub.address, token=""))


@pytest.mark.parametrize("circle", [("/a",), ("/b", "/c", "/a")], ids=["itself", "three"])
def test_a_circle_of_redirects_ends(tmp_path, hub, circle):
    for here, there in zip(("/a", *circle[:-1]), circle, strict=True):
        hub.offer(here, b"", redirect=there)
    with pytest.raises(DownloadFailed, match="redirects in circles"):
        get(tmp_path, Web(token=""), f"{hub.address}/a")
    assert len(hub.asked) == len(circle)


def test_an_endless_chain_of_redirects_ends(tmp_path, hub):
    for number in range(20):
        hub.offer(f"/{number}", b"", redirect=f"/{number + 1}")
    with pytest.raises(DownloadFailed, match="redirects in circles"):
        get(tmp_path, Web(token=""), f"{hub.address}/0")
    assert len(hub.asked) == 11


@pytest.mark.parametrize("there", ["file:///etc/hostname", "ftp://files.example/file", ""])
def test_a_redirect_out_of_the_web_is_refused(tmp_path, hub, there):
    with pytest.raises(DownloadFailed, match="redirects to"):
        get(tmp_path, Web(token=""), hub.offer("/file", b"", redirect=there))


def test_a_proxy_is_used(tmp_path, hub, monkeypatch):
    monkeypatch.setenv("http_proxy", hub.address)
    hub.offer("http://files.invalid/file", DATA)
    assert get(tmp_path, Web(token=""), "http://files.invalid/file").read_bytes() == DATA
    assert {headers["Host"] for _, headers in hub.asked} == {"files.invalid"}


def test_messages_hold_no_signature():
    assert short("https://user:word@cdn.example:8443/file?Signature=abc#x") == "cdn.example:8443/file"
