"""What every test shares: hypothesis without deadlines, and the rule on skips for runs under CI."""

import fnmatch
import os
from pathlib import Path

import hypothesis
import pytest

pytest_plugins = ["harness"]

ALLOWED_SKIPS = Path(__file__).resolve().parent.parent / ".ci" / "allowed-skips"

# A busy machine is no failure, hence no deadline; under CI the same change must give the same result twice.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def allowed_skips(text):
    """Read `.ci/allowed-skips`: a pattern for test ids, a bar, a reason. A line without a reason is an error."""
    patterns = []
    for line in text.splitlines():
        pattern, bar, reason = line.partition("|")
        if not line.strip() or line.startswith("#"):
            continue
        if not (bar and pattern.strip() and reason.strip()):
            raise pytest.UsageError(f".ci/allowed-skips wants 'test id | reason', not {line!r}")
        patterns.append(pattern.strip())
    return patterns


def unlisted_skips(skipped, patterns):
    # Square brackets are part of the ids of parametrised tests, so only * is special.
    wanted = [pattern.replace("[", "[[]") for pattern in patterns]
    return [test for test in skipped if not any(fnmatch.fnmatchcase(test, pattern) for pattern in wanted)]


class SkipGuard:
    """Under CI a skip that nobody wrote down fails the run: a missing server must not look like a passing test."""

    def __init__(self):
        self.skipped = []
        self.unlisted = []

    def pytest_runtest_logreport(self, report):
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped.append(report.nodeid)

    def pytest_collectreport(self, report):
        if report.skipped:
            self.skipped.append(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session, exitstatus):
        self.unlisted = unlisted_skips(self.skipped, allowed_skips(ALLOWED_SKIPS.read_text(encoding="utf-8")))
        if self.unlisted and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        if self.unlisted:
            terminalreporter.section("skipped, but not listed in .ci/allowed-skips")
            for test in self.unlisted:
                terminalreporter.line(test)


def pytest_configure(config):
    if os.environ.get("CI"):
        config.pluginmanager.register(SkipGuard(), "skip-guard")
