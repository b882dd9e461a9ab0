"""The verb that answers the Virtual Observatory: serve."""

from __future__ import annotations

from pathlib import Path

import click

from flows.cli.common import emit, json_option, name_option, root_option, say, verb


@click.command()
@root_option
@name_option
@click.option(
    "--as-of",
    "wanted",
    metavar="VERSION|DATE",
    help="A version (3, v3) or an ISO date or time, UTC (default: the newest, also one that is published later).",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one.")
@click.option("--public", is_flag=True, help="Let other machines in: the catalog and its stamps become readable by whoever reaches --host.")
@click.option("--url", "base", default="", help="Address to write into answers, where a proxy stands before the server.")
@click.option("--max-radius", default=1.0, show_default=True, type=click.FloatRange(0, 10, min_open=True), help="Largest region, deg.")
@click.option("--max-rows", default=10_000, show_default=True, type=click.IntRange(1, 1_000_000), help="Most rows of an answer.")
@json_option
@verb
def serve(
    root: Path,
    name: str,
    wanted: str | None,
    host: str,
    port: int,
    public: bool,
    base: str,
    max_radius: float,
    max_rows: int,
    as_json: bool,
) -> None:  # one parameter per option of the command line
    """Answer cone searches and image requests (SCS, SIA 2.0, SODA) of TOPCAT, Aladin, pyvo, until Ctrl-C.

    Only this machine can ask, unless --public is given. Nothing can be written. There is no script in the page and no password.
    """
    from catalogs.serve.limits import Limits
    from catalogs.serve.server import Address, listen, make_server, url_of
    from catalogs.serve.service import Service
    from catalogs.versions import as_of
    from galpipe.layout import Layout

    address = Address(host, port, public, base)
    layout = Layout(root)
    service = Service(layout, name, as_of(layout, name, wanted), Limits(radius=max_radius, rows=max_rows))
    serving = service.version()
    with listen(address) as listening:
        url = url_of(listening)
        say(f"catalog {name!r}, version {serving}, at {base or url}" + (" for everybody who reaches it" if public else ""))
        say("Ctrl-C ends it")
        try:
            make_server(service, address).run([listening])
        except KeyboardInterrupt:
            pass
        finally:
            service.close()
    emit({"status": "ok", "counts": {}, "failures": [], "url": base or url, "version": serving}, as_json, "ended")
