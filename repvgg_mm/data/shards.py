"""Image classification from tar shards, with the very guarantees of a folder.

Why not a stream of samples, as the webdataset package has it: there the length of an epoch, what a process and a worker
get, and where a resumed run goes on hang on the number of workers and on what each has read so far. Here a shard is
copied whole from its store, in one stream, and images are then taken by number. So an epoch has every image once, no
two processes share one, and a run resumes at any iteration with any number of workers, all by the arithmetic of
`ShardSampler`; and the webdataset package still writes the shards, reads them and opens their addresses.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.registry import DATASETS

from .images import ClassifiedImages
from .shard_store import ShardStore


@DATASETS.register_module()
class ImageShards(ClassifiedImages):
    """Images of one split in tar files, as ``repvgg-mm make-shards`` writes them.

    Args:
        data_root: folder or address (``https://``, ``s3://``, ``gs://``) of the data set.
        split: folder below it, with the shards.
        transforms: as of `ImageFolder`.
        classes: another split below ``data_root``, which must have the same classes in the same order.
        cache_dir: folder of this machine that shards are copied to; for an address. It needs room for all of them.
        broken: as of `ImageFolder`.

    Raises:
        ImportError: if webdataset is needed and not installed.
        FileNotFoundError: if there are no shards.
        ValueError: if an address has no ``cache_dir``, or an argument is out of its choices.
        DataError: if the index is damaged or can't be fetched, or the classes differ.
    """

    def __init__(
        self,
        data_root: str,
        split: str,
        transforms: Sequence[Mapping[str, Any]],
        classes: str | None = None,
        cache_dir: str | None = None,
        broken: str = "stop",
    ) -> None:
        root = data_root.rstrip("/")
        self.store = ShardStore(f"{root}/{split}", cache_dir)
        self.index = self.store.index
        names = tuple(self.index.classes.tolist())
        if classes is not None:
            others = tuple(ShardStore(f"{root}/{classes}", cache_dir).index.classes.tolist())
            if others != names:
                raise ValueError(
                    f"the classes of {root}/{split} are not those of {root}/{classes}: make its shards again with "
                    f"classes from there"
                )
        super().__init__(names, self.index.labels, transforms, broken)

    def _content(self, index: int) -> bytearray:
        return self.store.read(index)

    def _name(self, index: int) -> str:
        return self.store.member_name(index)
