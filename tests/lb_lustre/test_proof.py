"""What is gone is believed of servers that answer, and of whole filesystems."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pytest

from lb_lustre import fid, proof, servers
from lb_lustre.errors import LustreError, LustreUnavailableError
from lb_lustre.looking import Looking
from lb_lustre.proof import Proof
from lb_lustre.servers import Servers
from lbcore.model import ObjectId, Observation, Seen, View
from lbcore.scope import Scope
from lbcore.testing.job import Job
from tests.lb_lustre.conftest import Simulated
from tests.lb_lustre.test_simulated import backed_up, shell
from tests.lb_lustre.test_simulated import seen as tree_of

MakeJob = Callable[..., Job]
TREE = "mkdir top; mkdir top/a top/b; for i in 1 2 3; do echo $i > top/a/$i; echo $i > top/b/$i; done"


def number(lustre: Simulated, path: str) -> ObjectId:
    return fid.parse(lustre.ask("fid_of", path=path))


def real_look(lustre: Simulated) -> Callable[[Sequence[ObjectId]], list[Seen]]:
    looking = Looking(View(root=os.fsencode(lustre.root), stable=False), Scope())
    return lambda ids: [looking.look(one) for one in ids]


class Knowing:
    """A backup that holds these objects."""

    seed = 0

    def __init__(self, *ids: ObjectId) -> None:
        self.ids = ids

    def fingerprint(self, directory: ObjectId) -> int | None:
        return None

    def near(self, object_id: ObjectId, count: int) -> list[ObjectId]:
        return list(self.ids[:count])


def proof_of(lustre: Simulated, look: Callable[[Sequence[ObjectId]], list[Seen]], *known: ObjectId) -> Proof:
    mount = os.fsencode(lustre.root)
    return Proof(mount, Servers(mount), Knowing(*known), look)


def is_gone(one: Seen) -> bool:
    assert isinstance(one, Observation)
    return one.attributes is None


def test_a_run_whose_client_lost_a_server_removes_nothing_and_names_it(lustre: Simulated, make_job: MakeJob) -> None:
    job = make_job()
    shell(lustre.root, TREE)
    backed_up(job)
    before = tree_of(job.tree)
    shell(lustre.root, "echo more >> top/b/1; echo more >> top/a/1; rm top/a/2")
    lustre.ask("disconnect", mdt=1, error="ENOENT")
    outcome = job.run()
    assert (outcome.exit_code, outcome.state) == (1, "failed")
    assert "MDT0001 does not answer" in outcome.message
    assert tree_of(job.tree) == before
    lustre.ask("connect", mdt=1)
    shell(lustre.root, "rm top/b/2")
    backed_up(job)


def test_a_server_that_fails_is_no_server_without_objects(lustre: Simulated, make_job: MakeJob) -> None:
    job = make_job()
    shell(lustre.root, TREE)
    backed_up(job)
    before = tree_of(job.tree)
    shell(lustre.root, "echo more >> top/b/1")
    lustre.ask("disconnect", mdt=1, error="EIO")
    assert job.run().exit_code == 3
    assert tree_of(job.tree) == before
    lustre.ask("connect", mdt=1)
    backed_up(job)


def test_what_seemed_gone_before_its_server_was_proved_to_answer_is_looked_at_again(lustre: Simulated) -> None:
    shell(lustre.root, TREE)
    ids = [number(lustre, f"top/{name}") for name in ("a/1", "b/1", "b/2", "b/3")]
    shell(lustre.root, "rm top/b/3")
    real, looks = real_look(lustre), []

    def look(asked: Sequence[ObjectId]) -> list[Seen]:
        looks.append(list(asked))
        if len(looks) == 1:
            lustre.ask("disconnect", mdt=1, error="ENOENT")
        found = real(asked)
        lustre.ask("connect", mdt=1)
        return found

    one = proof_of(lustre, look)
    assert [is_gone(seen) for seen in one.look(ids)] == [False, False, False, True]
    assert looks == [ids, ids[1:]]
    one.look(ids)
    assert looks[2:] == [ids], "it answered before that, and after"


def test_a_server_that_is_lost_while_it_is_looked_at_is_not_believed(lustre: Simulated) -> None:
    shell(lustre.root, TREE)
    ids = [number(lustre, f"top/{name}") for name in ("a/1", "b/1", "b/2")]
    shell(lustre.root, "rm top/b/2")
    real = real_look(lustre)
    one = proof_of(lustre, real)
    assert [is_gone(seen) for seen in one.look(ids)] == [False, False, True]
    lustre.ask("disconnect", mdt=1, error="ENOENT")
    with pytest.raises(LustreError, match="MDT0001 does not answer"):
        one.look(ids)


def test_a_server_that_is_lost_while_it_is_looked_at_again_is_not_believed(lustre: Simulated) -> None:
    shell(lustre.root, TREE)
    ids = [number(lustre, f"top/{name}") for name in ("b/1", "b/2")]
    shell(lustre.root, "rm top/b/2")
    real, looks = real_look(lustre), []

    def look(asked: Sequence[ObjectId]) -> list[Seen]:
        looks.append(asked)
        if len(looks) == 2:
            lustre.ask("disconnect", mdt=1, error="ENOENT")
        return real(asked)

    with pytest.raises(LustreError, match="MDT0001 does not answer"):
        proof_of(lustre, look).look(ids)
    assert len(looks) == 2


def test_where_lfsck_never_ran_an_object_that_was_seen_proves_it(
    lustre: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell(lustre.root, TREE)
    there, gone = number(lustre, "top/b/1"), number(lustre, "top/b/2")
    shell(lustre.root, "rm top/b/2")
    monkeypatch.setattr(proof, "name", lambda server: "never-" + servers.name(server))
    one = proof_of(lustre, real_look(lustre))
    with pytest.raises(LustreError, match=r"Where LFSCK never ran there is no \.lustre/lost\+found/never-MDT0001"):
        one.look([number(lustre, "top/a/1"), gone])
    assert [is_gone(seen) for seen in one.look([there, gone])] == [False, True]
    assert [is_gone(seen) for seen in one.look([gone])] == [True]


def test_a_part_of_a_filesystem_proves_nothing(lustre: Simulated) -> None:
    shell(lustre.root, TREE)
    with pytest.raises(LustreError, match="is not the root of the filesystem"):
        Proof(os.fsencode(lustre.root / "top"), Servers(os.fsencode(lustre.root)), Knowing(), real_look(lustre))


def test_an_object_that_the_backup_has_of_the_same_sequence_proves_it(
    lustre: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell(lustre.root, TREE)
    elsewhere, gone, kept = (number(lustre, path) for path in ("top/a/1", "top/b/2", "top/b/3"))
    shell(lustre.root, "rm top/b/2")
    monkeypatch.setenv("LB_LUSTREAPI", "nowhere.so")
    assert [is_gone(seen) for seen in proof_of(lustre, real_look(lustre), gone, elsewhere, kept).look([gone])] == [True]
    for known in [(), (gone,), (elsewhere,)]:
        with pytest.raises(LustreUnavailableError, match=r"nowhere\.so is not on this node"):
            proof_of(lustre, real_look(lustre), *known).look([gone])


def test_the_library_is_needed_only_where_no_object_of_the_sequence_is_there(
    lustre: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell(lustre.root, TREE)
    there, gone = number(lustre, "top/b/1"), number(lustre, "top/b/2")
    shell(lustre.root, "rm top/b/2")
    monkeypatch.setenv("LB_LUSTREAPI", "nowhere.so")
    one = proof_of(lustre, real_look(lustre))
    one.look([fid.ROOT])  # which has no name, and is no object that is gone
    with pytest.raises(LustreUnavailableError, match=r"nowhere\.so is not on this node"):
        one.look([gone])
    assert [is_gone(seen) for seen in one.look([there, gone])] == [False, True]


def test_servers_are_asked_for_once_for_each_sequence(lustre: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    shell(lustre.root, TREE)
    there = Servers(os.fsencode(lustre.root))
    assert [there.of(number(lustre, path)) for path in ("top/a/1", "top/b/1")] == [0, 1]
    monkeypatch.setattr(there, "_ask", None)
    assert [there.of(number(lustre, path)) for path in ("top/a/2", "top/b/2")] == [0, 1]
    assert servers.name(10) == "MDT000a"
