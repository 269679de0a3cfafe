"""``python -m ui`` starts the page, as ``python -m ui.app`` does."""

from ui.app import main

if __name__ == "__main__":
    main()
