"""A container's root: the image's ids shifted into its range, its writes in its own upper, the store untouched."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from volt_ctr_launch import binds, config, ids, root, views
from volt_ctr_launch.errors import Refusal
from volt_ctr_launch.paths import Layout
from volt_ctr_launch.policy import Policy

Config = dict[str, object]
Isolated = Callable[[Callable[[], None]], None]
MakeView = Callable[[str], Config]
BASE = 524288
TREE = "ab" * 32


def mounted(layout: Layout, found: config.Config) -> root.Rootfs:
    """The root of a container, in this process's mounts."""
    for path in (layout.root(found.name), layout.launch(found.name)):
        os.makedirs(path, exist_ok=True)
    image = views.fetch(layout, found.name, found.tree, found.view)
    namespace = ids.user_namespace(root.identity(BASE), root.identity(BASE))
    root.private_namespaces("none")
    return root.assemble(layout, found, BASE, namespace, image)


def sums(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("form", ["redirect", "full"])
def test_a_root_is_the_image_with_shifted_ids_and_its_own_writes(
    layout: Layout, valid: Config, view: MakeView, files: Path, isolated: Isolated, form: str
) -> None:
    valid |= {"view": view(form), "root": {"mode": 0o1751, "uid": 5, "gid": 6, "mtime_ns": 10**18}}
    found = config.parse(valid, "web")
    before = sums(Path(layout.cas))

    def inside() -> None:
        rootfs = mounted(layout, found)
        top = os.stat(rootfs.path)
        assert (top.st_mode & 0o7777, top.st_uid, top.st_gid, top.st_mtime_ns) == (0o1751, BASE + 5, BASE + 6, 10**18)
        assert os.stat(f"{rootfs.path}/etc/passwd").st_uid == BASE
        assert Path(rootfs.path, "etc/passwd").read_bytes() == (files / "etc/passwd").read_bytes()
        Path(rootfs.path, "etc/passwd").write_text("changed")
        os.chmod(f"{rootfs.path}/etc/group", 0o600)
        os.unlink(f"{rootfs.path}/usr/bin/cat")
        assert Path(layout.root("web"), "layer/upper/etc/passwd").read_text() == "changed"
        assert os.stat(f"{layout.root('web')}/layer/upper/etc/passwd").st_uid == BASE

    isolated(inside)
    assert os.stat(f"{layout.root('web')}/layer").st_mode & 0o777 == 0o700
    assert sums(Path(layout.cas)) == before
    assert os.listdir(f"{layout.root('web')}/rootfs") == []

    def again() -> None:
        rootfs = mounted(layout, found)
        assert Path(rootfs.path, "etc/passwd").read_text() == "changed"
        assert not os.path.exists(f"{rootfs.path}/usr/bin/cat")

    isolated(again)


@pytest.mark.parametrize("form", ["redirect", "full"])
def test_a_layer_in_memory_is_gone_afterwards_and_none_is_read_only(
    layout: Layout, valid: Config, view: MakeView, isolated: Isolated, form: str
) -> None:
    valid["view"] = view(form)

    def memory() -> None:
        rootfs = mounted(layout, config.parse(valid | {"layer": "tmpfs"}, "web"))
        assert not os.path.exists(f"{rootfs.path}/new")
        Path(rootfs.path, "new").write_text("x")

    def none() -> None:
        rootfs = mounted(layout, config.parse(valid | {"layer": "none"}, "web"))
        assert os.path.exists(f"{rootfs.path}/etc/passwd")
        with pytest.raises(OSError, match="Read-only"):
            Path(rootfs.path, "new").write_text("x")

    isolated(memory)
    isolated(memory)
    isolated(none)


def test_what_is_opened_inside_stays_inside(
    layout: Layout, valid: Config, view: MakeView, isolated: Isolated, tmp_path: Path
) -> None:
    valid["view"] = view("full")
    (tmp_path / "secret").write_text("host")

    def inside() -> None:
        rootfs = mounted(layout, config.parse(valid, "web"))
        os.symlink(f"{tmp_path}/secret", f"{rootfs.path}/etc/absolute")
        os.symlink("../" * 20 + str(tmp_path).lstrip("/") + "/secret", f"{rootfs.path}/etc/climbing")
        os.symlink("/proc/1/root/etc/hostname", f"{rootfs.path}/etc/magic")
        for name in ("absolute", "climbing", "magic"):
            with pytest.raises(OSError, match=r"No such file|symbolic"):
                rootfs.open_inside(f"/etc/{name}")
        os.symlink("/etc/passwd", f"{rootfs.path}/etc/inner")
        with open(rootfs.open_inside("/etc/inner")) as file:
            assert file.read().startswith("root:x:0:0:root:/root")

    isolated(inside)


def test_mount_points_are_made_for_container_root_and_never_outside(
    layout: Layout, valid: Config, view: MakeView, isolated: Isolated, tmp_path: Path
) -> None:
    valid["view"] = view("full")

    def inside() -> None:
        rootfs = mounted(layout, config.parse(valid, "web"))
        os.symlink(str(tmp_path), f"{rootfs.path}/out")
        root.make_mount_point(rootfs, "/a/b/dir", True, BASE)
        root.make_mount_point(rootfs, "/a/file", False, BASE)
        assert os.path.isdir(f"{rootfs.path}/a/b/dir")
        assert os.path.isfile(f"{rootfs.path}/a/file")
        assert os.stat(f"{rootfs.path}/a/b").st_uid == BASE
        with pytest.raises(Refusal):
            root.make_mount_point(rootfs, "/out/planted", True, BASE)
        assert not (tmp_path / "planted").exists()
        assert not os.path.exists(f"{tmp_path}/planted")

    isolated(inside)


class TestBinds:
    """Host directories are the asker's, in both directions."""

    @pytest.fixture
    def shared(self, tmp_path: Path) -> Path:
        """A directory of uid 1000's, reachable for it."""
        for path in (tmp_path, *tmp_path.parents):
            if path.is_relative_to("/var/tmp") and path != Path("/var/tmp"):
                os.chmod(path, 0o755)
        path = tmp_path / "shared"
        path.mkdir()
        (path / "file").write_text("x")
        (path / "roots").write_text("x")
        os.chown(path, 1000, 1000)
        os.chown(path / "file", 1000, 1000)
        return path

    @pytest.fixture(autouse=True)
    def account(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """uid 1000 exists, on whatever host this runs."""
        entry = binds.pwd.struct_passwd(("asker", "x", 1000, 1000, "", "/", "/bin/sh"))
        monkeypatch.setattr(binds, "_account", lambda _uid: entry)
        monkeypatch.setattr(binds.os, "getgrouplist", lambda _name, _gid: [1000])

    def asked(self, valid: Config, source: Path, uid: int = 1000, read_only: bool = False) -> config.Config:
        bind = {"source": str(source), "target": "/data", "read_only": read_only}
        return config.parse(valid | {"uid": uid, "binds": [bind]}, "web")

    def test_container_root_is_the_asker_there(
        self, valid: Config, shared: Path, isolated: Isolated, tmp_path: Path
    ) -> None:
        def inside() -> None:
            root.private_namespaces("none")
            rules = Policy(bind_allow=(str(tmp_path),))
            staged = binds.stage(self.asked(valid, shared), rules, BASE, f"{tmp_path}/binds")
            place = staged[0].path
            assert os.stat(f"{place}/file").st_uid == BASE
            assert os.stat(f"{place}/roots").st_uid == 65534
            flags = os.statvfs(place).f_flag
            assert flags & os.ST_NOSUID
            assert flags & os.ST_NODEV
            os.chdir(place)  # the way there is root's alone
            os.setresgid(BASE, BASE, BASE)
            os.setresuid(BASE, BASE, BASE)
            Path("new").write_text("x")
            os.chmod("new", 0o4755)

        isolated(inside)
        assert (shared / "new").stat().st_uid == 1000

    def test_a_read_only_one_is(self, valid: Config, shared: Path, isolated: Isolated, tmp_path: Path) -> None:
        def inside() -> None:
            root.private_namespaces("none")
            rules = Policy(bind_allow=(str(tmp_path),))
            found = self.asked(valid, shared, read_only=True)
            staged = binds.stage(found, rules, BASE, f"{tmp_path}/binds")
            with pytest.raises(OSError, match="Read-only"):
                Path(staged[0].path, "new").write_text("x")

        isolated(inside)

    def refusal(self, isolated: Isolated, found: config.Config, rules: Policy, tmp_path: Path) -> None:
        def inside() -> None:
            root.private_namespaces("none")
            with pytest.raises(Refusal) as caught:
                binds.stage(found, rules, BASE, f"{tmp_path}/binds")
            assert caught.value.code in ("DENIED", "INVALID")

        isolated(inside)

    def test_what_the_asker_cannot_reach_is_refused(
        self, valid: Config, isolated: Isolated, tmp_path: Path, shared: Path
    ) -> None:
        private = tmp_path / "private/inner"
        private.mkdir(parents=True)
        os.chmod(tmp_path / "private", 0o700)
        self.refusal(isolated, self.asked(valid, private), Policy(bind_allow=(str(tmp_path),)), tmp_path)

    def test_a_link_out_of_what_is_allowed_is_refused(
        self, valid: Config, isolated: Isolated, tmp_path: Path, shared: Path
    ) -> None:
        (shared / "etc").symlink_to("/etc")
        self.refusal(isolated, self.asked(valid, shared / "etc"), Policy(bind_allow=(str(tmp_path),)), tmp_path)

    def test_a_device_or_fifo_is_refused(self, valid: Config, isolated: Isolated, tmp_path: Path, shared: Path) -> None:
        os.mkfifo(shared / "fifo")
        os.mknod(shared / "null", 0o20666, os.makedev(1, 3))
        for name in ("fifo", "null"):
            self.refusal(isolated, self.asked(valid, shared / name), Policy(bind_allow=(str(tmp_path),)), tmp_path)

    def test_root_binds_only_where_the_policy_says(
        self, valid: Config, isolated: Isolated, tmp_path: Path, shared: Path
    ) -> None:
        self.refusal(isolated, self.asked(valid, shared, uid=0), Policy(bind_allow=(str(tmp_path),)), tmp_path)
