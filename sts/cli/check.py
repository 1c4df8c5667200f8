"""`sts check`: everything that is wrong in a configuration, before it is started or reloaded."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from sts import settings
from sts.cli import common
from sts.settings import Settings, SettingsError


@click.command()
@click.argument("file", type=click.Path(readable=False, path_type=Path), required=False)
@common.config_option
@click.option("--effective", is_flag=True, help="Print the configuration in force as YAML; secrets are masked.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the configuration, for editors; reads no file.")
def check(*, file: Path | None, config: Path, effective: bool, schema: bool) -> None:
    r"""Check FILE (default: the configuration) and everything that it includes.

    Every fault is listed with file, line and path, and what would be right. Without one, what may well be a mistake is
    printed as a warning, and about how many bytes each audience's token has. Files and variables that hold secrets
    are read as `sts serve` would; no connection is made, so that an issuer that is down is no fault.

    \b
    Examples:
      sts check                           is the configuration right?
      sts check new.yaml && kill -HUP …   reload only what is right
      sts check --effective               defaults and included files merged
      sts check --schema > schema.json    completion in editors: "# yaml-language-server: $schema=schema.json"

    \b
    Exit status: 0 nothing is wrong (warnings or not), 1 there are faults, 2 usage.
    """
    if schema:
        click.echo(json.dumps(settings.schema(), indent=2))
        return
    path = file or config
    try:
        found, warnings = settings.examine(path)
    except SettingsError as error:
        common.show_faults(error.faults, common.console)
        common.console.print(common.summary(error.faults))
        sys.exit(common.EXIT_REFUSED)
    common.show_faults(warnings, common.console_err if effective else common.console, "warning: ")
    if effective:
        click.echo(f"# revision {found.revision}\n{settings.effective(found)}", nl=False)
        return
    click.echo(f"{path}: nothing is wrong: {_counts(found, len(warnings))}")
    sizes = [f"{name} {size}" for name, size in settings.estimate(found).items()]
    if sizes:
        click.echo(f"estimated bytes of a token: {', '.join(sizes)}")


def _counts(found: Settings, warnings: int) -> str:
    counts = {
        "client": len(found.clients),
        "source": len(found.sources),
        "audience": len(found.audiences),
        "route": len(found.routes),
    }
    if warnings:
        counts["warning"] = warnings
    return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items())
