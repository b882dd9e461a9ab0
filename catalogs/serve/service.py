"""One catalog as a service: what each address answers, without the HTTP around it. Every method may be called by many threads."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from catalogs.hats import manifest, version_folder
from catalogs.query import Catalog
from catalogs.serve.cone import Cone, columns_of, search
from catalogs.serve.cutout import Cutout, fits_of, picture_of
from catalogs.serve.limits import Limits
from catalogs.serve.obscore import FITS, OBSCORE
from catalogs.serve.pages import TEMPLATES, render
from catalogs.serve.params import Parameters
from catalogs.serve.pool import CatalogPool, Opened
from catalogs.serve.region import Circle
from catalogs.serve.sia import Images, images
from catalogs.serve.stamps import StampShelves
from catalogs.serve.votable import Answer, field_of
from galpipe.errors import GalpipeError
from galpipe.layout import Layout

SHOWN_STAMPS, SHOWN_RADIUS = 12, 0.05


@dataclass(frozen=True)
class Example:
    """A position of the catalog to ask about."""

    ra: float
    dec: float


class Service:
    """A catalog to be asked by the Virtual Observatory's protocols.

    Parameters
    ----------
    layout : Layout
    name : str
    version : int, optional
        A published version; without it the newest at every request.
    limits : Limits, optional
    """

    def __init__(self, layout: Layout, name: str, version: int | None = None, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._layout, self._name, self._version = layout, name, version
        self._pool = CatalogPool(layout, name, version, self.limits.workers, self.limits.wait)
        self._shelves = StampShelves(layout, name)
        self._since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._examples: dict[int, Example | None] = {}

    def close(self) -> None:
        """Close what no request is using."""
        self._pool.close()

    def version(self) -> int:
        """The version that a request is answered from now.

        Raises
        ------
        ConfigurationError
            If there is none.
        """
        return int(version_folder(self._layout, self._name, self._version).name[1:])

    def cone(self, parameters: Parameters) -> Answer:
        """Rows around a position; see `catalogs.serve.cone`."""
        wanted = Cone.read(parameters, self.limits)
        with self._pool.catalog() as opened:
            answer = search(opened.catalog, wanted)
        return self._titled(answer, "galaxies", opened.version)

    def images(self, parameters: Parameters, base: str) -> Answer:
        """Stamps in a part of the sky; see `catalogs.serve.sia`.

        Parameters
        ----------
        parameters : Parameters
        base : str
            Address of the service, which ends in ``/``.
        """
        wanted = Images.read(parameters, self.limits)
        with self._pool.catalog() as opened:
            answer = images(opened.catalog, self._shelves, wanted, (self._name, base))
        return self._titled(answer, "stamps", opened.version)

    def _titled(self, answer: Answer, what: str, version: int) -> Answer:
        title = f"Catalog {self._name}, version {version}: {what}"
        return Answer(answer.table, answer.overflow, title, (("version", str(version)), *answer.infos), answer.soda)

    def cutout(self, parameters: Parameters) -> bytes | None:
        """FITS of a stamp or a part of it; None where the part lies beside it."""
        wanted = Cutout.read(parameters, self.limits)
        with self._pool.catalog() as opened:
            return fits_of(opened.catalog, self._shelves, wanted, (self._name, opened.version))

    def stamp(self, source_id: int, form: str) -> bytes:
        """A stamp as FITS or as picture."""
        with self._pool.catalog() as opened:
            if form != FITS:
                return picture_of(opened.catalog, self._shelves, source_id)
            whole = fits_of(opened.catalog, self._shelves, Cutout(source_id, None), (self._name, opened.version))
        assert whole is not None, "only a circle can lie beside a stamp"  # noqa: S101
        return whole

    def availability(self) -> str:
        """VOSI availability: whether there is a version to answer from."""
        try:
            note, available = f"catalog {self._name}, version {self.version()}", True
        except GalpipeError:
            note, available = f"catalog {self._name} has no published version", False
        return render("availability.xml.jinja", {"available": available, "since": self._since, "note": note})

    def capabilities(self, base: str) -> str:
        """VOSI capabilities: which protocols are spoken where."""
        with self._pool.catalog() as opened:
            example = self._example(opened)
        values = {"base": base, "limits": self.limits, "example": example}
        return render("capabilities.xml.jinja", values)

    def tables(self) -> str:
        """VOSI tables: every column of the two tables."""
        with self._pool.catalog() as opened:
            values = {"name": self._name, "version": opened.version, "tables": _tables(opened.catalog)}
        return render("tables.xml.jinja", values)

    def page(self, base: str) -> str:
        """The start page."""
        with self._pool.catalog() as opened:
            example, tables = self._example(opened), _tables(opened.catalog)
            told = manifest(version_folder(self._layout, self._name, opened.version))
            shown = self._shown(opened.catalog, example, base)
        values = {
            "name": self._name,
            "version": opened.version,
            "rows": f"{told['rows']:,}",
            "created": told["created"],
            "fixed": self._version is not None,
            "base": base,
            "limits": self.limits,
            "example": example,
            "queries": _queries(example) if example else (),
            "stamps": shown,
            "tables": tables,
            "style": style(),
        }
        return render("index.html.jinja", values)

    def _shown(self, catalog: Catalog, example: Example | None, base: str) -> list[dict[str, Any]]:
        if example is None:
            return []
        wanted = Images((Circle(example.ra, example.dec, SHOWN_RADIUS),), (), Parameters(()), FITS, SHOWN_STAMPS)
        return images(catalog, self._shelves, wanted, (self._name, base)).table.to_pylist()

    def _example(self, opened: Opened) -> Example | None:
        if opened.version not in self._examples:
            rows = opened.catalog.sql("SELECT ra, dec FROM galaxies WHERE ra IS NOT NULL LIMIT 1").to_pylist()
            self._examples[opened.version] = Example(round(rows[0]["ra"], 5), round(rows[0]["dec"], 5)) if rows else None
        return self._examples[opened.version]


def _queries(example: Example) -> tuple[tuple[str, str], ...]:
    place = f"{example.ra} {example.dec}"
    return (
        ("Galaxies within 0.02 deg", f"scs?RA={example.ra}&DEC={example.dec}&SR=0.02"),
        ("The same with every column, as CSV", f"scs?RA={example.ra}&DEC={example.dec}&SR=0.02&VERB=3&RESPONSEFORMAT=csv"),
        ("Stamps that touch a circle", f"sia?POS=CIRCLE {place} 0.02".replace(" ", "%20")),
    )


def _tables(catalog: Catalog) -> list[dict[str, Any]]:
    fields = [field_of(catalog.schema.field(name)) for name in columns_of(catalog.schema, 3)]
    nested = [name for name in catalog.schema.names if name not in {item.name for item in fields}]
    left = f" Not in these answers, as they are nested: {', '.join(nested)}." if nested else ""
    return [
        {"name": "galaxies", "description": f"One row per galaxy: what scs gives with VERB=3.{left}", "fields": fields},
        {
            "name": "stamps",
            "description": "One row per stamp that is kept: what sia gives.",
            "fields": [field_of(item) for item in OBSCORE],
        },
    ]


def style() -> str:
    """The start page's style sheet."""
    return (TEMPLATES / "index.css").read_text()


def content_security_policy() -> str:
    """What a browser may load for an answer: its own pictures and this one style sheet; no script, no frame, no form."""
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode()
    return f"default-src 'none'; img-src 'self'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
