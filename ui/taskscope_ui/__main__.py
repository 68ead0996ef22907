"""`python -m taskscope_ui` is `taskscope`."""

from __future__ import annotations

from taskscope_ui.cli import main

if __name__ == "__main__":
    main()
