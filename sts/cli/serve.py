"""`sts serve`: run the service."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from keys import rotation
from keys.errors import KeysError
from keys.files import make_folder
from keys.keyring import Keyring
from keys.rollback_guard import Floor
from keys.store import Store
from sts.app import App
from sts.audit.file import AuditFile
from sts.audit.log import LABEL, AuditLog
from sts.cli import common
from sts.cli.keys.opening import spoken
from sts.errors import StartError
from sts.labels import DeploymentSecret
from sts.mint.keystore import prepare
from sts.server.address import check_address
from sts.server.dispatch import Application
from sts.server.master import Server
from sts.server.process import SharedFlag
from sts.settings import Environment, OptionError, Settings, SettingsError, load
from sts.state import StateAtWork, StateUnavailableError, open_state
from sts.telemetry import log, make_metrics_directory, metrics, prepare_metrics, take_over_logging


@click.command()
@common.config_option
@click.option("--listen", metavar="ADDR", help="Listen on this address instead: host:port, or unix:/path.")
def serve(config: Path, listen: str | None) -> None:
    r"""Run the service in the foreground until SIGTERM or SIGINT; requests in progress are completed.

    The first start creates the deployment secret and the key ring in `var`. SIGHUP reloads the configuration: the
    service checks it completely, then every worker applies it between two requests. A faulty configuration changes
    nothing and is logged.

    \b
    Example:  sts serve -c /etc/sts/sts.yaml

    \b
    Exit status: 0 stopped by a signal, 1 the configuration, the secret or the key ring is faulty or the address
    cannot be used, 2 usage, 3 the key store cannot be used.
    """
    environment = Environment()

    def read() -> Settings:
        settings = load(config, environment)
        environment.take_out_secrets()
        return settings if listen is None else settings.listening_at(listen)

    try:
        settings = read()
    except SettingsError as error:
        common.show_faults(error.faults, common.console_err)
        usage = isinstance(error, OptionError)
        common.fail(common.summary(error.faults), common.EXIT_USAGE if usage else common.EXIT_REFUSED)
    take_over_logging()
    metrics_directory = make_metrics_directory(_memory())
    master = os.getpid()
    try:
        prepare_metrics(metrics_directory)
        secret, store, floor = _prepare(settings)
        stopping = SharedFlag()
        worker = partial(_worker, secret, store, floor, stopping)
        server = Server(settings, read, partial(_before_swap, store, floor), worker, stopping)
        check_address(settings.listen)
        log.info("serving", listen=settings.listen.bind, workers=settings.workers, revision=settings.revision)
        server.run()
    finally:
        if os.getpid() == master:  # a worker is a fork, and also runs this block
            shutil.rmtree(metrics_directory, ignore_errors=True)


def _memory() -> Path | None:
    """Return a folder in memory, None if there is none: the workers update metrics files with each decision."""
    shared = Path("/dev/shm")  # noqa: S108 - a private folder is created in it
    return shared if os.access(shared, os.W_OK) else None


def _prepare(settings: Settings) -> tuple[DeploymentSecret, Store, Floor]:
    """Open the secret and the ring, or create them at the first start; the master calls this once, before it forks.

    All workers share the floor: the newest version of the ring that any of them has seen. Audit file and state store
    are tried here, too. Raises StartError. A KeysError ends the command.
    """
    _try_audit(settings)
    with spoken():
        secret, store, ring, made = prepare(
            settings.keys, settings.var, settings.given_secret(), time.time, settings.wanted(), settings.redis
        )
    _try_state(settings)
    store.close()  # the workers must not inherit a connection
    if made:
        log.info("key ring made", var=str(settings.var), version=ring.version)
    floor = Floor()
    floor.raise_to(ring.version)
    return secret, store, floor


def _try_audit(settings: Settings) -> None:
    """Open the audit file. The folder `var` is created for it, another folder must exist. Raises StartError."""
    file = settings.audit.file
    if file is not None and file.parent == settings.var:
        with contextlib.suppress(OSError):  # the next statement reports it
            make_folder(settings.var)
    AuditFile(file).close()


def _try_state(settings: Settings) -> None:
    """Create and check the state file, or check its Redis.

    A Redis that is down is only logged. Raises StartError for a state store that must not be used, for instance a
    Redis that evicts keys.
    """
    state = open_state(settings.state, settings.redis, settings.var, time.time)
    try:
        state.check()
    except StateUnavailableError as error:
        log.error("state", fault=str(error))
    finally:
        state.close()


def _state(settings: Settings, secret: DeploymentSecret) -> StateAtWork:
    """Return the state of one worker, which follows the changes of its store."""
    state = StateAtWork.of(
        open_state(settings.state, settings.redis, settings.var, time.time),
        settings.state,
        audit_secrets=secret.keys(LABEL),
        derive=secret.keys,
        clock=time.time,
        on_fault=lambda fault: log.error("state", fault=fault),
        unmarked=_waved_through,
        var=settings.var,
    )
    state.start()
    return state


def _waved_through(why: str) -> None:
    """Count and log a proof that was accepted without a replay mark (`state.on_outage.replay: allow`)."""
    metrics.unmarked()
    log.warning("a once-only proof was not marked", why=why)


def _before_swap(store: Store, floor: Floor, settings: Settings) -> None:
    """Try the external actions of a configuration swap first, so that no worker fails at them. Raises StartError.

    The ring must record a longer ttl before the first such token is minted, and publish a key of a new algorithm.
    """
    AuditFile(settings.audit.file).close()
    try:
        found = store.load().version
        if found < floor.version:  # a write to an old ring would make it look new
            raise StartError(f"the key ring has version {found}, this service has seen {floor.version}: restore it")
        ring, _ = rotation.prepare(store, time.time, settings.wanted())
    except KeysError as error:
        raise StartError(str(error)) from None
    finally:
        store.close()  # the next worker must not inherit a connection
    floor.raise_to(ring.version)


def _worker(
    secret: DeploymentSecret, store: Store, floor: Floor, stopping: SharedFlag, settings: Settings
) -> tuple[Any, Any]:
    """Build the service of one worker, in the worker process. Raises KeysError."""
    keyring = Keyring(
        store,
        settings.keys.schedule(),
        time.time,
        lambda fault: log.error("key store", fault=str(fault)),
        floor,
        lambda why: log.warning("key store", changes="seen at the next poll only", why=why),
    )
    keyring.start()
    atexit.register(keyring.stop)  # reports that it has stopped publishing: no rotation then waits for it
    file = AuditFile(settings.audit.file)
    audit = AuditLog(secret.key(LABEL), file.write, time.time, time.monotonic, metrics, settings.audit.flush)
    atexit.register(audit.flush)
    app = App(settings, secret, keyring, audit, _state(settings, secret), stopping=stopping.is_set)
    app.authorities.watch.start()
    app.warm_up(app.current)
    metrics.feed(app.readings)

    def look() -> None:
        with contextlib.suppress(KeysError):  # the keyring logs it
            keyring.refresh()

    def swap(accepted: Settings) -> None:
        look()  # the ring already contains the requirements of this configuration
        audit.write_waiting()  # to the former file
        file.reopen(accepted.audit.file)
        audit.flush_s = accepted.audit.flush
        app.swap(accepted)
        look()  # reports the new schedule of this worker to other replicas

    return Application(app, urlsplit(settings.issuer).path), swap
