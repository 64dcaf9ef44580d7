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
        int | None, typer.Option(min=1, max=65535, help="Port of this machine; default: 8421, or any free one.")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address, and open no browser.")] = False,
    no_training: Annotated[
        bool, typer.Option("--no-training", help="Show seconds alone, and begin without training.")
    ] = False,
) -> None:
    """Open a page of this machine with sliders: failure rate, bandwidth, checkpoint interval, spare nodes.

    Seconds are simulated afresh for every position; losses are predicted from single failures, which are trained first
    unless the cache has them. Ctrl-C ends it.
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
        say(f"Serving {address} on this machine alone. Ctrl-C ends it.")
        serve(explorer, html, listener, lambda: open_browser(address, no_browser))
    say("Ended.")
    if not explorer.close():
        sys.stdout.flush()
        os._exit(0)


def open_browser(address: str, no_browser: bool) -> None:
    """Open the page in the user's browser, where there is a screen."""
    has_screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if has_screen and not no_browser:
        webbrowser.open(address)
