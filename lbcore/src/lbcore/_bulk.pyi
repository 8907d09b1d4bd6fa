COPY_DONE: int
COPY_CHANGED: int
COPY_SOURCE_FAILED: int
COPY_TARGET_FAILED: int
COPY_SPARSE: int

def copy_files(
    files: list[tuple[int, bytes, bytes, int, int, int, int, bytes]], target_dirfd: int
) -> tuple[bytes, list[tuple[int, int]]]: ...
def dress_and_place(files: list[tuple[int, bytes, int, bytes, int, int, int, int]]) -> list[int]: ...
