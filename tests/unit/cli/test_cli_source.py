"""What a path holds: a directory, a tar or an OCI layout, seen from its bytes; and which layers make an image."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import platform
import tarfile

import pytest

from volt.image import oci
from volt.image.names import config_ref, path_of, shown, tree_ref
from volt.image.source import classify, compression_of
from volt_common.errors import Corrupt, Invalid, NotFound

MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def tar_of(members):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


class Layout:
    """An OCI layout being made; `files` is what it consists of."""

    def __init__(self):
        self.files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        self.manifests = []

    def blob(self, data, kind="application/octet-stream", **more):
        digest = hashlib.sha256(data).hexdigest()
        self.files[f"blobs/sha256/{digest}"] = data
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data), **more}

    def image(self, layers, config=b'{"config":{"Cmd":["sh"]}}', **more):
        manifest = {"schemaVersion": 2, "config": self.blob(config), "layers": [self.blob(layer) for layer in layers]}
        kind = "application/vnd.oci.image.manifest.v1+json"
        descriptor = self.blob(json.dumps(manifest).encode(), kind, **more)
        self.manifests.append(descriptor)
        return descriptor

    def write(self, place):
        self.files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": self.manifests}).encode()
        for name, data in self.files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
        return str(place)

    def archive(self, path, pack=None):
        self.files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": self.manifests}).encode()
        members = [("blobs", None), ("blobs/sha256", None), *sorted(self.files.items())]
        data = tar_of(members)
        path.write_bytes(pack(data) if pack else data)
        return str(path)


def contents(path):
    """Configuration and layers, as casd would read them."""
    with contextlib.ExitStack() as stack:
        image = oci.open_image(path, stack)
        layers = []
        for fd in image.layers(stack):
            with open(os.dup(fd), "rb") as file:
                layers.append(file.read())
        image.finish()
        return image.config, layers


def test_a_directory_a_tar_and_a_layout_are_told_apart(tmp_path):
    (tmp_path / "dir").mkdir()
    (tmp_path / "root.tar").write_bytes(tar_of([(".", None), ("./etc", None), ("./etc/x", b"1")]))
    (tmp_path / "root.tgz").write_bytes(gzip.compress(tar_of([("etc", None)])))
    (tmp_path / "root.zst").write_bytes(b"\x28\xb5\x2f\xfd rest")
    (tmp_path / "blobs.tar").write_bytes(tar_of([("blobs", None), ("blobs/x", b"1"), ("etc", None)]))
    layout = Layout()
    layout.image([tar_of([])])
    os.mkfifo(tmp_path / "pipe")
    assert classify(str(tmp_path / "dir")) == "directory"
    assert classify(str(tmp_path / "root.tar")) == "tar"
    assert classify(str(tmp_path / "root.tgz")) == "tar"
    assert classify(str(tmp_path / "root.zst")) == "tar"
    assert classify(str(tmp_path / "blobs.tar")) == "tar"
    assert classify(str(tmp_path / "pipe")) == "tar"
    assert classify(layout.write(tmp_path / "layout")) == "oci"
    assert classify(layout.archive(tmp_path / "layout.tar")) == "oci"


def test_a_root_that_happens_to_have_an_index_json_is_a_directory(tmp_path):
    (tmp_path / "index.json").write_text("{}")
    assert classify(str(tmp_path)) == "directory"


def test_what_is_none_of_them_is_refused(tmp_path):
    (tmp_path / "text").write_text("hello " * 200)
    with pytest.raises(Invalid, match="no tar"):
        classify(str(tmp_path / "text"))
    with pytest.raises(NotFound):
        classify(str(tmp_path / "none"))
    with pytest.raises(Invalid):
        classify("/dev/null")


def test_compressions_are_known_by_their_first_bytes():
    assert compression_of(gzip.compress(b"x")) == "gzip"
    assert compression_of(b"\x28\xb5\x2f\xfd") == "zstd"
    assert compression_of(b"plain") == ""


LAYERS = [tar_of([("a", b"1" * 70_000)]), gzip.compress(tar_of([("b", b"2")]))]


def test_layers_of_a_directory_come_in_order_with_the_configuration(tmp_path):
    layout = Layout()
    layout.image(LAYERS)
    assert contents(layout.write(tmp_path)) == (b'{"config":{"Cmd":["sh"]}}', LAYERS)


@pytest.mark.parametrize("pack", [None, gzip.compress], ids=["plain", "gzip"])
def test_an_archive_is_the_same_as_its_layout(tmp_path, pack):
    layout = Layout()
    layout.image(LAYERS)
    assert contents(layout.archive(tmp_path / "a.tar", pack)) == (b'{"config":{"Cmd":["sh"]}}', LAYERS)


def test_the_image_for_this_machine_is_chosen(tmp_path):
    layout = Layout()
    layout.image([b"other"], platform={"os": "linux", "architecture": "s390x"})
    layout.image([b"mine"], platform={"os": "linux", "architecture": MACHINE})
    layout.image([b"windows"], platform={"os": "windows", "architecture": MACHINE})
    assert contents(layout.write(tmp_path))[1] == [b"mine"]


def test_an_index_in_the_index_is_followed(tmp_path):
    layout = Layout()
    inner = layout.image([b"mine"])
    layout.manifests = [
        layout.blob(
            json.dumps({"schemaVersion": 2, "manifests": [inner]}).encode(), "application/vnd.oci.image.index.v1+json"
        )
    ]
    assert contents(layout.write(tmp_path))[1] == [b"mine"]


def test_no_image_for_this_machine_is_not_found(tmp_path):
    layout = Layout()
    layout.image([b"a"], platform={"os": "linux", "architecture": "s390x"})
    layout.image([b"b"], platform={"os": "linux", "architecture": "mips"})
    with pytest.raises(NotFound):
        contents(layout.write(tmp_path))


def test_two_images_are_not_guessed_between(tmp_path):
    layout = Layout()
    layout.image([b"a"])
    layout.image([b"b"])
    with pytest.raises(Invalid, match="2 images"):
        contents(layout.write(tmp_path))


def test_a_changed_layer_is_corrupt(tmp_path):
    layout = Layout()
    layout.image([b"layer"])
    name = next(name for name, data in layout.files.items() if data == b"layer")
    layout.files[name] = b"LAYER"
    with pytest.raises(Corrupt, match="another digest"):
        contents(layout.write(tmp_path))


def test_a_layer_of_another_size_is_corrupt_before_anything_is_sent(tmp_path):
    layout = Layout()
    layout.image([b"layer"])
    name = next(name for name, data in layout.files.items() if data == b"layer")
    layout.files[name] = b"longer layer"
    with pytest.raises(Corrupt, match="not 5"), contextlib.ExitStack() as stack:
        oci.open_image(layout.write(tmp_path), stack)


@pytest.mark.parametrize("what", ["config", "manifest"])
def test_a_changed_manifest_or_configuration_is_corrupt(tmp_path, what):
    layout = Layout()
    descriptor = layout.image([b"layer"])
    if what == "manifest":
        name = "blobs/sha256/" + descriptor["digest"][7:]
    else:
        name = next(name for name, data in layout.files.items() if b"Cmd" in data)
    layout.files[name] = layout.files[name].replace(b":", b";", 1)
    with pytest.raises(Corrupt, match="another digest"):
        contents(layout.write(tmp_path))


def test_a_missing_blob_is_named(tmp_path):
    layout = Layout()
    layout.image([b"layer"])
    layout.files = {name: data for name, data in layout.files.items() if data != b"layer"}
    with pytest.raises(Invalid, match="is not there"):
        contents(layout.write(tmp_path))


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", "sha256:../../../etc/passwd", "md5:" + "0" * 32, "sha256:" + "0" * 63, "sha256:" + "0" * 64 + "\n"],
)
def test_a_digest_can_t_be_a_path(digest):
    with pytest.raises(Invalid, match="no digest"):
        oci.blob_name(digest)


@pytest.mark.parametrize("index", [b"", b"[]", b"{}", b'{"manifests":3}', b"[" * 100_000, b'{"manifests":[]}', b"\xff"])
def test_a_broken_index_is_refused(tmp_path, index):
    Layout().write(tmp_path)
    (tmp_path / "index.json").write_bytes(index)
    with pytest.raises((Invalid, NotFound)):
        contents(str(tmp_path))


def test_a_cut_archive_is_refused(tmp_path):
    layout = Layout()
    layout.image([b"x" * 100_000])
    path = tmp_path / "a.tar"
    layout.archive(path)
    path.write_bytes(path.read_bytes()[:60_000])
    with pytest.raises((Invalid, Corrupt)):
        contents(str(path))


def test_a_reader_that_leaves_early_does_not_block_the_check(tmp_path):
    layout = Layout()
    layout.image([b"x" * 1_000_000])
    with contextlib.ExitStack() as stack:
        image = oci.open_image(layout.write(tmp_path), stack)
        for fd in image.layers(stack):
            os.read(fd, 10)
            os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), fd)
        image.finish()


@pytest.mark.parametrize(
    ("image", "path"),
    [
        ("debian", "debian/latest"),
        ("debian:12", "debian/12"),
        ("library/debian:12", "library/debian/12"),
        ("host:5000/debian", "host:5000/debian/latest"),
    ],
)
def test_names_of_images(image, path):
    assert path_of(image) == path
    assert tree_ref(image) == f"images/{path}"
    assert config_ref(image) == f"image-config/{path}"
    assert path_of(shown(tree_ref(image))) == path
