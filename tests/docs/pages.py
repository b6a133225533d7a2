"""The pages of the documentation as the tests read them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_FENCE = re.compile(
    r"^(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<info>[^\n]*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL
)
_COMMAND = re.compile(
    r"^(?:\$ )?((?:[A-Z_]+=\S+ )*(?:python -m repvgg_mm|repvgg-mm|python tools/\w+\.py|tools/\w+\.sh) .*)$"
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: where it stands.
        info: what stands behind the opening fence, such as ``console norun``.
        text: its lines.
        file: the name under which the page asks the reader to keep it, if it does.
    """

    page: Path
    info: str
    text: str
    file: str | None

    @property
    def commands(self) -> list[str]:
        """The commands in it, without comments."""
        found = (_COMMAND.match(line) for line in self.text.splitlines())
        return [re.sub(r"\s+#.*", "", match.group(1)).strip() for match in found if match]


def blocks(page: Path) -> list[Block]:
    """List the fenced blocks of a page."""
    return [Block(page, m["info"], m["text"], m["file"]) for m in _FENCE.finditer(page.read_text())]
