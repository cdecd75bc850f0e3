"""`python -m pipeline`: the same as `vod-pipeline`."""

from pipeline.cli import main

main()
