"""``python -m lb_lustre.simulator.lctl FOLDER lctl …``: ``lctl`` on any server of the Lustre simulated at FOLDER.

The simulator knows the commands. This program starts often, so it loads next to nothing.
"""

import json
import os
import socket
import sys


def main() -> None:
    """Do one command, and end with its status."""
    folder, program, *words = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.path.join(folder, "control"))
        connection.sendall(json.dumps({"request": "lctl", "program": program, "words": words}).encode() + b"\n")
        with connection.makefile() as answers:
            status, output, error = json.loads(answers.readline())["result"]
    for text, stream in ((output, sys.stdout), (error, sys.stderr)):
        if text:
            print(text, file=stream)
    sys.exit(status)


if __name__ == "__main__":
    main()
