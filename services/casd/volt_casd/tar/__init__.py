"""A streaming reader of tar archives, and the tree that one of them makes.

    reader.members(stream)            the members in order, each with its bytes; nothing is interpreted
      ├─ window.Window                the stream's bytes, a window of 2 MiB at a time
      ├─ header                       one 512-byte block: v7, ustar, GNU, star
      ├─ pax                          extended headers: records into fields
      ├─ acl                          POSIX ACLs, which pax headers hold as text
      └─ sparse                       the four ways GNU tar writes a file with holes
    build.read_tree(stream, store)    members into canonical entries; `store` keeps the bytes
      ├─ names                        which paths are refused, and how a path is shown in an error
      └─ inodes                       paths, hard links, and the entries they make

Nothing is ever extracted: no path of an archive reaches the file system.
"""

from volt_casd.tar.build import Progress, StoreFile, TreeBuilder, read_tree
from volt_casd.tar.inodes import Inode, Tally
from volt_casd.tar.limits import Budget, Limits
from volt_casd.tar.reader import Body, Member, members

__all__ = [
    "Body",
    "Budget",
    "Inode",
    "Limits",
    "Member",
    "Progress",
    "StoreFile",
    "Tally",
    "TreeBuilder",
    "members",
    "read_tree",
]
