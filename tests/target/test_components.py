"""The components of an app are found in the engine's database, however deep they are."""

from __future__ import annotations

from collections.abc import Callable

import cocoindex as coco

import cocoindex_fsmirror as fsmirror
from cocoindex_fsmirror._disk.tree import Tree
from cocoindex_fsmirror._mirror.ledger import Ledger
from cocoindex_fsmirror._target.sink import mirror_at
from tests.support import contents
from tests.target.flows import OUT, Flow, page, ran


def _put_in_doubt(_tree: Tree, ledger: Ledger) -> None:
    """Makes the next update remove what nobody declares."""
    for owner in ledger.owners().values():
        ledger.set_owner(owner._replace(in_doubt=True))


async def nested(flow: Flow) -> None:
    """Declares every file in a component that is two levels below another one."""
    out = await fsmirror.mount_dir_target(OUT)
    for name in ("one", "two"):
        at = coco.component_subpath(name, "deep")
        files = {n: content for n, content in flow.files.items() if n.startswith(name)}
        await coco.mount(at, further, files, out)


async def further(files: dict[str, bytes], out: fsmirror.DirTarget) -> None:
    """Mounts a component that mounts one for every file."""
    items = [(name, (name, files[name])) for name in files]
    await coco.mount(coco.component_subpath("more"), coco.mount_each, page, items, out)


def test_update_in_doubt_keeps_what_nested_components_declare(
    make_flow: Callable[..., Flow],
) -> None:
    flow = make_flow(nested)
    flow.files = {f"{folder}/{number}": b"1" for folder in ("one", "two") for number in range(3)}
    flow.update()
    mirror_at(str(flow.root)).session.run(_put_in_doubt)
    flow.close()
    flow.update()
    assert ran == []
    assert contents(flow.tree) == flow.files
    assert fsmirror.Mirror(flow.root).verify() == []
