"""``python -m repvgg_mm COMMAND ...`` is ``repvgg-mm COMMAND ...``."""

from .cli.main import main

if __name__ == "__main__":
    main()
