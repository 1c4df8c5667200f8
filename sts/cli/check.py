"""`sts check`: list the faults of a configuration before a start or a reload."""

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
@click.option("--effective", is_flag=True, help="Print the effective configuration as YAML; secrets are masked.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the configuration, for editors; reads no file.")
def check(*, file: Path | None, config: Path, effective: bool, schema: bool) -> None:
    r"""Check FILE (default: the configuration) and every file that it includes.

    The command lists every fault with file, line and path, and describes the correct value. Without faults it prints
    warnings about probable mistakes, and the approximate size of each audience's token in bytes. Files and variables
    with secrets are read as by `sts serve`. The command opens no connection: an issuer that is down is no fault.

    \b
    Examples:
      sts check                           is the configuration valid?
      sts check new.yaml && kill -HUP …   reload only a valid configuration
      sts check --effective               defaults and included files merged
      sts check --schema > schema.json    completion in editors: "# yaml-language-server: $schema=schema.json"

    \b
    Exit status: 0 no faults (with or without warnings), 1 faults, 2 usage.
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
