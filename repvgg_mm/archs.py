"""The architectures: one typed table, each entry with its source.

Sources: paper = Ding et al., CVPR 2021 (arXiv:2101.03697), tables 2 and 3; authors = the official repository,
github.com/DingXiaoH/RepVGG (MIT licence), ``repvgg.py`` and ``repvggplus.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

_BASE_WIDTHS = (64, 128, 256, 512)  # paper, table 2


@dataclass(frozen=True)
class Arch:
    """Widths and depths of a RepVGG.

    Attributes:
        num_blocks: blocks of stage1 to stage4; stage0 is always one block.
        width_multiplier: factors on 64, 128, 256 and 512 channels of stage1 to stage4.
        groups: groups of every second layer, counted over the whole network with stage0 as layer 0.
        se: squeeze-and-excitation of each block: None, ``'pre'`` or ``'post'`` (see ``RepVGGBlock``).
        plus: built as RepVGGplus: stage3 in two halves, ``stage3_first`` and ``stage3_second``, and the blocks of a
            stage under ``blocks``.
        qa: built of QARepVGG blocks (arXiv:2212.01593), whose kernels survive 8 bits.
        conv_bn: built of deployed blocks with a batch normalisation put in, as ``repvgg-mm insert-bn`` makes them.
    """

    num_blocks: tuple[int, int, int, int]
    width_multiplier: tuple[float, float, float, float]
    groups: int = 1
    se: str | None = None
    plus: bool = False
    qa: bool = False
    conv_bn: bool = False

    @property
    def stem_channels(self) -> int:
        """Channels of stage0: those of stage1, but at most 64 (paper, section 3.4)."""
        return min(64, int(64 * self.width_multiplier[0]))

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Channels of stage1 to stage4."""
        return tuple(int(base * factor) for base, factor in zip(_BASE_WIDTHS, self.width_multiplier, strict=True))

    @property
    def parts(self) -> tuple[tuple[str, ...], ...]:
        """Names of the modules that make up stage0 to stage4; only stage3 of RepVGGplus has two."""
        stage3 = ("stage3_first", "stage3_second") if self.plus else ("stage3",)
        return ("stage0",), ("stage1",), ("stage2",), stage3, ("stage4",)

    def of_kind(self, qa: bool = False, conv_bn: bool = False) -> "Arch":
        """Return the same of another kind of blocks.

        Args:
            qa: as the field.
            conv_bn: as the field.

        Raises:
            ValueError: if there are no such blocks.
        """
        return _checked_kind(replace(self, qa=qa, conv_bn=conv_bn))

    def groups_of_layer(self, index: int) -> int:
        """Return the groups of a layer, where index 0 is stage0 and index 1 the first block of stage1."""
        return self.groups if index % 2 == 0 and index > 0 else 1


_A = (2, 4, 14, 1)
_B = (4, 6, 16, 1)
_D = (8, 14, 24, 1)

ARCHS: dict[str, Arch] = {
    "A0": Arch(_A, (0.75, 0.75, 0.75, 2.5)),  # paper, table 3
    "A1": Arch(_A, (1, 1, 1, 2.5)),  # paper, table 3
    "A2": Arch(_A, (1.5, 1.5, 1.5, 2.75)),  # paper, table 3
    "B0": Arch(_B, (1, 1, 1, 2.5)),  # paper, table 3
    "B1": Arch(_B, (2, 2, 2, 4)),  # paper, table 3
    "B1g2": Arch(_B, (2, 2, 2, 4), groups=2),  # paper, section 3.4
    "B1g4": Arch(_B, (2, 2, 2, 4), groups=4),  # paper, section 3.4
    "B2": Arch(_B, (2.5, 2.5, 2.5, 5)),  # paper, table 3
    "B2g2": Arch(_B, (2.5, 2.5, 2.5, 5), groups=2),  # authors
    "B2g4": Arch(_B, (2.5, 2.5, 2.5, 5), groups=4),  # paper, section 3.4
    "B3": Arch(_B, (3, 3, 3, 5)),  # paper, table 3
    "B3g2": Arch(_B, (3, 3, 3, 5), groups=2),  # authors
    "B3g4": Arch(_B, (3, 3, 3, 5), groups=4),  # paper, section 3.4
    "D2se": Arch(_D, (2.5, 2.5, 2.5, 5), se="pre"),  # authors
    "plus-L2pse": Arch(_D, (2.5, 2.5, 2.5, 5), se="post", plus=True),  # authors, repvggplus.py
}


def resolve_arch(arch: "str | Mapping[str, Any] | Arch") -> Arch:
    """Turn the ``arch`` argument of a config into an ``Arch``.

    Args:
        arch: name in ``ARCHS`` (``'RepVGG-A0'`` is read as ``'A0'``, ``'RepVGGplus-L2pse'`` as ``'plus-L2pse'``), one
            with ``-qa`` or ``-bn`` behind it for the same of other blocks, or the fields of ``Arch`` as a dict.

    Returns:
        The architecture.

    Raises:
        ValueError: if the name, a field or a value is wrong; says what is possible.

    Example:
        >>> from repvgg_mm.archs import resolve_arch
        >>> resolve_arch("RepVGG-A0").stage_channels  # of stage1 to stage4: what heads get
        (48, 96, 192, 1280)
    """
    if isinstance(arch, Arch):
        return arch
    if isinstance(arch, str):
        name = arch.removeprefix("RepVGG").removeprefix("-")
        kind = name[-3:] if name[-3:] in ("-qa", "-bn") else ""
        plain = name.removesuffix(kind)
        if plain not in ARCHS:
            raise ValueError(
                f"arch={arch!r} is unknown: choose one of {', '.join(ARCHS)}, with -qa or -bn behind it, or give a dict"
            )
        return ARCHS[plain].of_kind(qa=kind == "-qa", conv_bn=kind == "-bn")
    if not isinstance(arch, Mapping):
        raise TypeError(f"arch={arch!r} is a {type(arch).__name__}: give a name or a dict")
    known = [field.name for field in fields(Arch)]
    unknown = sorted(set(arch) - set(known))
    missing = [name for name in ("num_blocks", "width_multiplier") if name not in arch]
    if unknown or missing:
        wrong = f"unknown {unknown}" if unknown else f"missing {missing}"
        raise ValueError(f"arch={dict(arch)!r}: {wrong}; its keys are {', '.join(known)}")
    return _checked(arch)


def _checked(arch: Mapping[str, Any]) -> Arch:
    num_blocks, widths = tuple(arch["num_blocks"]), tuple(arch["width_multiplier"])
    if len(num_blocks) != 4 or not all(isinstance(n, int) and n > 0 for n in num_blocks):
        raise ValueError(f"arch: num_blocks={num_blocks} must be four positive whole numbers")
    if len(widths) != 4 or not all(base * w >= 1 for base, w in zip(_BASE_WIDTHS, widths, strict=True)):
        raise ValueError(f"arch: width_multiplier={widths} must be four factors that leave at least one channel")
    if arch.get("plus") and num_blocks[2] % 2:
        raise ValueError(f"arch: num_blocks={num_blocks} with plus=True needs an even third number: stage3 is halved")
    return _checked_kind(Arch(**{**arch, "num_blocks": num_blocks, "width_multiplier": widths}))


def _checked_kind(arch: Arch) -> Arch:
    if arch.qa and arch.conv_bn:
        raise ValueError("arch: qa=True and conv_bn=True are two kinds of blocks: choose one")
    if arch.qa and arch.se is not None:
        raise ValueError(
            f"arch: se={arch.se!r} with qa=True: QARepVGG blocks with squeeze-and-excitation can't be folded"
        )
    return arch
