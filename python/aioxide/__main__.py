"""``python -m aioxide``; see `aioxide._cli`."""

# Nothing but this: the namespace is about to become the program's own.
from aioxide._cli import main

if __name__ == "__main__":
    main()
