"""Under CI a skipped test fails the run unless `.ci/allowed-skips` lists it with its reason."""

import fnmatch
import os

import pytest


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

    def __init__(self, allowed):
        self.allowed = allowed
        self.skipped = []
        self.unlisted = []

    def pytest_runtest_logreport(self, report):
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped.append(report.nodeid)

    def pytest_collectreport(self, report):
        if report.skipped:
            self.skipped.append(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        """Of several processes, what one reports of a module that it did not collect reaches nobody else (xdist)."""
        self.skipped += getattr(node, "workeroutput", {}).get("skipped", [])

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session, exitstatus):
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["skipped"] = self.skipped
            return
        self.unlisted = unlisted_skips(dict.fromkeys(self.skipped), self.allowed)
        if self.unlisted and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        if self.unlisted:
            terminalreporter.section("skipped, but not listed in .ci/allowed-skips")
            for test in self.unlisted:
                terminalreporter.line(test)


def pytest_configure(config):
    if os.environ.get("CI"):
        text = (config.rootpath / ".ci" / "allowed-skips").read_text(encoding="utf-8")
        config.pluginmanager.register(SkipGuard(allowed_skips(text)), "skip-guard")
