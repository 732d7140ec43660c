"""The program's first step; `python -m llamacli` is the same as `llamacli`."""

import gc


def main() -> None:
    """Run the command line."""
    # A command that is over in a tenth of a second would spend an eighth of it on looking for cycles among its imports.
    gc.set_threshold(50_000, 20, 50)
    from llamacli.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
