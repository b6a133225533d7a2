"""What pyproject.toml can't say: two things that an installation gets beside the package's own files.

- ``configs/`` as ``repvgg_mm/configs/``, found by name (``repvgg_mm/config_files.py``). An editable installation
  takes them from the checkout.
- A ``.pth`` file, which Python runs at every start, and the finder that it installs: a copy of
  ``repvgg_mm/mmcv_ops/finder.py``, so that nothing of repvgg_mm is imported. mmdet's own tools import
  mmcv's operators before they read a config.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FINDER = "_repvgg_mm_mmcv_ops"
STARTUP = f"import {FINDER}; {FINDER}.install()\n"
ROOT = Path(__file__).parent


class BuildWithStartupAndConfigs(build_py):
    """Builds what setuptools builds, and the two."""

    def run(self) -> None:
        """Build; files go into the wheel itself where the package's own stay in the checkout."""
        super().run()
        site = Path(self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib)
        site.mkdir(parents=True, exist_ok=True)
        self.copy_file("repvgg_mm/mmcv_ops/finder.py", str(site / f"{FINDER}.py"))
        (site / f"{FINDER}.pth").write_text(STARTUP)
        if not self.editable_mode:
            for config in sorted(ROOT.glob("configs/**/*.py")):
                target = site / "repvgg_mm" / config.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(config), str(target))


setup(cmdclass={"build_py": BuildWithStartupAndConfigs})
