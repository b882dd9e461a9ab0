"""The verbs that make catalogs: demo, mock, run, stamps, publish."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from flows.cli.common import config_option, emit, finish, human_bytes, json_option, name_option, root_option, say, verb, wait_option
from flows.prefect_home import configure_prefect
from flows.progress import ProgressBoard, duration

# Prefect, torch and lsdb take seconds to import: each verb imports what it needs, so that `galpipe query` starts at once.


def summary_text(result: dict[str, Any]) -> str:
    """A run's summary for people."""
    counts, published = result["counts"], result.get("publication") or {}
    lines = [
        f"run {result['run_id']}: {result['status']} in {duration(result['seconds'])}",
        f"  bricks   {counts['bricks']}: {counts['done']} done, {counts['up_to_date']} up to date, {counts['no_work']} without work, "
        f"{counts['failed_bricks']} failed",
        f"  sources  {counts['sources']}: {counts['predicted']} predicted, {counts['filtered']} filtered, {counts['failed']} failed; "
        f"{counts['detections']} detections",
    ]
    lines += change_lines(result.get("changes") or {}, result.get("remote"), names=0)
    if counts["bricks"] and counts["up_to_date"] == counts["bricks"]:
        lines.append("  nothing to do: every brick is up to date")
    if result.get("worker_peak_memory"):
        lines.append(f"  memory   {human_bytes(result['worker_peak_memory'])} at most in a worker")
    if published:
        lines.append(f"  catalog  version {published['version']} ({published['status']}), {published['rows']} rows, {published['path']}")
    if result.get("report"):
        lines.append(f"  report   {result['report']}")
    lines += [f"  absent   {item['unit']}: {item['reason']}" for item in result["absent"][:10]]
    lines += [f"  note     {item['bricks']} bricks: {item['reason']}" for item in result["notes"][:10]]
    # a reason begins with its unit and file
    lines += [f"  FAILED   {item['reason'].splitlines()[0]}" for item in result["failures"][:20]]
    return "\n".join(lines)


@click.command()
@click.option("--release", required=True, help="dr8 to dr11, ls-dr10, a folder, a URL (http, https, s3), or REGION=RELEASE,REGION=RELEASE.")
@click.option("--region", required=True, help="cone:RA,DEC,DEG  box:RA1,RA2,DEC1,DEC2  bricks:A,B  moc:FILE  all")
@root_option
@name_option
@click.option("--as", "alias", default="", help="Name for a release given by folder or URL (default: its last part).")
@config_option
@click.option("--keep", default=None, help="What stays on disk: bricks,stamps or none (default: both; neither for 'all').")
@click.option("--publish/--no-publish", default=True, show_default=True, help="Publish a new version at the end.")
@click.option("--report/--no-report", default=True, show_default=True, help="Write the run's page.")
@click.option("--force", is_flag=True, help="Do again what is up to date.")
@click.option("--check-remote", is_flag=True, help="Ask the release, by its checksum lists, whether files of finished bricks changed.")
@click.option("--check-files", is_flag=True, help="The same, with each brick's own list however many bricks: one request each.")
@click.option("--switch", is_flag=True, help="Let the catalog change its configuration or model.")
@wait_option
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@json_option
@verb
def run(
    release: str,
    region: str,
    root: Path,
    name: str,
    alias: str,
    config: Path | None,
    keep: str | None,
    publish: bool,
    report: bool,
    force: bool,
    check_remote: bool,
    check_files: bool,
    switch: bool,
    wait: float,
    dry_run: bool,
    as_json: bool,
) -> None:  # one parameter per option of the command line
    """Process a region of a release into a catalog."""
    from galpipe.config import load_settings

    kept = None if keep is None else [] if keep == "none" else keep.split(",")
    settings = load_settings(config).as_dict()
    options = {
        "alias": alias,
        "publish": publish,
        "force": force,
        "check_remote": check_remote or check_files,
        "check_files": check_files,
        "keep": kept,
        "rebind": switch,
        "wait": wait,
        "settings": settings,
    }
    # a run asks the release itself
    plan = _plan(release, region, (str(root), name), options | {"check_remote": dry_run and (check_remote or check_files)})
    if dry_run:
        emit({**plan, "status": "ok"}, as_json, plan_text(plan))
        return
    say(plan_text(plan))
    finish(result := run_survey(release, region, (root, name), options), as_json, summary_text(result))


def _plan(release: str, region: str, place: tuple[str, str], options: dict[str, Any]) -> dict[str, Any]:
    from flows.planning import dry_run
    from flows.request import RunRequest

    return dry_run(RunRequest.build(release, region, place, options))


def plan_text(plan: dict[str, Any]) -> str:
    """A plan for people."""
    counts = plan["counts"]
    text = f"plan: {counts['bricks']} bricks ({counts['to_do']} to do), about {counts['files']} files, {human_bytes(plan['bytes'])}"
    bands = "; ".join(f"{region}: {' '.join(bands) or 'none'}" for region, bands in plan["bands"].items())
    missing = f"\n  not in the release: {', '.join(plan['missing'])}" if plan["missing"] else ""
    notes = "".join(f"\n  note: {note}" for note in plan["notes"])
    changes = "".join(f"\n{line}" for line in change_lines(plan["changes"], plan["remote"]))
    return f"{text}; bands {bands}{missing}{notes}{changes}"


REDO_WORDS = {"brick": "from the files on", "inference": "the model again", "heads": "only the heads that differ"}


def change_lines(changes: dict[str, Any], remote: dict[str, Any] | None, names: int = 3) -> list[str]:
    """What changed and why, for people: a line per cause, with its first bricks."""
    lines = []
    if remote:
        whole = "" if remote["own_lists"] else "; only their Tractor tables' lists (--check-files asks for each brick's own)"
        lines.append(
            f"  asked    {remote['requests']} requests for {remote['bricks']} bricks, {remote['unchanged']} lists unchanged{whole}"
        )
    if not changes.get("to_do"):
        return lines
    parts = [f"{bricks} {REDO_WORDS[redo]}" for redo, bricks in changes["redo"].items() if bricks]
    lines.append(f"  changes  {changes['up_to_date']} up to date, {changes['to_do']} to do: {', '.join(parts)}")
    for cause in changes["causes"]:
        some = " ".join(unit.rpartition("/")[2] for unit in cause["units"][:names])
        more = " ..." if names and cause["bricks"] > names else ""
        lines.append(f"    {cause['bricks']} {cause['text']}{': ' + some + more if some else ''}")
    return lines


def run_survey(release: str, region: str, place: tuple[Path, str], options: dict[str, Any]) -> dict[str, Any]:
    """Run the survey flow in this process and write its report."""
    root, name = place[0].absolute(), place[1]
    configure_prefect(root)
    from flows.survey import survey

    return survey(release, region, str(root), name, options)


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--bricks", default=2, show_default=True, help="Neighbouring bricks.")
@click.option("--seed", default=1, show_default=True)
@click.option("--like", type=click.Choice(["dr8", "dr9", "dr10", "dr11"]), default="dr9", show_default=True, help="Release to imitate.")
@click.option("--galaxies", default=250, show_default=True, help="Galaxies with z < 20 per brick.")
@click.option("--faint", type=float, metavar="MAG", help="Faintest z magnitude (default: 22.5, survey-like 23.7); plain 22.5 gives 1,500.")
@click.option(
    "--sky",
    type=click.Choice(["plain", "survey"]),
    default="plain",
    show_default=True,
    help="survey: as dirty and as crowded as the survey, 6,000 to 7,700 sources a brick.",
)
@json_option
@verb
def mock(out: Path, bricks: int, seed: int, like: str, galaxies: int, faint: float | None, sky: str, as_json: bool) -> None:
    """Make a mock release at OUT and its truth at OUT-truth."""
    from galpipe.mock.spec import MockSpec, faint_count
    from galpipe.mock.universe import survey_spec

    given = MockSpec(bricks=bricks, seed=seed, like=like, galaxies=galaxies)
    limit = faint if faint is not None else 22.5
    plain = replace(given, faint=faint_count(limit), faint_limit=limit)
    spec = plain if sky == "plain" else survey_spec(given, faint)
    result = make_mock(out, spec)
    counts = result["counts"]
    emit(
        result,
        as_json,
        f"{counts['bricks']} bricks, {counts['rows']} Tractor rows in {result['seconds']:.0f} s: {out}, truth {result['truth']}",
    )


def make_mock(out: Path, spec: Any) -> dict[str, Any]:
    """Make a mock release with a progress bar."""
    from galpipe.mock.release import make_release

    with ProgressBoard({"mock": spec.bricks}) as board:
        made = make_release(out, spec, lambda _what, done, total: board.update("mock", done, total))
    counts = {"bricks": len(made.bricks), "galaxies": made.galaxies, "rows": made.rows}
    return {
        "status": "ok",
        "counts": counts,
        "failures": [],
        "release": made.release,
        "truth": made.truth,
        "region": made.region,
        "bricks": list(made.bricks),
        "seconds": made.seconds,
    }


@click.command()
@click.option("--root", type=click.Path(path_type=Path, file_okay=False), default=Path("demo"), show_default=True)
@click.option("--bricks", default=2, show_default=True)
@click.option("--galaxies", default=250, show_default=True)
@json_option
@verb
def demo(root: Path, bricks: int, galaxies: int, as_json: bool) -> None:
    """Make a mock release, serve it over HTTP on this machine, and run everything on it."""
    from galpipe.mock.server import MockServer
    from galpipe.mock.spec import MockSpec

    started, root = time.monotonic(), root.absolute()
    release = root / "mock-dr9"
    if not release.exists():
        say(f"1/3 a mock release of {bricks} bricks: {release}")
        make_mock(release, MockSpec(bricks=bricks, galaxies=galaxies))
    with MockServer(release) as server:
        say(f"2/3 the survey flow, from {server.url}")
        result = run_survey(server.url, "all", (root, "main"), {"alias": "mock-dr9", "keep": ["bricks", "stamps"]})
    say("3/3 a question to the catalog")
    answer = _demo_query(root)
    result["total_seconds"] = round(time.monotonic() - started, 1)
    finish(result, as_json, f"{summary_text(result)}\n{answer}\n  total    {duration(result['total_seconds'])}")


DEMO_QUERY = """
SELECT count(*) AS galaxies, count(embedding) AS embeddings, sum(n_detections) AS detections,
       round(avg("smooth-or-featured_featured-or-disk_fraction"), 3) AS mean_featured,
       round(median(lvm_half_light_radius)::DOUBLE, 2) AS median_radius_arcsec
FROM galaxies
"""


def _demo_query(root: Path) -> str:
    from catalogs.query import open_catalog
    from galpipe.layout import Layout

    with open_catalog(Layout(root)) as catalog:
        row = catalog.sql(DEMO_QUERY).to_pylist()[0]
    return "  galpipe query: " + ", ".join(f"{key} {value}" for key, value in row.items())


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@root_option
@name_option
@config_option
@click.option("--publish/--no-publish", default=True, show_default=True)
@click.option("--switch", is_flag=True, help="Let the catalog change its configuration or model.")
@wait_option
@json_option
@verb
def stamps(
    files: tuple[Path, ...], root: Path, name: str, config: Path | None, publish: bool, switch: bool, wait: float, as_json: bool
) -> None:
    """Predict stamps that already exist: FITS cubes, Stein-layout HDF5, npz, images, or folders of them."""
    from galpipe.config import load_settings

    options = {"publish": publish, "rebind": switch, "wait": wait, "settings": load_settings(config).as_dict()}
    configure_prefect(root.absolute())
    from flows.stamps import stamps_flow

    finish(
        result := stamps_flow([str(path.resolve()) for path in files], str(root.absolute()), name, options), as_json, summary_text(result)
    )


@click.command()
@root_option
@name_option
@json_option
@verb
def publish(root: Path, name: str, as_json: bool) -> None:
    """Publish the shards as the catalog's next version; without changes there is no new one."""
    from catalogs.hats import publish as publish_version
    from galpipe.layout import Layout

    with ProgressBoard({"publish": 0}) as board:
        done = publish_version(Layout(root), name, lambda count, total: board.update("publish", count, total)).as_dict()
    text = f"version {done['version']} ({done['status']}): {done['rows']} rows, {done['partitions_written']} partitions written, "
    emit(
        {"status": "ok", "counts": {"rows": done["rows"]}, "failures": [], "publication": done},
        as_json,
        text + f"{done['partitions_linked']} linked",
    )
