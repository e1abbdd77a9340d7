"""An image's name leads to its tree and its configuration, through casd's own sockets."""

from __future__ import annotations

import asyncio

import pytest

from volt_common.api.cas import Form
from volt_common.errors import Invalid, NotFound, Unreachable
from volt_ctrd import images
from volt_ctrd.files import Places
from volt_ctrd.images import Image, ImageConfig, Store

TREE = "ab" * 32


@pytest.mark.parametrize(
    ("image", "ref"),
    [
        ("debian", "debian/latest"),
        ("debian:12", "debian/12"),
        ("team/app:v1.0", "team/app/v1.0"),
        ("team/app", "team/app/latest"),
        ("a.b/c+d:e_f", "a.b/c+d/e_f"),
    ],
)
def test_a_name_is_a_ref(image: str, ref: str) -> None:
    assert images.ref_of(image) == ref


@pytest.mark.parametrize("image", ["localhost:5000/debian", "a:b:c", "/x", "x/", "../x", "x/../y", "x:.", ":x", "a//b"])
def test_what_is_no_name_is_refused(image: str) -> None:
    with pytest.raises(Invalid, match="no image's name"):
        images.ref_of(image)


def test_a_tree_is_named_by_its_digest() -> None:
    assert images.tree_of(f"cas://{TREE}") == TREE
    assert images.tree_of("debian") is None
    for cut in ("cas://abc", f"cas://{TREE}0", f"cas://{TREE.upper()}", f"cas://{TREE}\n"):
        with pytest.raises(Invalid, match="no tree"):
            images.tree_of(cut)


@pytest.mark.parametrize(
    ("release", "form"),
    [
        ("6.1.0-18-amd64", Form.FULL),
        ("6.5.13", Form.FULL),
        ("6.6", Form.REDIRECT),
        ("6.12.9+deb13", Form.REDIRECT),
        ("7.0-rc1", Form.REDIRECT),
        ("strange", Form.FULL),
    ],
)
def test_a_kernel_gets_the_view_that_it_can_mount(release: str, form: Form) -> None:
    assert images.form_for(release) is form


def test_a_configuration_may_leave_everything_away() -> None:
    for data in (b"{}", b'{"config": null}', b'{"config": {}}', b'{"config": {"Cmd": null, "Env": null}}'):
        assert images.parse_config(data) == ImageConfig()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b'{"config": {"Cmd": "ls"}}',
        b'{"config": {"Env": ["NOVALUE"]}}',
        b'{"config": {"Env": ["=x"]}}',
        b'{"config": {"User": "a b"}}',
        b'{"config": {"Cmd": ["a\\u0000b"]}}',
        b'{"config": {"WorkingDir": "relative"}}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        images.parse_config(data)


def ask(places: Places, image: str) -> Image:
    return asyncio.run(Store(places.run).resolve(image))


def test_an_image_without_a_configuration_has_a_tree_and_nothing_more(places: Places) -> None:
    assert ask(places, "debian:12") == Image(TREE)
    assert ask(places, "team/app:v1.0") == Image(TREE)
    assert ask(places, f"cas://{'12' * 32}") == Image("12" * 32)


def test_an_images_configuration_is_read_from_the_store(places: Places) -> None:
    assert ask(places, "web").config == ImageConfig(
        entrypoint=["/bin/serve"],
        cmd=["--all"],
        env={"PATH": "/opt/bin:/bin", "MODE": "a=b"},
        user="www:www",
        workdir="/srv",
        stop_signal="SIGQUIT",
    )


def test_an_image_that_is_not_there_is_not_found_and_the_error_says_what_to_do(places: Places) -> None:
    with pytest.raises(NotFound, match="no image named debian:11: volt image list"):
        ask(places, "debian:11")


def test_a_blob_is_no_image(places: Places) -> None:
    with pytest.raises(Invalid, match="is a blob"):
        ask(places, "file")


def test_without_a_store_that_is_said(tmp_path: object) -> None:
    with pytest.raises(Unreachable, match="casd does not answer"):
        asyncio.run(Store(str(tmp_path)).resolve("debian"))


def test_a_view_is_asked_for_in_the_kernels_form(places: Places) -> None:
    assert asyncio.run(Store(places.run, "6.1.0").view(TREE)).form is Form.FULL
    assert asyncio.run(Store(places.run, "6.12.0").view(TREE)).form is Form.REDIRECT


def test_a_held_tree_is_let_go_once_or_more(places: Places) -> None:
    async def both() -> None:
        store = Store(places.run)
        await store.hold("web", TREE)
        await store.release("web")
        await store.release("web")

    asyncio.run(both())
