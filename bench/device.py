"""Reading a changelog from its character device (a stand-in), beside a C program that does nothing but read."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from statistics import median

from bench.measure import BenchError, NotMeasured
from bench.report import Result, say
from bench.workspace import Workspace, goal
from lb_lustre._records import Reduction
from lb_lustre.errors import LustreError
from lb_lustre.feeds import find_feeds
from lb_lustre.ledger import Entry
from lb_lustre.simulator import client

_READER = """
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(int count, char **paths)
{
    static char buffer[256 << 10];
    long long total = 0;

    for (int number = 1; number < count; number++) {
        int fd = open(paths[number], O_RDONLY);
        ssize_t got;

        if (fd < 0)
            return 1;
        while ((got = read(fd, buffer, sizeof(buffer))) > 0)
            total += got;
        close(fd);
    }
    printf("%lld\\n", total);
    return 0;
}
"""
_FILES_PER_DIRECTORY = 100


def device_reading(workspace: Workspace) -> Result:
    """All records of a simulated Lustre's changelogs, read from the stand-ins of their devices."""
    if os.geteuid() != 0 or shutil.which("cc") is None:
        raise NotMeasured("needs root, to mount the simulated Lustre, and cc")
    folder = workspace.folder("device")
    reader = os.path.join(folder, "reader")
    subprocess.run(["cc", "-O2", "-x", "c", "-", "-o", reader], input=_READER.encode(), check=True)
    served = os.path.join(folder, "served")
    try:
        with client.served(served) as control:
            for mdt in range(2):
                client.ask(control, "register", mdt=mdt, name="bench")
            client.ask(control, "populate", files=workspace.device_records, per_directory=_FILES_PER_DIRECTORY)
            feeds = find_feeds(
                "simfs", os.fsencode(served), devices=os.path.join(served, "mount", "dev"), reader="device"
            )
            devices = [os.path.join(served, "mount", "dev", f"changelog-simfs-{feed.mdt}") for feed in feeds]
            plain, ours, size, records = [], [], 0, 0
            for _ in range(workspace.rounds):
                started = time.perf_counter()
                size = int(subprocess.run([reader, *devices], capture_output=True, check=True).stdout)
                plain.append(time.perf_counter() - started)
                started = time.perf_counter()
                reduction = Reduction()
                streams = [feed.read(Entry(cleared=0), reduction, threading.Lock()) for feed in feeds]
                ours.append(time.perf_counter() - started)
                records = sum(stream.records for stream in streams)
                say(f"  {records:,} records: C {plain[-1]:.2f} s, lb {ours[-1]:.2f} s")
    except LustreError as error:
        raise NotMeasured(str(error)) from error
    if records < workspace.device_records:
        raise BenchError(f"only {records} records were read")
    return Result(
        name="device",
        title="Reading changelogs from their devices",
        header=("reader", "seconds (median)", "records per second", "time by that of the C program"),
        rows=[
            ("C, nothing but reading", f"{median(plain):.2f}", f"{records / median(plain):,.0f}", "1"),
            ("lb, reduced to FIDs", f"{median(ours):.2f}", f"{records / median(ours):,.0f}",
             goal(median(ours) / median(plain), 1.5)),
        ],
        notes=[f"{records:,} records, {size / 1e6:,.0f} MB, {workspace.rounds} rounds; two devices, one by one."],
    )  # fmt: skip
