"""The verbs about the machine: doctor and bench."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from flows.cli.common import config_option, emit, finish, json_option, root_option, say, verb

MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


@click.command()
@root_option
@config_option
@json_option
@verb
def doctor(root: Path, config: Path | None, as_json: bool) -> None:
    """Show what was found here and would be used. Exit status 1 when something necessary is broken."""
    from flows.machine import examine
    from galpipe.config import load_settings

    checks = examine(root, load_settings(config))
    counts = {"ok": 0, "warn": 0, "fail": 0} | Counter(check.state for check in checks)
    broken = [{"unit": "", "file": "", "kind": check.name, "reason": check.text} for check in checks if check.state == "fail"]
    lines = [f"{MARKS[check.state]}  {check.name:<14} {check.text}" for check in checks]
    verdict = "broken: a run will not work" if broken else "ready"
    lines.append(f"{verdict} ({counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failures)")
    result = {"status": "failed" if broken else "ok", "counts": counts, "failures": broken, "checks": [check.as_dict() for check in checks]}
    finish(result, as_json, "\n".join(lines))


@click.command()
@click.argument("name", required=False)
@click.option("--galaxies", default=250, show_default=True, help="Stamps that are measured.")
@click.option("--repeats", default=3, show_default=True, help="Measurements, of which the median counts.")
@click.option("--bricks", type=click.Path(exists=True, dir_okay=False), help="File of names of bricks that changed (publish).")
@json_option
@verb
def bench(name: str | None, galaxies: int, repeats: int, bricks: str | None, as_json: bool) -> None:
    """Measure figures of this project as ratios within one run; without NAME, list them."""
    from flows.bench.figures import BENCHES, Size, measure

    if name is None:
        listed = {key: item.about for key, item in BENCHES.items()}
        text = "\n".join(f"{key:<10} {about}" for key, about in listed.items())
        emit({"status": "ok", "counts": {"benches": len(listed)}, "failures": [], "benches": listed}, as_json, text)
        return
    say(f"bench {name}: {galaxies} stamps, median of {repeats}; other work on this machine shows in the figures")
    result = measure(name, Size(galaxies, repeats, bricks or ""))
    lines = [f"{figure['name']:<28} {figure['value']:>9.3f} {figure['unit']:<8} {figure['what']}" for figure in result["figures"]]
    emit({"status": "ok", "counts": {"figures": len(lines)}, "failures": [], **result}, as_json, "\n".join(lines))
