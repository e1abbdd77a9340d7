"""What differs between two trees of the store, as a person asks for it."""

from __future__ import annotations

import json


def test_two_versions_of_a_directory(clean):
    clean.sh(
        "rm -rf /root/v; mkdir -p /root/v/sub; cd /root/v; echo 1 >text; echo x >sub/gone; ln text same; ln -s a link;"
        "volt image import v:1 /root/v; rm sub/gone; echo 2 >sub/new; chmod 600 text; ln -sfn b link;"
        "setfattr -n user.k -v y sub; volt image import v:2 /root/v"
    )
    done = clean.volt("cas", "diff", "v:1", "v:2", "-o", "json", check=True)
    found = {row["path"]: (row["change"], row["what"]) for row in json.loads(done.stdout)}
    times = {path: what for path, (_, what) in found.items() if what and "time" in what}
    assert set(times) == {"sub", "link"} | ({"."} & set(times))
    without = {path: (change, [word for word in what if word != "time"]) for path, (change, what) in found.items()}
    without.pop(".", None)  # of which only the time may be another
    assert without == {
        "sub": ("changed", ["xattrs"]),
        "sub/gone": ("removed", []),
        "sub/new": ("added", []),
        "text": ("changed", ["mode"]),
        "same": ("changed", ["mode"]),
        "link": ("changed", ["target"]),
    }
    assert clean.volt("cas", "diff", "v:1", "v:1").stdout.splitlines()[1:] == []
    assert clean.volt("cas", "diff", "v:1", "nosuch").returncode == 3
