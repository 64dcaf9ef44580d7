"""Server of the page, on the loopback address only.

Another site that is open in the browser could reach this server through a host name that resolves to 127.0.0.1 (DNS
rebinding). Requests whose Host is not the loopback address, or with another Origin, are therefore refused.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sim.exploring.controls import Control, scenario_at
from sim.exploring.learning import Learning
from sim.exploring.outcomes import FEWEST_SEEDS, answer, by_strategy, runs_of
from sim.exploring.page import assets
from sim.scenario.scenario import Scenario
from sim.simulation.run import Run

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
PORT = 8421
MOST_BYTES = 10_000
POLICY = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
SECONDS_TO_START, SECONDS_TO_STOP = 0.3, 2
SECONDS_TO_WARM_UP = 5  # at most, before the page is served
SECONDS_OF_ANSWER = 0.4  # after this time, an answer waits for no further failure seed


class Explorer:
    """Answers to positions of the sliders, one at a time.

    The first answer to a slow position has few failure seeds; later requests for the same position add more.
    """

    def __init__(self, learning: Learning, controls: Sequence[Control]) -> None:
        self.learning, self.controls = learning, list(controls)
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._num_waiting = 0
        self._position: dict[str, Any] | None = None  # finished runs, and the remaining ones
        self._runs: list[Run] = []
        self._further: Iterator[Run] = iter(())

    def answered(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a position. ValueError for a value that is not allowed."""
        started = time.perf_counter()
        scenario = scenario_at(self.learning.template, self.controls, values)
        self._num_waiting += 1
        try:
            with self._lock:
                found = answer(scenario, [*by_strategy(scenario, self.learning, self._runs_at(values, scenario))])
        finally:
            self._num_waiting -= 1
        is_complete = found["is_complete"] or self._ended.is_set()
        return {**found, "is_complete": is_complete, "took_seconds": time.perf_counter() - started}

    def _runs_at(self, values: dict[str, Any], scenario: Scenario) -> list[Run]:
        """Simulate further runs of the position until all failure seeds or the time for an answer are complete."""
        if values != self._position:
            self._runs, self._further = [], runs_of(scenario)
        self._position = None  # until nothing has failed
        num, until = len(scenario.strategies), time.perf_counter() + SECONDS_OF_ANSWER
        for run in self._further:
            self._runs.append(run)
            num_seeds, num_more = divmod(len(self._runs), num)
            is_enough = num_seeds >= FEWEST_SEEDS and num_more == 0 and time.perf_counter() > until
            if is_enough or self._ended.is_set():
                break
        self._position = dict(values)
        return self._runs

    def warm_up(self) -> None:
        """Answer the scenario's own position before the page asks, as its iterations have to be priced first.

        If that takes long, it continues while the page is served.
        """
        warming = threading.Thread(target=self._answer_own, daemon=True)
        warming.start()
        warming.join(SECONDS_TO_WARM_UP)

    def _answer_own(self) -> None:
        with suppress(Exception):  # of a plug-in; the page shows it
            self.answered({})

    def price_ahead(self) -> None:
        """Simulate every bandwidth of the slider, nearest first, so that iterations there are priced already.

        An iteration is priced once for each bandwidth, which takes longer than all else. Answers go first.
        """
        for control in self.controls:
            if control.field != "network.bandwidth_factor":
                continue
            own = control.axis.own
            for value in sorted(control.axis.values, key=lambda value: abs(value - own) / (value + own)):
                scenario = scenario_at(self.learning.template, self.controls, {control.field: value})
                runs = runs_of(scenario, num_seeds=1)
                while not self._ended.is_set():
                    if self._num_waiting:
                        time.sleep(0.02)
                        continue
                    with self._lock:
                        if next(runs, None) is None:
                            break

    def close(self) -> bool:
        """Stop starting simulations and wait for the current one. Return whether it has ended.

        Threads that compute while the interpreter shuts down can abort the process.
        """
        self._ended.set()
        return self._lock.acquire(timeout=SECONDS_TO_STOP)


def application(explorer: Explorer, html: str) -> Starlette:
    """Application with the page, its files, and the answers."""

    async def page(request: Request) -> Response:  # noqa: ARG001
        return Response(html, media_type="text/html", headers=HEADERS)

    async def asset(request: Request) -> Response:
        media_type, text = assets()[request.url.path.lstrip("/")]
        return Response(text, media_type=media_type, headers=HEADERS)

    async def simulate(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin and urlsplit(origin).netloc != request.headers.get("host"):
            return PlainTextResponse("another origin", 403)
        body = await request.body()
        try:
            values = json.loads(body) if len(body) <= MOST_BYTES else None
            if not isinstance(values, dict):
                raise ValueError("send an object of fields and numbers")
            found = await run_in_threadpool(explorer.answered, values)
        except (ValueError, RuntimeError, ArithmeticError) as error:
            return JSONResponse({"error": str(error)}, 422, headers=HEADERS)
        except Exception as error:  # of a plug-in
            return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 500, headers=HEADERS)
        return JSONResponse(found, headers=HEADERS)

    routes = [Route("/", page), *(Route(f"/{name}", asset) for name in assets())]
    routes.append(Route("/simulate", simulate, methods=["POST"]))
    only_this_machine = Middleware(TrustedHostMiddleware, allowed_hosts=list(NAMES), www_redirect=False)
    return Starlette(routes=routes, middleware=[only_this_machine])


def listening(port: int | None) -> socket.socket:
    """Open a socket on the loopback address, at a port, or at PORT or any free one. ValueError if it is taken."""
    wanted = [PORT, 0] if port is None else [port]
    for each, following in pairwise([*wanted, None]):
        found = socket.socket()
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((HOST, each or 0))
            found.listen(128)
        except OSError as error:
            found.close()
            if following is None:
                why = error.strerror or str(error)
                raise ValueError(
                    f"--port {port}: cannot be used ({why}); give another port, or omit --port for a free one"
                ) from None
            continue
        return found
    raise AssertionError


def serve(explorer: Explorer, html: str, listener: socket.socket, when_ready: Callable[[], None]) -> None:
    """Serve until Ctrl-C (which is no error) or the signal to terminate."""
    ready = threading.Timer(SECONDS_TO_START, when_ready)
    try:
        ready.daemon = True
        ready.start()
        threading.Thread(target=explorer.price_ahead, daemon=True).start()
        options: dict[str, Any] = {"log_level": "critical", "lifespan": "off"}
        config = uvicorn.Config(application(explorer, html), timeout_graceful_shutdown=SECONDS_TO_STOP, **options)
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        listener.close()
