"""What a run was asked for, checked before anything runs."""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from catalogs.collection import Binding, bind
from catalogs.lease import ROOT_LEASE, Lease
from catalogs.ledger import Ledger, ledger_of
from galpipe.code_version import code_version
from galpipe.commit import write_bytes
from galpipe.config import FetchSettings, Settings, settings_from
from galpipe.errors import ConfigurationError, GalpipeError, ResourceFailure
from galpipe.lvm.folder import model_hash
from galpipe.lvm.registry import model_folder
from tasks.context import RunContext
from tasks.mend import close_killed, close_run, sweep_catalog
from tasks.recipe import remember_recipe

KEEP = ("bricks", "stamps")

_LOG = logging.getLogger(__name__)

LEASE_SECONDS = 120.0
"""How long a coordinator that died keeps others away, if they cannot see that its process is gone."""


WAIT_SECONDS = 3600.0
"""How long a run waits, unless told otherwise, for another one on its root to end."""


@dataclass(frozen=True)
class OpenRun:
    """A run that holds the lease.

    Parameters
    ----------
    context : RunContext
    ledger : Ledger
    stop : threading.Event
        Set when the run must not go on: the lease was lost, or a tile failed.
    """

    context: RunContext
    ledger: Ledger
    stop: threading.Event


@dataclass(frozen=True)
class RunRequest:
    """One request to process a region.

    Parameters
    ----------
    release, region : str
        As on the command line.
    root : Path
    name : str
        The catalog's name.
    alias : str
        Name for a release given by folder or URL.
    publish, report, force, check_remote, quiet : bool
    check_files : bool
        With ``check_remote``: ask for each brick's own list, however many there are.
    rebind : bool
        Let the catalog change its configuration or model; what differs is done again.
    wait : float
        Seconds to wait for another run on the root to end; 0 to be refused at once.
    keep : tuple of str or None
        What stays on disk after use; None keeps both for a region and neither for ``all``.
    settings : Settings
    """

    release: str
    region: str
    root: Path
    name: str = "main"
    alias: str = ""
    publish: bool = True
    report: bool = True
    force: bool = False
    check_remote: bool = False
    check_files: bool = False
    quiet: bool = False
    rebind: bool = False
    wait: float = WAIT_SECONDS
    keep: tuple[str, ...] | None = None
    settings: Settings = field(default_factory=Settings)

    @classmethod
    def build(cls, release: str, region: str, place: tuple[str, str], options: dict[str, Any]) -> RunRequest:
        """From plain values, as a Prefect deployment stores them.

        Parameters
        ----------
        release, region : str
        place : tuple of str
            Root folder and catalog name.
        options : dict
            Other fields; ``settings`` as nested tables.

        Raises
        ------
        ConfigurationError
            If an option or a setting is unknown.
        """
        known = {item.name for item in fields(cls)} - {"release", "region", "root", "name"}
        if set(options) - known:
            raise ConfigurationError(f"options among {sorted(known)}", repr(sorted(set(options) - known)))
        values = dict(options)
        values["settings"] = settings_from(values.get("settings") or {})
        if values.get("keep") is not None:
            values["keep"] = tuple(values["keep"])
        request = cls(release, region, Path(place[0]).absolute(), place[1])
        return replace(request, **values)

    def __post_init__(self) -> None:
        unknown = [item for item in self.keep or () if item not in KEEP]
        if unknown:
            raise ConfigurationError(f"--keep with {KEEP}", repr(unknown))

    @property
    def fetch_settings(self) -> FetchSettings:
        """What is fetched: the bands of a stamp, unless others are named; one that the release lacks is recorded as absent."""
        fetch = self.settings.fetch
        return fetch if fetch.bands else replace(fetch, bands=self.settings.cut.bands)

    def context(self, run_id: str) -> RunContext:
        """The run's fixed facts."""
        keep = self.keep if self.keep is not None else (() if self.region == "all" else KEEP)
        settings = replace(self.settings, fetch=self.fetch_settings)
        folder = model_folder(self.settings.infer.model, self.root / "models")
        return RunContext(
            root=self.root,
            name=self.name,
            run_id=run_id,
            settings=settings,
            model_folder=folder,
            model_hash=model_hash(folder),
            code_version=code_version(),
            keep_bricks="bricks" in keep,
            keep_stamps="stamps" in keep,
            force=self.force,
        )

    @contextmanager
    def open_run(self) -> Iterator[OpenRun]:
        """Take the root's lease, bind the catalog's name, note the run; give the lease back at the end.

        One coordinator works on a root at a time: catalogs of other names share its bricks and stamps. While another does, this one
        waits, for ``wait`` seconds at most; what is left to do is looked up afterwards.

        Raises
        ------
        ConfigurationError
            If another coordinator is still at work, or the name is bound to another configuration.
        """
        context, stop = self.context(new_run_id()), threading.Event()
        with (
            ledger_of(context.layout) as ledger,
            ledger.lease(ROOT_LEASE, context.run_id, LEASE_SECONDS, self.wait) as lease,
            _renewed(lease, stop),
        ):
            bind(context.layout, self.name, self.binding(context), switch=self.rebind)
            remember_recipe(context)
            # a lost ledger costs nothing but this
            ledger.restore(context.layout, self.name)
            sweep_catalog(context.layout, self.name)
            close_killed(context.layout, ledger, self.name, context.run_id)
            ledger.start_run(context.run_id, self.name, self.as_dict())
            write_bytes(context.layout.run_folder(context.run_id) / "request.json", json.dumps(self.as_dict(), indent=1).encode())
            try:
                yield OpenRun(context, ledger, stop)
            except BaseException:
                # on a full disk this is refused too: the next run closes it
                with suppress(GalpipeError):
                    close_run(context.layout, ledger, self.name, context.run_id, "failed")
                raise

    def binding(self, context: RunContext) -> Binding:
        """What the catalog's name is bound to by this request."""
        # how files are fetched and where Dask runs change no row
        settings = {part: values for part, values in self.settings.as_dict().items() if part in ("cut", "selection", "infer")}
        # the ids of a list, not the path of its file
        settings["selection"] = self.settings.selection.identity()
        model = settings["infer"].pop("model")
        return Binding(settings, model, context.model_hash)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; `build` reads them back."""
        return {
            "release": self.release,
            "region": self.region,
            "root": str(self.root),
            "name": self.name,
            "alias": self.alias,
            "publish": self.publish,
            "report": self.report,
            "force": self.force,
            "check_remote": self.check_remote,
            "check_files": self.check_files,
            "wait": self.wait,
            "keep": self.keep,
            "settings": self.settings.as_dict(),
        }


@contextmanager
def _renewed(lease: Lease, stop: threading.Event) -> Iterator[None]:
    """Put off the lease's expiry, from a thread, while the block runs; set ``stop`` if the lease is lost.

    A ledger that does not answer for a moment is asked again: the lease holds for several tries.
    """
    over = threading.Event()

    def renew() -> None:
        renewed = time.monotonic()
        while not over.wait(LEASE_SECONDS / 6):
            try:
                lease.renew()
                renewed = time.monotonic()
            except (ResourceFailure, SQLAlchemyError) as error:
                taken = isinstance(error, ResourceFailure)
                if taken or time.monotonic() - renewed > LEASE_SECONDS / 2:
                    _LOG.error("the run stops: %s", error)
                    stop.set()
                    return

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def new_run_id() -> str:
    """Sorts by time and never repeats."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
