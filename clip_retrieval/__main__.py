"""``bento-clip`` and ``python -m clip_retrieval``: the command line, or what to install for it."""

import sys

from clip_retrieval.errors import MissingExtra


def main() -> None:
    """Run the command line. The base install is the client alone and has none of its packages."""
    try:
        from clip_retrieval.cli.app import main as run
    except ModuleNotFoundError as error:
        sys.exit(f"bento-clip: {MissingExtra(f'the command line ({error.name})', 'cli')}")
    run()


if __name__ == "__main__":
    main()
