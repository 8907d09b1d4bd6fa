"""``lb run --dry-run`` of a job that follows changelogs: nothing is cleared, registered or remembered."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lb_lustre.changelog import Changelog
from lb_lustre.errors import LustreError
from lbcore.plugins.types import Source
from lbcore.testing.job import Job
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.test_simulated import CHANGE, SETUP, backed_up, settle, shell
from tests.lbcore.test_dry_run import catalog_of, planned

MakeJob = Callable[..., Job]
COUNTED = ("objects_new", "objects_changed", "objects_removed")


@pytest.mark.parametrize("ask", [False, True])
def test_the_next_run_does_what_was_announced_and_nothing_was_cleared(
    lustre: Simulated, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, ask: bool
) -> None:
    settle(monkeypatch)  # whatever is collected twice would be cleared
    job = make_job(ask=ask)
    shell(lustre.root, SETUP)
    for number in range(2):
        shell(lustre.root, f"echo {number} > number")
        assert job.run().state == "committed"
    shell(lustre.root, CHANGE)

    def lose(self: Changelog, source: Source, cursor: bytes) -> None:
        raise LustreError("killed between the commit of what was collected and the clearing")

    with monkeypatch.context() as patch:
        patch.setattr(Changelog, "acknowledge", lose)
        assert job.run().exit_code == 1
    shell(lustre.root, "echo later > later")
    before = lustre.cleared(), catalog_of(job)
    for _ in range(2):
        announced = planned(job)
    assert (announced["exit_code"], announced["scan"]) == (0, None)
    assert (lustre.cleared(), catalog_of(job)) == before
    counts = backed_up(job).counts
    assert [counts[key] for key in COUNTED] == [announced[key] for key in COUNTED]
    assert counts["objects_new"] > 1
    assert lustre.cleared() != before[0]


def test_a_registration_that_is_gone_is_a_gap_and_left_to_the_run(lustre: Simulated, make_job: MakeJob) -> None:
    job = make_job(ask=True)
    assert job.run().state == "committed"
    lustre.ask("deregister", mdt=1, user="cl1-lb-job")
    for _ in range(2):
        assert planned(job)["scan"] == "the feed has a gap: MDT0001: 'lb-job' is not registered"
    assert lustre.ask("users", mdt=1)["users"] == {}
    backed_up(job, status=5)
    lustre.ask("deregister", mdt=1, user="cl2-lb-job")
    short = lustre.ask("register", mdt=1, name="lb-job", mask=["CREAT"])
    assert f"is not recorded for {short}" in planned(job)["scan"]
    assert list(lustre.ask("users", mdt=1)["users"]) == [short]
