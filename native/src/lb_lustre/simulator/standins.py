"""What a program finds on a client of the simulated Lustre: liblustreapi, ``lfs`` and ``lhsmtool_posix``.

``python -m lb_lustre.simulator.standins FOLDER`` makes them, and prints what lets programs of a shell find them.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

from lb_lustre.errors import LustreUnavailableError

MOUNT = "LB_SIMULATED_LUSTRE"
"""Where the simulated Lustre is mounted, for all."""
_SOURCE = os.path.join(os.path.dirname(__file__), "liblustreapi.c")
_LFS = """#!{python}
# lfs mdts MOUNT, as Lustre 2.17 prints it; and other commands
import os, sys
if sys.argv[1] != "mdts":
    from lb_lustre.simulator.lfs import main
    sys.exit(main())
name = os.path.basename(sys.argv[2])
devices = sorted(os.listdir(os.path.join(os.environ["{mount}"], "dev")))
print("MDTS:")
for device in devices:
    if device.startswith(f"changelog-{{name}}-MDT"):
        print(f"{{int(device[-4:], 16)}}: {{device.removeprefix('changelog-')}}_UUID ACTIVE")
"""

_LHSMTOOL = """#!{python}
import sys
from lb_lustre.simulator.lhsmtool import main
sys.exit(main(sys.argv[1:]))
"""


def client_environment(folder: str) -> dict[str, str]:
    """Make them in the ``bin`` of the simulator's folder; the variables that a program needs to find them.

    :raises LustreUnavailableError: when there is no C compiler.
    """
    programs = os.path.join(folder, "bin")
    os.makedirs(programs, exist_ok=True)
    library, lfs = os.path.join(programs, "liblustreapi.so.1"), os.path.join(programs, "lfs")
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, _SOURCE], check=True)
    except FileNotFoundError as error:
        raise LustreUnavailableError("there is no C compiler (cc) for the stand-in of liblustreapi") from error
    for program, text in ((lfs, _LFS), (os.path.join(programs, "lhsmtool_posix"), _LHSMTOOL)):
        with open(program, "w", encoding="utf-8") as script:
            script.write(text.format(python=sys.executable, mount=MOUNT))
        os.chmod(program, 0o700)
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {"LB_LUSTREAPI": library, MOUNT: os.path.join(folder, "mount"), "PATH": path}


if __name__ == "__main__":
    for variable, value in client_environment(os.path.abspath(sys.argv[1])).items():
        print(f"export {variable}={shlex.quote(value)}")
