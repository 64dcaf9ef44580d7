"""`churnlab explore` as a user meets it: whom it answers, what it refuses, and how it ends."""

import importlib.util
import socket
from urllib.parse import urlsplit

import pytest

from support.commands import churnlab
from support.explored import CURVE, asked, served
from support.sweeps import write_scenario

RATE = "failures.rate_per_hour"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with served(tmp_path_factory.mktemp("page")) as found:
        yield found


def test_the_page_loads_nothing_from_elsewhere(page):
    status, html = asked(page.address)
    assert status == 200
    assert "Explore: tiny" in html
    assert "Seconds are those of the target model" in html
    for name in ("style.css", "page.js", "vega.js"):
        assert asked(page.address + name)[0] == 200
        assert f'"/{name}"' in html
    assert "://" not in html.replace("http://www.w3.org/2000/svg", "").partition('<script type="application/json"')[0]


def test_moved_sliders_are_answered(page):
    own, moved = (asked(page.address + "simulate", values)[1] for values in ({}, {RATE: 0.05}))
    assert [row["label"] for row in own["rows"]] == ["no failures", "checkpointing", "CheckFree"]
    assert own["rows"][0] == moved["rows"][0]
    assert float(moved["rows"][1]["lost"]) < float(own["rows"][1]["lost"])
    assert own == {**asked(page.address + "simulate", {})[1], "took_seconds": own["took_seconds"]}


@pytest.mark.parametrize(
    "body", [{RATE: 7}, {RATE: "x"}, {"name": 1}, {RATE: None}, [], 3, "{", "", '{"a": NaN}', "x" * 20_000, "\x00"]
)
def test_bad_values_are_refused_in_words(body, page):
    status, found = asked(page.address + "simulate", body)
    assert status == 422
    assert found["error"]
    assert asked(page.address + "simulate", {})[0] == 200


def test_other_hosts_origins_and_methods_are_refused(page):
    port = urlsplit(page.address).port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "0.0.0.0", f"192.168.0.7:{port}"):
        assert asked(page.address, Host=host)[0] == 400
        assert asked(page.address + "simulate", {}, Host=host)[0] == 400
    assert asked(page.address, Host=f"localhost:{port}")[0] == 200
    for origin in ("http://evil.example", "null", f"http://localhost:{port + 1}"):
        assert asked(page.address + "simulate", {}, Origin=origin)[0] == 403
    assert asked(page.address + "simulate", {}, Origin=page.address.rstrip("/"))[0] == 200
    assert asked(page.address + "simulate")[0] == 405
    assert asked(page.address + "../pyproject.toml")[0] == 404
    with socket.socket() as other:
        other.settimeout(5)
        assert other.connect_ex(("127.0.0.2", port)) != 0  # bound to one address of this machine


def test_an_interrupt_ends_it_without_a_traceback(tmp_path):
    with served(tmp_path, "--no-training") as found:
        assert asked(found.address + "simulate", {})[1]["curves"] == []
        assert found.interrupted() == (0, "Stopped.\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text", "tiny.yaml"]


def test_a_port_in_use_and_a_missing_extra_are_said(tmp_path, monkeypatch):
    write_scenario(tmp_path, CURVE)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, errors = churnlab("explore", "tiny.yaml", "--port", port, folder=tmp_path)
    assert code == 2
    assert errors.startswith(f"--port {port}: cannot be used (Address already in use); give another")
    known = importlib.util.find_spec
    monkeypatch.setattr("sim.cli.explore.find_spec", lambda name: None if name == "uvicorn" else known(name))
    code, _, errors = churnlab("explore", "tiny.yaml", folder=tmp_path)
    assert (code, errors) == (2, "the page needs the extra: pip install 'churnlab[explore]'\n")
