"""Writes EROFS images of trees: read-only file systems that the kernel mounts as they are.

An image is a function of the entries alone, to the byte: no clock, no random number, no order of a walk,
nothing of the file system that holds the objects. Two forms are made of the same entries:

REDIRECT  metadata only. A file that is not empty is a hole of its size whose xattrs send overlayfs to the
          object: mount with `lowerdir=IMAGE::OBJECTS,metacopy=on,redirect_dir=on` (Linux 6.5).
FULL      the data inside, uncompressed and in whole blocks, equal objects once.

On disk: block 0 with the superblock, file data, inodes, directory blocks. Data goes before the inodes, so
that every address is known when an inode is made, and nothing is relocated.
"""

from __future__ import annotations

from volt_casd.erofs.image import write_image

__all__ = ["write_image"]
