"""What every test shares: no test sees real credentials, and what real hosts do may be tried twice, for all to see."""

from __future__ import annotations

import os

import pytest

for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
    os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Try what drives real hosts once more when it fails: dozens of processes on a machine that others use as well."""
    for item in items:
        if item.get_closest_marker("sandbox"):
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show a first failure whole even where the second try passed: an unsteady test is a fault to be found."""
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.section(f"unsteady, tried again: {report.nodeid}", yellow=True)
        terminalreporter.write_line(report.longreprtext)
