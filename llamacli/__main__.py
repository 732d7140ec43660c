"""`python -m llamacli` is the same as `llamacli`."""

from llamacli.cli.app import main

if __name__ == "__main__":
    main()
