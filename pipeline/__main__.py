"""`vod-pipeline`, and `python -m pipeline`."""

import signal


def main() -> None:
    """Run the command line, with SIGHUP held back until the command says what that means to it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from pipeline import cli  # noqa: PLC0415  # What it imports takes a second, in which SIGHUP would end a service.

    cli.main()


if __name__ == "__main__":
    main()
