"""The snippets of docs/verify.md, built once for each language, and backends that run them."""

import shutil

import pytest
from snippets import DRIVERS, PROGRAMS, Backend, Service, build


@pytest.fixture(scope="session", params=sorted(DRIVERS))
def command(request, tmp_path_factory):
    for program in PROGRAMS[request.param]:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    return build(request.param, folder), folder


@pytest.fixture
def service():
    service = Service()
    yield service
    service.close()


@pytest.fixture
def backend(command, service):
    backend = Backend(*command, service)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def settled(command):
    """One backend and its service for all tokens of a language, so that each costs no process."""
    service = Service()
    backend = Backend(*command, service)
    yield service, backend
    backend.close()
    service.close()
