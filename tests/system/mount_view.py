"""Mounts a view as a container's launcher does, in its own words: `mount_view.py FORM IMAGE OBJECTS DIR`.

`full` is EROFS alone; `redirect` is an overlay of EROFS over the store's objects, without an upper directory.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

MS_RDONLY = 1
libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, data: str = "") -> int:
    done = libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(MS_RDONLY), data.encode())
    return ctypes.get_errno() if done else 0


def erofs(image: str, target: str) -> None:
    """Straight from the file where the kernel can (6.12), else by a loop device."""
    if mount(image, target, "erofs"):
        subprocess.run(["mount", "-t", "erofs", "-o", "ro,loop", image, target], check=True)


def main(form: str, image: str, objects: str, target: str) -> None:
    os.makedirs(target)
    if form == "full":
        erofs(image, target)
        return
    os.makedirs(f"{target}.meta")
    erofs(image, f"{target}.meta")
    failed = mount("overlay", target, "overlay", f"lowerdir={target}.meta::{objects},metacopy=on,redirect_dir=on")
    if failed:
        sys.exit(f"overlay: {os.strerror(failed)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
