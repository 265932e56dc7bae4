"""`python -m ionas` is the command `ionas`."""

from ionas.cli import app

app(prog_name="ionas")
