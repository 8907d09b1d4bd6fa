"""A Lustre to try things out on, without one: several metadata servers, FIDs, changelogs; real programs run on it.

It follows what a real Lustre 2.17 was seen to do (the reference; recordings). What it does differently, on purpose:

- One process plays all servers and the client; nothing is lost but what a test asks to be lost.
- All that is mounted lies below one FUSE mount: ``fs/NAME`` is the client's mount, ``dev/changelog-NAME-MDTxxxx``
  stand in for the character devices. They have no ``ioctl`` and no ``poll``; reading, seeking and clearing are as in
  the kernel.
- ``lctl.py`` is ``lctl`` on all servers. A snapshot is ready at once, a barrier never lapses unless a test asks for it,
  and what is mounted of it is ``fs/SNAPSHOT``, of which a bind mount stands in for a client's.
- A client sends what it writes at once, or (``late``) only when it is made to: by fsync(2), or by whoever asks for the
  data version with a flush.
- FIDs come from ``trusted.lma``, not from ``name_to_handle_at(2)``, which FUSE answers itself.
- liblustreapi and ``lfs`` are stand-ins (``standins.py``) with the functions that lb calls. Where the real library
  uses ``ioctl``, this one asks by extended attributes ``trusted.simulated.*``.
- Each server has its ``.lustre/lost+found/MDTxxxx``, as if LFSCK had been started there.
- Layouts are kept, inherited and given to new files; content lies in ordinary files whatever they say.
- All records are of one job, one user and one client, whoever did it.
- An open of what exists has no ``O_CREAT``, of which FUSE does not tell; and what the kernel denies never gets here, so
  that there is no NOPEN.
- A client never keeps a file open that was closed: each open and close is recorded, at once.
- New files get no ``user.job``.
- What is made in a striped directory is on one server, whichever of its shards has the name; what is migrated is where
  its shard is.
- ``lfs migrate`` takes the entries of a directory in the reverse order of their names, not in that of their hashes. The
  request ``migrate`` moves an object alone, which no Lustre does: its record has the same parent twice.
- There are no mirrors of content.
- What is released is in one archive, whatever its number; it comes back at once or never. The request ``release`` makes
  copies there; ``lhsmtool_posix`` (a stand-in) can ``--rebind`` them, and no more. That an import is recorded as CREAT,
  OPEN, HSM, TRUNC and CLOSE follows from the reference; no recording shows it.
- Files cannot be mapped for writing into what is shared (``mmap``).
- The flags of chattr(1) are kept, and nobody obeys them.

``tests/lb_lustre/test_fidelity.py`` runs the recorded scripts on it, and compares the records.
"""
