"""Entry point of ``python -m segpipe``, which ``torchrun -m segpipe`` runs."""

from segpipe.cli.main import program

if __name__ == "__main__":
    program()
