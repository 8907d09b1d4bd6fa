"""What ``lctl`` prints is understood as real servers print it; what it refuses is told."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from lb_lustre import fid, openfiles, server
from lb_lustre.backlog import hours_left
from lb_lustre.errors import LustreError
from lb_lustre.gate import forms, gate
from lb_lustre.ledger import Entry
from lb_lustre.options import ChangelogOptions
from lb_lustre.registration import ensure
from lb_lustre.server import NEEDED, Server, State, User
from tests.lb_lustre.recordings import FOLDER, needs_recordings

MASK = " ".join(["MARK", *NEEDED])


class Lctl:
    """A program to be put before ``lctl``: it prints what it is told, and remembers what followed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "lctl"
        self.answer()

    def answer(self, output: str = "", error: str = "", status: int = 0) -> None:
        (self.folder / "out").write_text(output)
        (self.folder / "err").write_text(error)
        self.program.write_text(
            f'#!/bin/sh\ncd {self.folder}\nshift\necho "$@" >> calls\ncat out; cat err >&2\nexit {status}\n'
        )
        self.program.chmod(stat.S_IRWXU)

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def server(self, mdt: str = "MDT0000") -> Server:
        return Server([str(self.program)], "labfs", mdt)


@pytest.fixture
def lctl(tmp_path: Path) -> Lctl:
    return Lctl(tmp_path)


def users_text(*users: str, index: str = "current_index: 35843") -> str:
    return "\n".join(
        ["mdd.labfs-MDT0000.changelog_users=", index, "ID                            index (idle) mask", *users, ""]
    )


def test_users_and_parameters_are_read_as_lustre_2_17_prints_them(lctl: Lctl) -> None:
    lctl.answer(
        users_text(
            "cl1                               0 (1765)",
            "cl4-bakup                     35843 (2)",
            "cl8-masked                    35843 (2) mask=MARK,CREAT,MKDIR",
        )
        + f"mdd.labfs-MDT0000.changelog_current_mask={MASK} \n"
        + "mdd.labfs-MDT0000.changelog_size=33888\nmdd.labfs-MDT0000.changelog_gc=0\n"
        + "mdd.labfs-MDT0000.changelog_max_idle_time=100\nmdd.labfs-MDT0000.changelog_max_idle_indexes=200\n"
    )
    state = lctl.server().state()
    assert (state.current, state.size_bytes, state.mask) == (35843, 33888, frozenset(MASK.split()))
    assert (state.removes_idle, state.max_idle_seconds, state.max_idle_records) == (False, 100, 200)
    assert state.users[:2] == (
        User(id="cl1", name="", cleared=0, idle_seconds=1765, mask=None),
        User(id="cl4-bakup", name="bakup", cleared=35843, idle_seconds=2, mask=None),
    )
    masked = state.user("masked")
    assert masked is not None and masked.mask == frozenset({"MARK", "CREAT", "MKDIR"})
    assert state.lacking(masked) == [kind for kind in NEEDED if kind not in ("CREAT", "MKDIR")]
    assert state.lacking(state.users[1]) == []
    assert state.user("masked", "cl1") == state.users[0]
    assert state.user("bakup", "cl77") == state.users[1]
    (call,) = lctl.calls()
    assert call.split()[:2] == ["get_param", "mdd.labfs-MDT0000.changelog_users"]


def test_an_older_server_tells_less_and_is_understood(lctl: Lctl) -> None:
    lctl.answer(
        users_text("cl3       12", index="current index: 40").replace("ID                            index (idle) mask",
                                                                     "ID    index"),
        "error: get_param: param_path 'mdd/labfs-MDT0000/changelog_current_mask': No such file or directory\n", 2,
    )  # fmt: skip
    state = lctl.server().state()
    assert state == State(
        current=40, users=(User(id="cl3", name="", cleared=12, idle_seconds=None, mask=None),), mask=None,
        size_bytes=None, removes_idle=True, max_idle_seconds=2_592_000, max_idle_records=2_097_446_912,
    )  # fmt: skip
    assert state.lacking(state.users[0]) == []
    assert hours_left(state, state.users[0]) is None


@needs_recordings
def test_every_recorded_list_of_users_is_understood() -> None:
    understood = 0
    for name in ("j_cli.txt", "j_dereg.txt", "j_restart.txt", "info/get_param.txt"):
        lines = (FOLDER / name).read_text().splitlines()
        plain = [line.removeprefix("out| ") for line in lines]
        for number, line in enumerate(plain):
            if line.startswith("current_index:"):
                last = next(at for at in range(number + 2, len(plain) + 1) if at == len(plain) or plain[at][:2] != "cl")
                current, users = server._users(plain[number:last], "MDT0000")
                assert current == int(line.split()[1])
                assert [user.id for user in users] == [one.split()[0] for one in plain[number + 2 : last]]
                understood += 1
    assert understood > 10


@pytest.mark.parametrize(
    ("output", "error", "status", "message"),
    [
        ("", "error: get_param: param_path 'x': No such file or directory\n", 2, "param_path 'x': No such file"),
        ("", "", 255, "it ended with status 255; it must be called as root on the server that has labfs-MDT0000"),
        (users_text("???"), "", 0, r"says of its changelog users what is not understood: '\?\?\?'"),
        (users_text(index=""), "", 0, "does not say which record was its last"),
    ],
)
def test_a_server_that_does_not_answer_is_named(lctl: Lctl, output: str, error: str, status: int, message: str) -> None:
    lctl.answer(output, error, status)
    with pytest.raises(LustreError, match=rf"MDT0000.*{message}"):
        lctl.server().state()


def test_a_command_that_is_not_there_or_hangs_is_named(lctl: Lctl, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LustreError, match="MDT0000: '/no/such' cannot be run: No such file"):
        Server(["/no/such"], "labfs", "MDT0000").state()
    monkeypatch.setattr(server, "_TIMEOUT_SECONDS", 0.2)
    with pytest.raises(LustreError, match=r"did not end within"):
        # Longer than anybody waits: it is killed after 0.2 seconds.
        Server([sys.executable, "-c", "import time; time.sleep(60)"], "labfs", "MDT0000").state()


def test_all_that_is_asked_passes_the_gate(lctl: Lctl) -> None:
    lctl.answer("mdt.labfs-MDT0000.num_exports=1\n")
    one = lctl.server()
    one.open_files()
    lctl.answer(users_text("cl9-lb-home      35843 (0)"))
    one.deregister(one.register("lb-home"))
    calls = lctl.calls()
    assert len(calls) == 4
    for call in calls:
        assert gate(f"lctl {call}", forms("labfs")) == f"lctl {call}".split(" ")


def test_registering_says_everything_that_is_needed_and_finds_the_user(lctl: Lctl) -> None:
    lctl.answer(users_text("cl9-lb-home      35843 (0)"))
    assert lctl.server().register("lb-home").id == "cl9-lb-home"
    assert lctl.calls()[0] == f"--device labfs-MDT0000 changelog_register -u lb-home -m {','.join(NEEDED)}"
    with pytest.raises(LustreError, match="registered 'lb-other' and does not list it"):
        lctl.server().register("lb-other")
    lctl.answer("", "error: changelog_register: User exists\n", 17)
    with pytest.raises(LustreError, match=r"MDT0000.*User exists"):
        lctl.server().register("lb-home")
    lctl.answer("", "error: changelog_deregister: User not found\n", 2)
    with pytest.raises(LustreError, match=r"MDT0000.*User not found"):
        lctl.server().deregister(User(id="cl9-lb-home", name="lb-home", cleared=1, idle_seconds=1, mask=None))


def test_open_files_are_listed_once_and_a_server_without_clients_is_no_error(lctl: Lctl) -> None:
    two = "[0x200000402:0x2:0x0]\n[0x200000402:0x1:0x0]\n[0x200000402:0x2:0x0]\n"
    proof = "mdt.labfs-MDT0000.num_exports=3\n"
    lctl.answer(
        f"{proof}mdt.labfs-MDT0000.exports.0@lo.open_files=\n{two}mdt.labfs-MDT0000.exports.1@tcp.open_files=\n{two}"
    )
    assert lctl.server().open_files() == [fid.pack(0x200000402, 1, 0), fid.pack(0x200000402, 2, 0)]
    missing = "error: get_param: param_path 'mdt/labfs-MDT0000/exports/*/open_files': No such file or directory\n"
    lctl.answer(proof, missing, 2)
    assert lctl.server().open_files() == []
    lctl.answer("", missing, 2)
    with pytest.raises(LustreError, match=r"MDT0000.*No such file"):
        lctl.server().open_files()


def state(current: int = 100, *users: User, **more: int) -> State:
    return State(
        current=current, users=users, mask=frozenset(NEEDED), size_bytes=0, removes_idle=bool(more.get("gc", 1)),
        max_idle_seconds=more.get("seconds", 2_592_000), max_idle_records=more.get("records", 2_097_446_912),
    )  # fmt: skip


def user(cleared: int = 50, idle: int = 0, number: int = 3) -> User:
    return User(id=f"cl{number}-lb-home", name="lb-home", cleared=cleared, idle_seconds=idle, mask=frozenset(NEEDED))


@pytest.mark.parametrize(
    ("there", "who", "hours"),
    [
        (state(100), user(idle=3600), 719),
        (state(100, gc=0), user(idle=3600), None),
        (state(100, records=49), user(), 0),
        (state(1_000_000_000), user(0, idle=0), (86_400 << 32) // 1_000_000_000 / 3600),
        (state(100), user(idle=10_000_000), 0),
        (state(50, seconds=7200), user(idle=3600), 1),
    ],
)
def test_how_long_a_server_puts_up_with_us(there: State, who: User, hours: float | None) -> None:
    assert hours_left(there, who) == hours


class Scripted(Server):
    """A server with states made up for a test."""

    def __init__(self, *states: State) -> None:
        super().__init__(["none"], "labfs", "MDT0000")
        self.states = list(states)
        self.did: list[str] = []

    def state(self) -> State:
        return self.states.pop(0)

    def register(self, name: str) -> User:
        self.did.append("register")
        return user(cleared=100, number=9)

    def deregister(self, user: User) -> None:
        self.did.append("deregister")


@pytest.mark.parametrize(
    ("there", "before", "why"),
    [
        (state(100, user(50)), Entry(cleared=50, user="cl3-lb-home"), None),
        (state(100, user(40)), Entry(cleared=50, user="cl3-lb-home"), None),
        (state(100, user(50)), Entry(cleared=50), None),
        (state(100, user(50)), None, None),
        (state(100, user(60)), Entry(cleared=50, user="cl3-lb-home"), "somebody else cleared up to 60 for cl3-lb-home"),
        (state(100, user(50)), Entry(cleared=50, user="cl2-lb-home"), "cl2-lb-home is not registered any more"),
        (
            state(40, user(40)),
            Entry(cleared=50, user="cl3-lb-home"),
            "its changelog begins anew: its last record is 40",
        ),
        (
            state(100),
            Entry(cleared=50, user="cl3-lb-home"),
            "'lb-home' was not registered; it is now, as cl9-lb-home",
        ),
        (state(100), None, "'lb-home' was not registered; it is now, as cl9-lb-home"),
    ],
)
def test_a_registration_that_is_not_what_it_was_is_a_gap(there: State, before: Entry | None, why: str | None) -> None:
    server = Scripted(there)
    entry, gap = ensure(server, "lb-home", None, before)
    assert gap is None if why is None else (gap or "").startswith(f"MDT0000: {why}")
    assert server.did == ([] if there.users else ["register"])
    if gap is not None or before is None:
        found = there.users[0] if there.users else user(100, number=9)
        assert entry == Entry(cleared=found.cleared, user=found.id)
    else:
        assert entry == Entry(cleared=50, user="cl3-lb-home")


def test_a_registration_that_lacks_types_is_made_anew() -> None:
    lacking = User(
        id="cl3-lb-home", name="lb-home", cleared=50, idle_seconds=1, mask=frozenset(NEEDED) - {"CLOSE", "OPEN"}
    )
    server = Scripted(state(100, lacking))
    entry, gap = ensure(server, "lb-home", None, Entry(cleared=50, user="cl3-lb-home"))
    assert gap == "MDT0000: OPEN, CLOSE was not recorded for cl3-lb-home; it is registered anew, as cl9-lb-home"
    assert (entry, server.did) == (Entry(cleared=100, user="cl9-lb-home"), ["deregister", "register"])


@pytest.mark.parametrize(
    ("job", "name"),
    [("home", "lb-home"), ("a-name-of-12", "lb-a-name-of-12"), ("a_name_of_13_", None), ("dotted.name", None)],
)
def test_names_are_those_that_servers_take_and_never_two_the_same(job: str, name: str | None) -> None:
    made = ChangelogOptions().user_name(job)
    if name is not None:
        assert made == name
    else:
        assert len(made) == 15 and made[:5] == f"lb-{job}"[:5]
        assert made == ChangelogOptions().user_name(job) != ChangelogOptions().user_name(job + "x")
    assert ChangelogOptions(user="mine").user_name(job) == "mine"


def test_how_servers_are_called() -> None:
    options = ChangelogOptions(servers=("MDT0001=ssh -o BatchMode=yes 'mds 1' lctl", "lctl"))
    assert options.lctl("MDT0001") == ("ssh", "-o", "BatchMode=yes", "mds 1")
    assert options.lctl("MDT0000") == ()
    assert ChangelogOptions(servers=("MDT0001=lctl",)).lctl("MDT0000") is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"users": ("cl1",)}, "users: expected something like"),
        ({"user": "1st"}, "cannot be the name of a changelog user"),
        ({"user": "sixteen-letters-"}, "15 characters at most"),
        ({"max_open": -1.0}, "max_open: expected a number of hours"),
        ({"servers": ("",)}, "is no command that ends with lctl"),
        ({"servers": ("ssh mds0",)}, "is no command that ends with lctl"),
        ({"servers": ("lctl", "ssh mds lctl")}, "two commands for all servers"),
        ({"servers": ("MDT0000=lctl", "MDT0000=lctl")}, "two commands for MDT0000"),
        ({"servers": ("MDT0000='",)}, "No closing quotation"),
    ],
)
def test_options_that_no_server_would_take_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChangelogOptions(**wrong)  # type: ignore[arg-type]


def test_how_many_files_are_open_and_which_for_long() -> None:
    hour = 3600 * 10**9
    many = [fid.pack(0x200000402, number, 0) for number in range(1, 15)]
    first_seen = openfiles.since({}, many[:12], 0)
    first_seen = openfiles.since(first_seen, many[1:], 5 * hour)
    assert len(first_seen) == 13 and first_seen[many[1].hex()] == 0 and first_seen[many[13].hex()] == 5 * hour
    said = list(openfiles.notes(many[1:], first_seen, 4, 6 * hour))
    assert said[0] == "13 files are open"
    assert said[1].startswith("open for more than 4 hours: [0x200000402:0x2:0x0] (6 h), [0x200000402:0x3:0x0] (6 h), ")
    assert said[1].endswith(" and 1 more")
    assert list(openfiles.notes(many[1:], first_seen, 6, 6 * hour)) == said[:1]
    assert list(openfiles.notes([], {}, 4, 6 * hour)) == []
