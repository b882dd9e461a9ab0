"""Header cards of the mock's files, under the published keywords (reference section 2.4)."""

from __future__ import annotations

from astropy.coordinates import Angle
from astropy.io import fits

from galpipe.mock.spec import MockSpec
from galpipe.survey.bricks import Brick, brick_wcs

MASK_BITS = {
    0: ("NPRIMARY", "PRIMARY", "not primary brick area"),
    1: ("BRIGHT", "BRIGHT", "bright star nearby"),
    2: ("SATUR_G", "SAT_G", "g band saturated"),
    3: ("SATUR_R", "SAT_R", "r band saturated"),
    4: ("SATUR_Z", "SAT_Z", "z band saturated"),
    5: ("ALLMASK_G", "ALL_G", "any ALLMASK_G bit set"),
    6: ("ALLMASK_R", "ALL_R", "any ALLMASK_R bit set"),
    7: ("ALLMASK_Z", "ALL_Z", "any ALLMASK_Z bit set"),
    8: ("WISEM1", "WISE1", "WISE W1 (all masks)"),
    9: ("WISEM2", "WISE2", "WISE W2 (all masks)"),
    10: ("BAILOUT", "BAIL", "Bailed out of processing"),
    11: ("MEDIUM", "MED", "medium-bright star"),
    12: ("GALAXY", "GALAXY", "SGA large galaxy"),
    13: ("CLUSTER", "CLUSTER", "Globular cluster"),
    14: ("SATUR_I", "SAT_I", "i band saturated"),
    15: ("ALLMASK_I", "ALL_I", "any ALLMASK_I bit set"),
    16: ("SUB_BLOB", "SUBBLOB", "Fit on a sub-blob"),
    17: ("RESOLVED", "RESOLV", "Resolved dwarf galaxy"),
    18: ("MCLOUDS", "MCLOUDS", "Magellanic Clouds"),
    19: ("WISE_GAIA", "WGAIA", "WISE bright Gaia star"),
}
"""Bit: (name, short name of the DR9 value card, comment)."""

FIT_BITS = (
    "FORCED_POINTSOURCE",
    "FIT_BACKGROUND",
    "HIT_RADIUS_LIMIT",
    "HIT_SERSIC_LIMIT",
    "FROZEN",
    "BRIGHT",
    "MEDIUM",
    "GAIA",
    "TYCHO2",
    "LARGEGALAXY",
    "WALKER",
    "RUNNER",
    "GAIA_POINTSOURCE",
    "ITERATIVE",
)
WISE_BITS = ("BRIGHT", "SPIKE", "GHOST", "LATENT", "LATENT2", "HALO", "SATUR", "SPIKE2")
ANY_BITS = {0: "BADPIX", 1: "SATUR", 2: "INTERP", 4: "CR", 6: "BLEED", 7: "TRANS", 8: "EDGE", 9: "EDGE2", 11: "OUTLIER"}

LAST_MASK_BIT = {"dr8": 13, "dr9": 13, "dr10": 16, "dr11": 19}

PRODTYPE = {"image": "image", "invvar": "wtmap", "nexp": "expmap", "psfsize": "psfsize", "maskbits": "maskbits"}
BUNIT = {"image": "nanomaggy", "invvar": "1/nanomaggy^2", "psfsize": "arcsec"}


def base_header(spec: MockSpec, area: Brick) -> fits.Header:
    """Cards that images and tables of a brick share."""
    header = fits.Header()
    camera = ("90prime", "90prime+mosaic") if spec.region == "north" else ("decam", "decam")
    header["LEGPIPEV"] = ("galpipe-mock", "legacypipe git version")
    header["LSDIR"] = ("none", "$LEGACY_SURVEY_DIR directory")
    header["LSDR"] = (spec.like.upper(), "Data release number")
    if spec.like != "dr11":
        header["RUNDATE"] = ("2021-01-01T00:00:00", "runbrick.py run time")
    header["SURVEY"] = ("DESI Legacy Imaging Surveys mock", "The LegacySurveys")
    header["SURVEYID"] = ("BASS MzLS" if spec.region == "north" else "DECaLS", "Survey name")
    header["DRVERSIO"] = (spec.release, "LegacySurveys Data Release number")
    header["OBSTYPE"] = ("object", "Observation type")
    header["PROCTYPE"] = ("tile", "Processing type")
    header["CMDLINE"] = ("galpipe mock", "runbrick command-line")
    header["BRICK"] = (area.name, "LegacySurveys brick RRRr[pm]DDd")
    header["BRICKID"] = (area.brickid, "LegacySurveys brick id")
    header["RAMIN"] = (area.ra1, "Brick RA min (deg)")
    header["RAMAX"] = (area.ra2, "Brick RA max (deg)")
    header["DECMIN"] = (area.dec1, "Brick Dec min (deg)")
    header["DECMAX"] = (area.dec2, "Brick Dec max (deg)")
    header["RA"] = (Angle(area.ra, "deg").to_string("hour", sep=":", pad=True, precision=3), "Brick center RA (hms)")
    header["DEC"] = (Angle(area.dec, "deg").to_string("deg", sep=":", pad=True, precision=3, alwayssign=True), "Brick center DEC (dms)")
    header["CENTRA"] = (area.ra, "Brick center RA (deg)")
    header["CENTDEC"] = (area.dec, "Brick center Dec (deg)")
    corners = brick_wcs(area).all_pix2world([[0.5, 0.5], [3600.5, 0.5], [3600.5, 3600.5], [0.5, 3600.5]], 1)
    for k, (ra, dec) in enumerate(corners, 1):
        header[f"CORN{k}RA"] = (float(ra), "Brick corner RA (deg)")
        header[f"CORN{k}DEC"] = (float(dec), "Brick corner Dec (deg)")
    header["INSTRUME"] = (camera[0], "Instrument name")
    return header


def add_wcs(header: fits.Header, area: Brick) -> None:
    """The brick's TAN grid, with the published cards only."""
    cards = brick_wcs(area).wcs
    header["CTYPE1"], header["CTYPE2"] = ("RA---TAN", "TANgent plane"), ("DEC--TAN", "TANgent plane")
    header["CRVAL1"], header["CRVAL2"] = (area.ra, "Reference RA"), (area.dec, "Reference Dec")
    header["CRPIX1"], header["CRPIX2"] = (float(cards.crpix[0]), "Reference x"), (float(cards.crpix[1]), "Reference y")
    for i in (1, 2):
        for j in (1, 2):
            header[f"CD{i}_{j}"] = (float(cards.cd[i - 1][j - 1]), "CD matrix")
    header["EQUINOX"] = (2000.0, "Observation epoch")


def image_header(spec: MockSpec, area: Brick, product: str, band: str) -> fits.Header:
    """Header of a coadd image; ``band`` is empty for maskbits."""
    header = base_header(spec, area)
    add_wcs(header, area)
    if band:
        header["FILTER"] = (band, "Filter name")
        header["FILTERX"] = (band, "Filter short name")
        header["MJD_MIN"], header["MJD_MAX"] = (57400.0, "[TAI]"), (58500.0, "[TAI]")
        header["MJD_MEAN"] = (57950.0, "[TAI]")
        header["DATEOBS1"] = ("2016-01-13T00:00:00.000", "[UTC] first image in the stack")
        header["DATEOBS2"] = ("2019-01-17T00:00:00.000", "[UTC] last image in the stack")
        header["DATEOBS"] = ("2017-07-16T00:00:00.000", "[UTC] Mean observation date")
        header[f"COSKY_{band.upper()}"] = (0.0, "Sky level subtracted from coadd")
    header["IMTYPE"] = (product, "LegacySurveys image type")
    header["PRODTYPE"] = (PRODTYPE[product], "NOAO image type")
    if product == "image":
        header["MAGZERO"] = (22.5, "Magnitude zeropoint")
    if product in BUNIT:
        header["BUNIT"] = (BUNIT[product], "AB mag = 22.5 - 2.5*log10(nmgy)")
    return header


def add_bits(header: fits.Header, like: str, table: bool) -> None:
    """Cards that name the bits: MBIT_n (DR8: MBITNn), WBIT_n, in tables FBIT_n (from DR9) and ABIT_n; value cards MB_xxx in DR9."""
    for bit, (name, short, comment) in MASK_BITS.items():
        if bit > LAST_MASK_BIT[like]:
            continue
        if like == "dr9":
            header[f"MB_{short}"[:8]] = (1 << bit, f"Mask value: {comment}")
        header[f"MBITN{bit}" if like == "dr8" else f"MBIT_{bit}"] = (name, f"maskbits bit {bit}: {comment}")
    for bit, name in enumerate(WISE_BITS):
        header[f"WBIT_{bit}"] = (name, f"wisemask bit {bit}")
    if table:
        for bit, name in enumerate(() if like == "dr8" else FIT_BITS):
            header[f"FBIT_{bit}"] = (name, f"fitbits bit {bit}")
        for bit, name in ANY_BITS.items():
            header[f"ABIT_{bit}"] = (name, f"any/allmask bit {bit}")
