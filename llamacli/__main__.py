"""The program's first step; `python -m llamacli` is the same as `llamacli`."""

import gc
import signal


def main() -> None:
    """Run the command line."""
    # A command that is over in a tenth of a second would spend an eighth of it on looking for cycles among its imports.
    gc.set_threshold(50_000, 20, 50)
    listening = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if listening:  # a Ctrl-C before anything has begun ends it without a word
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from llamacli.cli.app import main as run

    if listening:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
