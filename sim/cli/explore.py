"""The command `churnlab explore`."""

from __future__ import annotations

import os
import sys
import webbrowser
from contextlib import suppress
from importlib.util import find_spec
from typing import Annotated

import typer

from sim.cli.options import CacheFolder, Jobs, NoCache, Overrides, ScenarioPath, cache_folder, say, with_locations
from sim.cli.progress import Display

app = typer.Typer()


@app.command()
@with_locations
def explore(
    scenario_path: ScenarioPath,
    overrides: Overrides = None,
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    jobs: Jobs = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port on this machine; default: 8421, or any free port.")
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address without opening a browser.")
    ] = False,
    no_training: Annotated[bool, typer.Option("--no-training", help="Show times only, and train nothing.")] = False,
) -> None:
    """Open a page with sliders for failure rate, bandwidth, checkpoint interval and spare nodes.

    Only this machine can reach the page. Times are simulated again for every position of the sliders. Losses are
    predicted from single failures, which are trained first unless they are in the cache. Press Ctrl-C to stop.
    """
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise ValueError("the page needs the extra: pip install 'churnlab[explore]'")
    from sim.exploring.controls import controls_of
    from sim.exploring.learning import measured
    from sim.exploring.page import page
    from sim.exploring.server import Explorer, listening, serve
    from sim.scenario.axes import ScenarioTemplate

    template = ScenarioTemplate(scenario_path, overrides or ())
    controls, listener = controls_of(template), listening(port)
    with cache_folder(cache, no_cache) as folder, Display() as display:
        learning = measured(template, folder, jobs, display, not no_training)
    html = page(scenario_path, controls, learning)
    address = f"http://{listener.getsockname()[0]}:{listener.getsockname()[1]}/"
    explorer = Explorer(learning, controls)
    with suppress(KeyboardInterrupt):
        explorer.warm_up()
        say(f"Serving {address} for this machine only. Press Ctrl-C to stop.")
        serve(explorer, html, listener, lambda: open_browser(address, no_browser))
    say("Stopped.")
    if not explorer.close():
        sys.stdout.flush()
        os._exit(0)


def open_browser(address: str, no_browser: bool) -> None:
    """Open the page in the user's browser, where there is a screen."""
    has_screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if has_screen and not no_browser:
        webbrowser.open(address)
